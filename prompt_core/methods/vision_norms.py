"""Learned layer norms of open_clip's vision transformer, beside the frozen tower and not in it.

The tower runs with other values in the place of its own for one call (``torch.func.functional_call``); its own
parameters, which other methods and other threads' results depend on, keep their values and stay without gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from prompt_core.errors import UserError
from prompt_core.methods.vision_prompts import vision_transformer

if TYPE_CHECKING:
    from prompt_core.clip import Clip

NORMS = ("ln_1", "ln_2")


class VisionNorms(nn.Module):
    """Weights and biases (blocks, 2, W) of the norms ``ln_1`` and ``ln_2`` of all blocks, starting from CLIP's own.

    Raises:
        UserError: another kind of vision tower, or blocks without these norms.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip = clip
        norms = [
            [getattr(block, norm, None) for norm in NORMS] for block in vision_transformer(clip).transformer.resblocks
        ]
        if not all(isinstance(norm, nn.LayerNorm) and norm.bias is not None for pair in norms for norm in pair):
            raise UserError(f"{clip.name}: the blocks of its vision tower have no layer norms {' and '.join(NORMS)}")
        for part in ("weight", "bias"):
            own = [torch.stack([getattr(norm, part).detach() for norm in pair]) for pair in norms]
            setattr(self, part, nn.Parameter(torch.stack(own).clone()))

    def image_features(self, images: Tensor) -> Tensor:
        """Unit-norm features (B, E) of preprocessed images (B, 3, S, S), differentiable in the norms."""
        values = {
            f"transformer.resblocks.{block}.{norm}.{part}": getattr(self, part)[block, place]
            for part in ("weight", "bias")
            for block in range(len(self.weight))  # type: ignore[arg-type]
            for place, norm in enumerate(NORMS)
        }
        images = images.to(self.clip.device, self.clip.dtype, memory_format=torch.channels_last)
        features = functional_call(vision_transformer(self.clip), values, (images,))
        if isinstance(features, tuple):  # towers that also return their tokens
            features = features[0]
        return F.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)
