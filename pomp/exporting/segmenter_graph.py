"""The embedded segmenter without Detectron2: a photo and words in, scores of each pixel's words out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomp.exporting.image_graph import unit_rows
from pomp.exporting.model_graph import Graph
from pomp_seg.models.per_pixel import LEAST, ZeroShotPerPixelModel
from pomp_seg.pixel_shares import NONE_OF_THESE, background_rows
from pomp_seg.regions.encode import similarity_logits
from prompt_core.errors import UserError


class SegmenterGraph(nn.Module):
    """What :class:`ZeroShotPerPixelModel` computes for one square photo, at the size that the network sees."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: Any) -> None:
        """
        Args:
            model: a segmenter in evaluation mode.
        """
        super().__init__()
        self.backbone, self.head = model.backbone, model.sem_seg_head
        self.register_buffer("pixel_mean", model.pixel_mean.clone())
        self.register_buffer("pixel_std", model.pixel_std.clone())

    def forward(self, photo: Tensor, class_features: Tensor, background: Tensor | None = None) -> tuple[Tensor, ...]:
        """One photo.

        Args:
            photo: (1, 3, S, S) RGB in 0..255, padded to the right and below with ``pad_value``.
            class_features: (N, E) unit-norm text features of the words.
            background: (B, E) unit-norm features of what else a pixel may show, where the segmenter has it.

        Returns:
            ``scores`` (N, S, S), for each pixel a softmax over the words; with a background own shares, see
            :mod:`pomp_seg.pixel_shares`.
        """
        embeddings = self.head(self.backbone((photo - self.pixel_mean) / self.pixel_std))  # (1, E, h, w)
        logits = similarity_logits(self._enlarged(embeddings, photo)[0].permute(1, 2, 0), class_features)  # (S, S, N)
        scores = logits.softmax(dim=-1).permute(2, 0, 1)
        if background is None:
            return (scores,)
        cells = embeddings[0].permute(1, 2, 0)  # (h, w, E)
        of_words, of_others = (
            similarity_logits(cells, rows).logsumexp(dim=-1) for rows in (class_features, background)
        )
        named = torch.sigmoid(of_words - of_others).clamp(min=LEAST)
        return (scores * self._enlarged(named[None, None], photo)[0],)

    @staticmethod
    def _enlarged(maps: Tensor, photo: Tensor) -> Tensor:
        return F.interpolate(maps, size=photo.shape[-2:], mode="bilinear", align_corners=False)


def segmenter_graph(predictor: Any) -> Graph:
    """The graph of an :class:`pomp_seg.predictor.OpenVocabularySegmenter`.

    Raises:
        UserError: a segmenter of mask proposals, or one that also asks CLIP about the whole photo.
    """
    model, cfg = predictor.model, predictor.cfg
    if not isinstance(model, ZeroShotPerPixelModel) or model.clip_ensemble_weight <= 1:
        raise UserError(
            f"{type(model).__name__} is not exported: CLIP looks at crops of the regions that it finds, whose number "
            "and sizes differ from photo to photo; exported are segmenters like mini/segmenter, the image side of any "
            "CLIP, and class matrices"
        )
    step = model.size_divisibility
    side = -(-int(cfg.INPUT.MAX_SIZE_TEST) // step) * step
    width = int(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    generator = torch.Generator().manual_seed(0)

    def inputs(count: int, background: int) -> dict[str, Tensor]:
        photo = 255 * torch.rand(1, 3, side, side, generator=generator)
        given = {"photo": photo, "class_features": unit_rows(count, width, generator)}
        return given | ({} if model.background is None else {"background": unit_rows(background, width, generator)})

    notes = {
        "task": "segment",
        "photo": {
            "size": side,
            "resize": f"the shorter side to {cfg.INPUT.MIN_SIZE_TEST}, the longer one to {cfg.INPUT.MAX_SIZE_TEST} at "
            "most, bilinear; at the top left",
            "pad_value": [float(value) for value in model.pixel_mean.flatten()],
            "colours": "RGB, 0..255",
        },
        "class_features": {"width": width},
        "none_of_these_up_to": float(cfg.MODEL.SEM_SEG_HEAD.NONE_OF_THESE),
    }
    module = SegmenterGraph(model).eval()
    free = {"class_features": (0,), "background": (0,)}
    return Graph(module, inputs(3, 5), inputs(7, 11), free, ("scores",), notes=notes)


def segmenter_matrices(predictor: Any) -> tuple[list[str], Tensor, Tensor | None]:
    """The words of a segmenter, their features (N, E), and those of its background (B, E) if it has one."""
    model = predictor.model
    names = [name for name in predictor.class_names if name != NONE_OF_THESE]
    features = model.clip_adapter.text_features(names)
    if model.background is None:
        return names, features, None
    others = model.clip_adapter.text_features(model.background.names)
    return names, features, background_rows(names, model.background, features, others)
