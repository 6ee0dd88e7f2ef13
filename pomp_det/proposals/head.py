"""The convolutional head that all levels share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import get_norm
from torch import Tensor, nn

from prompt_core.errors import UserError


class Scale(nn.Module):
    """One learned factor."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([value]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class CenterNetHead(nn.Module):
    """Tower of 3 x 3 convolutions, then the heat map (1 channel) and the distances to the box sides (4 channels).

    Distances are in strides, after a factor learned for each level and a ReLU. Sub-module names are the published
    ones. Source: CenterNet2, arXiv 2103.07461.
    """

    def __init__(
        self, channels: int, num_levels: int, num_convs: int = 4, norm: str = "GN", prior_probability: float = 0.01
    ) -> None:
        """Raises UserError when group normalisation cannot split ``channels`` into its 32 groups."""
        super().__init__()
        if norm == "GN" and channels % 32:
            raise UserError(f"MODEL.FPN.OUT_CHANNELS is {channels}; CenterNet's group norm needs a multiple of 32")
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            layers += [_convolution(channels, channels)]
            layers += [get_norm(norm, channels)] if norm else []
            layers += [nn.ReLU()]
        self.bbox_tower = nn.Sequential(*layers)
        self.bbox_pred = _convolution(channels, 4, bias=8.0)
        self.agn_hm = _convolution(channels, 1, bias=-math.log((1 - prior_probability) / prior_probability))
        self.scales = nn.ModuleList(Scale() for _ in range(num_levels))

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Heat map logits (B, 1, h, w) and box sides (B, 4, h, w) of each level's features (B, C, h, w)."""
        heatmaps, sides = [], []
        for scale, feature in zip(self.scales, features, strict=True):
            tower = self.bbox_tower(feature)
            heatmaps.append(self.agn_hm(tower))
            sides.append(F.relu(scale(self.bbox_pred(tower))))
        return heatmaps, sides


def _convolution(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
    return layer
