"""The image tower of ``mini`` in two parts: what stays as it is, encoded once, and the last stage, which learns."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from prompt_core.clip import Clip
from prompt_core.files import hash_tensors, sha256_of_json


class LowerTrunk:
    """All of the trunk below its last stage, as an image tower for the feature cache; its features are maps."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        trunk: Any = clip.model.visual.trunk  # type: ignore[union-attr]
        self.parts = nn.Sequential(trunk.conv_stem, trunk.bn1, *trunk.blocks[:-1])

    @cached_property
    def image_fingerprint(self) -> str:
        """Hash of these layers alone: another last stage or another projection has the same maps."""
        digest = hashlib.sha256()
        hash_tensors(digest, self.parts.state_dict())
        return sha256_of_json([digest.hexdigest(), str(self.clip.preprocess_cfg), "maps in bfloat16"])

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of a map."""
        side = self.clip.image_size
        with torch.inference_mode():
            return tuple(self.parts(torch.zeros(1, 3, side, side)).shape[1:])

    @property
    def embed_dim(self) -> int:
        """Numbers of a map."""
        channels, rows, columns = self.shape
        return channels * rows * columns

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """CLIP's own test transform."""
        return self.clip.preprocess

    @torch.inference_mode()
    def encode_image(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, S, S) to maps (B, channels * rows * columns)."""
        with torch.autocast("cpu", torch.bfloat16):  # half the time where the processor supports it
            maps = self.parts(images.contiguous(memory_format=torch.channels_last))
        return maps.float().flatten(1)


class LastStage(nn.Module):
    """Maps of :class:`LowerTrunk` to unit-norm features in the joint space; a copy of the model's own layers.

    Batch-norms keep the means and deviations that they learned on large photos.
    """

    def __init__(self, clip: Clip, shape: tuple[int, int, int]) -> None:
        super().__init__()
        visual: Any = copy.deepcopy(clip.model.visual)
        self.shape = shape
        self.layers = nn.Sequential(visual.trunk.blocks[-1], visual.trunk.conv_head, visual.trunk.bn2)
        self.projection = visual.head.proj
        self.eval().requires_grad_(True)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels * rows * columns) to (B, E)."""
        maps = maps.unflatten(1, self.shape).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.projection(self.layers(maps).mean((2, 3))), dim=1)

    def named_weights(self, trunk: Any) -> dict[str, Tensor]:
        """Its tensors under their names in the model's state dict."""
        last = len(trunk.blocks) - 1
        places = {"layers.0": f"trunk.blocks.{last}", "layers.1": "trunk.conv_head", "layers.2": "trunk.bn2"}
        places["projection"] = "head.proj"
        named = {}
        for name, value in self.state_dict().items():
            part = next(part for part in places if name.startswith(f"{part}."))
            named[f"visual.{places[part]}{name.removeprefix(part)}"] = value
        return named
