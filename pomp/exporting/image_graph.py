"""The image side of a CLIP with the words as an input: probabilities, and own shares against a background."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn

from pomp.exporting.model_graph import Graph
from prompt_core.clip import Clip


class ImageGraph(nn.Module):
    """Image tower, cosines with class features, softmax."""

    def __init__(self, model: Any) -> None:
        """
        Args:
            model: an open_clip model.
        """
        super().__init__()
        # Most models encode an image by this tower alone, and the file then holds no text tower.
        plain = type(model).encode_image in (CLIP.encode_image, CustomTextCLIP.encode_image)
        self.tower = model.visual if plain else model
        self._encode = "forward" if plain else "encode_image"

    def forward(
        self, images: Tensor, class_features: Tensor, logit_scale: Tensor, background: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """A batch.

        Args:
            images: (B, 3, S, S), prepared.
            class_features: (N, E) unit-norm.
            logit_scale: (), that cosines are multiplied by.
            background: (M, E) unit-norm features of other names, M at least 1.

        Returns:
            ``image_features`` (B, E) unit-norm, ``logits`` (B, N), ``probabilities`` (B, N) among the words; with a
            background ``own_share`` (B, N) among words and background, see
            :func:`prompt_core.background.own_share.own_shares`.
        """
        features = F.normalize(getattr(self.tower, self._encode)(images), dim=-1)
        logits = logit_scale * features @ class_features.T
        answers = features, logits, logits.softmax(dim=1)
        if background is None:
            return answers
        others = (logit_scale * features @ background.T).logsumexp(dim=1)
        total = torch.logaddexp(logits.logsumexp(dim=1), others)
        return *answers, (logits - total[:, None]).exp()


def image_graph(clip: Clip, own_share: bool = False) -> Graph:
    """The graph of a CLIP.

    Args:
        own_share: with a background as an input.
    """
    generator = torch.Generator().manual_seed(0)
    side = clip.image_size

    def inputs(batch: int, count: int, background: int, scale: float) -> dict[str, Tensor]:
        given = {
            "images": torch.randn(batch, 3, side, side, generator=generator),
            "class_features": unit_rows(count, clip.embed_dim, generator),
            "logit_scale": torch.tensor(scale),
        }
        return given | ({"background": unit_rows(background, clip.embed_dim, generator)} if own_share else {})

    prepared = clip.preprocess_cfg
    notes = {
        "task": "classify",
        "clip": clip.name,
        "clip_sha256": clip.fingerprint,
        "images": {
            "size": side,
            "mean": list(clip.image_mean),
            "std": list(clip.image_std),
            "interpolation": prepared["interpolation"],
            "resize_mode": prepared["resize_mode"],
            "colours": "RGB, 0..1 before mean and std",
        },
        "class_features": {"width": clip.embed_dim},
        "logit_scale": clip.logit_scale,
    }
    free = {"images": (0,), "class_features": (0,), "background": (0,)}
    outputs = ("image_features", "logits", "probabilities", *(["own_share"] if own_share else []))
    first, other = inputs(2, 3, 5, clip.logit_scale), inputs(3, 7, 11, 1.0)
    return Graph(ImageGraph(clip.model).eval(), first, other, free, outputs, notes=notes)


def unit_rows(count: int, width: int, generator: torch.Generator) -> Tensor:
    """Random unit-norm features (count, width)."""
    return F.normalize(torch.randn(count, width, generator=generator), dim=1)
