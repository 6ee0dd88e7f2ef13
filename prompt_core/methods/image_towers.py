"""Image towers for the feature cache: the frozen one before its norm, and one with learned parts.

Each has its own fingerprint, so that the cache never confuses their features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from prompt_core.data.encode_photos import ImageTower
from prompt_core.files import sha256_of_json
from prompt_core.methods.base import Method

if TYPE_CHECKING:
    from prompt_core.clip import Clip


class RawImageTower:
    """The frozen tower without the L2 norm."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    @property
    def image_fingerprint(self) -> str:
        """Hash of the tower, marked as without the norm."""
        return sha256_of_json([self.clip.image_fingerprint, "before the norm"])

    @property
    def embed_dim(self) -> int:
        """Width E of the features."""
        return self.clip.embed_dim

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.clip.device

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """CLIP's own test transform."""
        return self.clip.preprocess

    def encode_image(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, S, S) to features (B, E)."""
        return self.clip.encode_image(images, normalise=False)


class LearnedImageTower(RawImageTower):
    """The tower of a method that reads images, with what it has learned."""

    def __init__(self, method: Method) -> None:
        super().__init__(method.clip)
        self.method = method

    @property
    def image_fingerprint(self) -> str:
        """Hash of the frozen tower and of what is learned."""
        return sha256_of_json([self.clip.image_fingerprint, self.method.sha256()])

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Preprocessed images (B, 3, S, S) to unit-norm features (B, E)."""
        return self.method.image_features(images)


def image_tower(method: Method) -> ImageTower:
    """The tower whose outputs the method reads, or that gives its image features where it reads photos."""
    return tower_for(method.reads, method.clip) if method.reads != "images" else LearnedImageTower(method)


def tower_for(reads: str, clip: Clip) -> ImageTower:
    """The frozen tower, with or without its L2 norm."""
    return RawImageTower(clip) if reads == "raw_features" else clip
