"""The pixel decoder: a feature pyramid whose finest map carries the mask features (MaskFormer, arXiv 2107.06278)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch.nn.functional as F
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn


class PixelDecoder(nn.Module):
    """Adds each backbone feature, from the coarsest to the finest, to the upsampled sum of the coarser ones.

    Modules are numbered from the finest level: ``adapter_1``, ``layer_1`` belong to the first input. The published
    decoder of 2107.06278, appendix; sizes as in FPN (arXiv 1612.03144), upsampling by the nearest pixel.
    """

    def __init__(self, input_shape: Mapping[str, ShapeSpec], channels: int, mask_channels: int, norm: str) -> None:
        """
        Args:
            input_shape: the backbone features to use.
            channels: of the pyramid.
            mask_channels: D, of the mask features.
            norm: of each convolution except the last (``GN`` in the published runs; empty for none).
        """
        super().__init__()
        self.in_features = [name for name, _ in sorted(input_shape.items(), key=lambda item: item[1].stride or 0)]
        bias = norm == ""
        for level, name in enumerate(self.in_features, start=1):
            width = input_shape[name].channels
            if level < len(self.in_features):
                adapter = Conv2d(width, channels, kernel_size=1, bias=bias, norm=get_norm(norm, channels))
                weight_init.c2_xavier_fill(adapter)
                self.add_module(f"adapter_{level}", adapter)
                width = channels
            layer = Conv2d(
                width, channels, kernel_size=3, padding=1, bias=bias, norm=get_norm(norm, channels), activation=F.relu
            )
            weight_init.c2_xavier_fill(layer)
            self.add_module(f"layer_{level}", layer)
        self.mask_features = Conv2d(channels, mask_channels, kernel_size=3, padding=1)
        weight_init.c2_xavier_fill(self.mask_features)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Mask features (B, D, H, W) at the size of the finest backbone feature."""
        levels = len(self.in_features)
        merged = self.get_submodule(f"layer_{levels}")(features[self.in_features[-1]])
        for level in range(levels - 1, 0, -1):
            lateral = self.get_submodule(f"adapter_{level}")(features[self.in_features[level - 1]])
            merged = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
            merged = self.get_submodule(f"layer_{level}")(merged)
        return self.mask_features(merged)


_DIRECT = re.compile(r"(adapter_\d+|layer_\d+|mask_features)\.")
_TWICE = "pixel_decoder.pixel_decoder."


def rename_old_keys(state: dict[str, Any], prefix: str, *unused: Any) -> None:
    """Give the pixel decoder's weights below ``prefix`` their current names, in place: a hook of loading.

    The first releases of MaskFormer kept the pixel decoder directly in the head. The published code renames such keys
    whenever a file has no version, including those of newer files, whose decoder then silently stays random
    (zsseg.baseline, thread 13). Here each key is renamed by its own form.
    """
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        if _DIRECT.match(name):
            name = f"pixel_decoder.{name}"
        elif name.startswith(_TWICE):  # what the published hook leaves in a file that is saved again
            name = name.removeprefix("pixel_decoder.")
        if prefix + name != key and prefix + name not in state:
            state[prefix + name] = state.pop(key)
