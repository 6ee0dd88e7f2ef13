"""Per-pixel semantic projection: each pixel gets an embedding in the space of the text features (SPNet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor, nn

from pomp_seg.best_classes import PixelScores
from pomp_seg.clip import ClipAdapter
from pomp_seg.ensemble import geometric_ensemble
from pomp_seg.heads.pixel_decoder import PixelDecoder, rename_old_keys
from pomp_seg.models.segmenter import Segmenter, build_adapter
from pomp_seg.pixel_shares import background_names, background_rows, named_probability
from pomp_seg.regions.encode import LOGIT_SCALE, similarity_logits
from pomp_seg.vocabulary import Classes, batch_classes
from prompt_core.errors import UserError
from prompt_core.towers.placement import upload
from prompt_core.vocabulary import Vocabulary

# A pixel's words keep their order, however little it shows one of them.
LEAST = 1e-20


@SEM_SEG_HEADS_REGISTRY.register()
class ZeroPerPixelBaselineHead(nn.Module):
    """Pixel decoder and one 1x1 convolution to an embedding of ``NUM_CLASSES`` numbers."""

    def __init__(self, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> None:
        super().__init__()
        node = cfg.MODEL.SEM_SEG_HEAD
        self.ignore_value, self.loss_weight = int(node.IGNORE_VALUE), float(node.LOSS_WEIGHT)
        used = {name: input_shape[name] for name in node.IN_FEATURES}
        self.pixel_decoder = PixelDecoder(used, node.CONVS_DIM, node.MASK_DIM, node.NORM)
        self.predictor = Conv2d(node.MASK_DIM, node.NUM_CLASSES, kernel_size=1)
        weight_init.c2_msra_fill(self.predictor)
        self._register_load_state_dict_pre_hook(rename_old_keys)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Pixel embeddings (B, E, H, W) at the size of the finest feature."""
        return self.predictor(self.pixel_decoder(features))


