"""NanoDet-g: a small convolutional detector whose trunk, pyramid and predictions per cell are features here.

Source: github.com/RangiLyu/nanodet, configuration ``nanodet-g`` (CSPNet, arXiv 1911.11929; path aggregation, arXiv
1803.01534; box sides as distributions, arXiv 2006.04388). Batch-norm is part of the convolutions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from torch import Tensor, nn

LEVELS = (3, 4, 5)  # of stride 2 ** level
SIDE_BINS = 11  # a box side is a distribution over 0, 1, ..., 10 strides
CHANNELS = (32, 64, 128, 256)  # of the four stages' inputs; each doubles them
PAIRS = (1, 2, 2, 3)  # of convolutions in each stage


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, and a leaky ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2), nn.LeakyReLU(0.1, inplace=True))


class CrossStage(nn.Module):
    """A stage whose input also goes round its convolutions (CSPNet): C channels in, 2 C out."""

    def __init__(self, channels: int, pairs: int, stride: int) -> None:
        super().__init__()
        half = channels // 2
        self.entry = convolution(channels, channels, stride=stride)
        self.pairs = nn.ModuleList(
            nn.ModuleList([convolution(channels, half), convolution(half, half)]) for _ in range(pairs)
        )
        self.exit = convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = inner = self.entry(x)
        for pair in self.pairs:
            first, second = pair[0], pair[1]  # type: ignore[index]
            inner = first(inner)
            inner = torch.cat((second(inner), inner), dim=1)  # (B, C, H, W)
        return torch.cat((self.exit(inner), x), dim=1)  # (B, 2 C, H, W)


class NanoDet(Backbone):
    """The network without its decoding.

    Features of level l, of stride ``2 ** l``: ``p{l}`` (B, 128, H, W), the pyramid; ``cells{l}`` (B, C + 44, H, W),
    for each cell logits of the C classes it was trained for, then the logits of 11 bins for the left, top, right and
    bottom side of a box round the cell's centre.
    """

    def __init__(self, num_classes: int = 80, channels: tuple[int, ...] = CHANNELS, width: int = 128) -> None:
        """
        Args:
            num_classes: C.
            channels: of the stages, for tests; each entry is twice the one before.
            width: of the pyramid.
        """
        super().__init__()
        self.num_classes = num_classes
        self.stem = convolution(3, channels[0], stride=2)
        self.stages = nn.ModuleList(
            CrossStage(count, pairs, 1 if stage == 0 else 2)
            for stage, (count, pairs) in enumerate(zip(channels, PAIRS, strict=True))
        )
        self.lateral = nn.ModuleList(nn.Conv2d(2 * count, width, 1) for count in channels[1:])
        self.hidden = nn.ModuleList(convolution(width, width) for _ in LEVELS)
        self.cells = nn.ModuleList(nn.Conv2d(width, num_classes + 4 * SIDE_BINS, 1) for _ in LEVELS)
        self._out_features = [f"p{level}" for level in LEVELS] + [f"cells{level}" for level in LEVELS]
        cell_width = num_classes + 4 * SIDE_BINS
        self._out_feature_channels = {name: width if name[0] == "p" else cell_width for name in self._out_features}
        self._out_feature_strides = {name: 2 ** int(name[-1]) for name in self._out_features}

    @property
    def size_divisibility(self) -> int:
        """Sides of the input are multiples of 32 pixels."""
        return 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features of normalised BGR images (B, 3, H, W)."""
        return self.predict(self.pyramid(x))

    def pyramid(self, x: Tensor) -> dict[str, Tensor]:
        """``p3`` to ``p5`` of normalised BGR images (B, 3, H, W)."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))  # a fifth faster on CPUs, and the same
        x = F.max_pool2d(x, 3, stride=2, padding=1)  # stride 4
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        three, four, five = (lateral(stage) for lateral, stage in zip(self.lateral, stages[1:], strict=True))
        four_down = four + _resized(five, four)
        three = three + _resized(four_down, three)
        four = four_down + _resized(three, four_down)
        five = five + _resized(four, five)
        return {"p3": three, "p4": four, "p5": five}

    def predict(self, pyramid: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pyramid, with ``cells3`` to ``cells5``."""
        features = dict(pyramid)
        for level, hidden, cells in zip(LEVELS, self.hidden, self.cells, strict=True):
            features[f"cells{level}"] = cells(hidden(features[f"p{level}"]))
        return features


def side_lengths(logits: Tensor, dim: int = -1) -> Tensor:
    """Four box sides in strides, from the logits of their bins: the distributions' means.

    Args:
        dim: of the 44 logits, which becomes that of the 4 sides.
    """
    bins = torch.arange(SIDE_BINS, device=logits.device, dtype=logits.dtype)
    of_bins = dim if dim < 0 else dim + 1
    shares = logits.unflatten(dim, (4, SIDE_BINS)).softmax(dim=of_bins)  # (…, 4, 11, …)
    return torch.tensordot(shares, bins, dims=([of_bins], [0]))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
