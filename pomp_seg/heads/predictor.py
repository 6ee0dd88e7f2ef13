"""From learned queries to mask proposals: a class embedding (or class logits) and a mask for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import Tensor, nn

from pomp_seg.heads.transformer import Transformer

TEMPERATURE = 10000.0  # of the position encodings


@dataclass(frozen=True)
class Proposals:
    """Mask proposals of a batch after one decoder layer.

    Attributes:
        classes: class embeddings (B, Q, E) before any normalisation; of a closed vocabulary class logits (B, Q, C + 1),
            the last for "no object".
        masks: mask logits (B, Q, H, W) at the size of the mask features.
    """

    classes: Tensor
    masks: Tensor


class MultilayerPerceptron(nn.Module):
    """Linear layers with ReLU between them; the first ones have ``hidden`` outputs."""

    def __init__(self, width: int, hidden: int, outputs: int, layers: int) -> None:
        super().__init__()
        sizes = [width, *[hidden] * (layers - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) → (..., outputs)."""
        for layer in self.layers[:-1]:
            states = F.relu(layer(states))
        return self.layers[-1](states)


class MaskProposalPredictor(nn.Module):
    """Learned queries, the transformer, and one head each for class and mask (MaskFormer, arXiv 2107.06278)."""

    def __init__(
        self,
        in_channels: int,
        class_head: nn.Module,
        mask_channels: int,
        num_queries: int,
        transformer: Transformer,
        width: int,
        deep_supervision: bool,
        enforce_input_projection: bool = False,
    ) -> None:
        """
        Args:
            in_channels: of the backbone feature that the queries attend to.
            class_head: queries (..., width) to class embeddings or logits.
            mask_channels: D, of the mask features.
            width: of the queries.
            deep_supervision: predict after every layer, not only after the last.
            enforce_input_projection: project the feature also where it has the right width.
        """
        super().__init__()
        self.transformer = transformer
        self.query_embed = nn.Embedding(num_queries, width)
        self.input_proj: nn.Module = nn.Sequential()
        if in_channels != width or enforce_input_projection:
            projection = Conv2d(in_channels, width, kernel_size=1)
            nn.init.kaiming_uniform_(projection.weight, a=1)
            assert projection.bias is not None
            nn.init.zeros_(projection.bias)
            self.input_proj = projection
        self.class_embed = class_head
        self.mask_embed = MultilayerPerceptron(width, width, mask_channels, 3)
        self.deep_supervision = deep_supervision

    def forward(self, feature: Tensor, mask_features: Tensor) -> list[Proposals]:
        """Proposals of the last layer, or with deep supervision of all layers, the last one last.

        Args:
            feature: (B, C, H', W') of the backbone.
            mask_features: (B, D, H, W).
        """
        positions = sine_positions(*_size(feature), self.query_embed.embedding_dim, feature.device)
        states = self.transformer(self.input_proj(feature), positions, self.query_embed.weight)  # (L, B, Q, width)
        states = states if self.deep_supervision else states[-1:]
        classes = self.class_embed(states)
        masks = torch.einsum("lbqd,bdhw->lbqhw", self.mask_embed(states), mask_features)
        return [Proposals(embedding, mask) for embedding, mask in zip(classes, masks, strict=True)]


def _size(feature: Tensor) -> tuple[int, int]:
    return feature.shape[-2], feature.shape[-1]


def sine_positions(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Fixed position encodings (1, channels, height, width) of DETR (arXiv 2005.12872, section A.4).

    The first half of the channels encodes the row, the second half the column, each as sines and cosines in turn of the
    position scaled to (0, 2π].
    """
    half = channels // 2
    exponent = 2 * torch.div(torch.arange(half, device=device), 2, rounding_mode="floor") / half
    frequency = TEMPERATURE**exponent  # (half,)

    def encode(count: int) -> Tensor:
        place = torch.arange(1, count + 1, device=device, dtype=torch.float32) / (count + 1e-6) * 2 * math.pi
        angle = place[:, None] / frequency  # (count, half)
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    rows = encode(height)[:, None].expand(-1, width, -1)
    columns = encode(width)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=2).permute(2, 0, 1)[None]