@META_ARCH_REGISTRY.register()
class ZeroShotPerPixelModel(Segmenter):
    """Pixels classified by the cosine of their embedding with text features.

    The method of SPNet (Xian et al., CVPR 2019) on the backbone and decoder of the other segmenters, with CLIP's text
    features instead of word vectors.
    """

    @configurable
    def __init__(
        self,
        *,
        clip_adapter: ClipAdapter,
        clip_ensemble_weight: float,
        background: Vocabulary | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            clip_ensemble_weight: in 0..1 the weight of the pixels' own scores against CLIP's of the whole image (see
                :func:`pomp_seg.ensemble.geometric_ensemble`); above 1 the pixels' scores alone, below 0 CLIP's alone.
            background: names that pixels may show instead of the words: scores are own shares then
                (:mod:`pomp_seg.pixel_shares`), which add up to less than 1.
            options: of :class:`pomp_seg.models.segmenter.Segmenter`.
        """
        super().__init__(**options)
        self.clip_adapter, self.clip_ensemble_weight = clip_adapter, clip_ensemble_weight
        self.background = background
        self._against: tuple[tuple[str, ...], Tensor, Tensor] | None = None  # names, their features, the background's

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Parts by configuration."""
        adapter = build_adapter(cfg.MODEL.CLIP_ADAPTER)
        width = adapter.clip.embed_dim
        if width != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}; for pixel embeddings it is "
                f"the width of the text features, {width}"
            )
        weight = cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT
        background = background_names(cfg.MODEL.SEM_SEG_HEAD.BACKGROUND)
        adapters = {"clip_adapter": adapter, "clip_ensemble_weight": weight, "background": background}
        return {**adapters, **cls.parts(cfg)}

    def forward(self, batch: Sequence[dict[str, Any]]) -> Any:
        """The loss in training, else predictions; input and output as for :class:`pomp_seg.models.MaskFormer`.

        Args:
            batch: in training with ``sem_seg`` (H, W), class indices and ``IGNORE_VALUE``.
        """
        maps, padded = self.features(batch)
        embeddings = self.sem_seg_head(maps)  # (B, E, H, W)
        classes = batch_classes(batch, self.classes)
        features = self.clip_adapter.text_features(classes.names)
        if self.training:
            labels = ImageList.from_tensors(
                [upload(example["sem_seg"], self.device) for example in batch],
                self.size_divisibility,
                self.sem_seg_head.ignore_value,
            ).tensor
            return {"loss_sem_seg": self._loss(embeddings, labels, features)}
        return [{"sem_seg": scores.all()} for scores in self._pixel_scores(batch, embeddings, padded, features)]

    def pixel_scores(self, batch: Sequence[dict[str, Any]]) -> list[PixelScores]:
        """What :meth:`forward` gives in inference; in the size of the output, to which embeddings are resized."""
        maps, padded = self.features(batch)
        features = self.clip_adapter.text_features(batch_classes(batch, self.classes).names)
        return self._pixel_scores(batch, self.sem_seg_head(maps), padded, features)

    def _pixel_scores(
        self, batch: Sequence[dict[str, Any]], embeddings: Tensor, padded: ImageList, features: Tensor
    ) -> list[PixelScores]:
        classes = batch_classes(batch, self.classes)
        results = []
        # Channels last, embeddings are enlarged twice and meet the words without being laid out anew.
        laid_out = embeddings.contiguous(memory_format=torch.channels_last).split(1)  # each (1, E, h, w)
        for example, embedding, size in zip(batch, laid_out, padded.image_sizes, strict=True):
            wanted = example.get("height", size[0]), example.get("width", size[1])

            def enlarged(
                maps: Tensor, size: tuple[int, int] = size, wanted: tuple[int, int] = wanted
            ) -> Tensor:  # (1, n, h, w) to (1, n, height, width)
                full = F.interpolate(maps, size=padded.tensor.shape[-2:], mode="bilinear", align_corners=False)
                return F.interpolate(
                    full[:, :, : size[0], : size[1]], size=wanted, mode="bilinear", align_corners=False
                )

            scores = _pixel_logits(enlarged(embedding), features)[0].softmax(dim=0)
            scores = self._with_clip(scores, example, classes)
            if self.background is not None:
                scores = scores * enlarged(self._named(embedding[0], classes.names, features)[None, None])[0]
            results.append(PixelScores(scores, wanted))
        return results

    def _named(self, embedding: Tensor, names: tuple[str, ...], features: Tensor) -> Tensor:
        """Probability (h, w) that pixels show one of the words: embeddings (E, h, w), features of the words (C, E)."""
        assert self.background is not None
        kept = self._against
        if kept is None or kept[0] != names or not torch.equal(kept[1], features):
            others = self.clip_adapter.text_features(self.background.names)
            self._against = kept = names, features, background_rows(names, self.background, features, others)
        pixels = F.normalize(embedding.flatten(1).T, dim=1)  # (h * w, E)
        shares = named_probability(pixels, features, kept[2], LOGIT_SCALE).clamp(min=LEAST)
        return shares.reshape(embedding.shape[-2:])

    def _loss(self, embeddings: Tensor, labels: Tensor, features: Tensor) -> Tensor:
        """Cross entropy of the logits, which are enlarged to the image, as published; a test enlarges embeddings."""
        head: Any = self.sem_seg_head
        logits = _pixel_logits(embeddings, features)  # (B, C, h, w)
        full = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        return head.loss_weight * F.cross_entropy(full, labels, ignore_index=head.ignore_value)

    def _with_clip(self, maps: Tensor, example: dict[str, Any], classes: Classes) -> Tensor:
        """Pixel scores (C, H, W) joined with CLIP's view of the whole image."""
        weight = self.clip_ensemble_weight
        if weight > 1:
            return maps
        features = self.clip_adapter.whole_image_features(upload(example["image"], self.device))
        logits = similarity_logits(features, self.clip_adapter.text_features(classes.names))  # (1, C)
        whole = logits.softmax(dim=-1)
        pixels = maps.flatten(1).T  # (H * W, C)
        if weight < 0:
            return whole.expand_as(pixels).T.reshape(maps.shape)
        joined = geometric_ensemble(pixels, whole.expand_as(pixels), classes.seen_mask, weight)
        return joined.T.reshape(maps.shape)


def _pixel_logits(embeddings: Tensor, features: Tensor) -> Tensor:
    """(B, E, H, W) and (C, E) to 100 times the cosines (B, C, H, W).

    As :func:`pomp_seg.regions.encode.similarity_logits` of each pixel, with the products divided by the norms instead
    of the embeddings, of which there are more numbers.
    """
    pixels = embeddings.permute(0, 2, 3, 1)  # (B, H, W, E)
    products = pixels @ (LOGIT_SCALE * features.to(pixels)).T  # (B, H, W, C)
    norms = torch.einsum("bhwe,bhwe->bhw", pixels, pixels).clamp(min=1e-24).sqrt()
    return (products / norms[..., None]).permute(0, 3, 1, 2)
