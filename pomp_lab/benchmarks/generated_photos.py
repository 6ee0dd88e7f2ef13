"""Photos without files and towers without work, for measurements of everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from prompt_core.data.images import ImageSet

if TYPE_CHECKING:
    import random

    from PIL import Image

    from prompt_core.clip import Clip

EMBEDDING = 512
# A tower that costs next to nothing, so that the epoch is about data: one layer of width 32, with CLIP's tokens.
TINY = {
    "embed_dim": EMBEDDING,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    "quick_gelu": True,
}


class GeneratedPhotos(ImageSet):
    """Photos that are all the same picture: nothing is read."""

    def read(self, index: int) -> Image.Image:
        """A grey pixel."""
        from PIL import Image

        return Image.new("RGB", (1, 1))


@dataclass(frozen=True)
class RandomTower:
    """Random features in the place of ``clip``'s.

    Attributes:
        image_fingerprint: of the model whose features these stand for.
        fingerprint: of the transform whose views these stand for.
    """

    image_fingerprint: str
    fingerprint: str
    embed_dim: int = EMBEDDING

    @property
    def preprocess(self) -> Callable[[Image.Image], torch.Tensor]:
        """A number instead of pixels."""
        return lambda image: torch.zeros(1)

    def __call__(self, image: Image.Image, generator: random.Random) -> torch.Tensor:
        """The same as a random view."""
        return torch.zeros(1)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """(B, E) random directions."""
        return F.normalize(torch.randn(len(images), self.embed_dim), dim=-1)


def tiny_clip(folder: Path) -> Clip:
    """The random model, whose files are made at the first call."""
    import open_clip
    from safetensors.torch import save_file

    from prompt_core.clip import load_clip

    weights = folder / "tiny.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        (folder / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
        model = open_clip.CLIP(**json.loads(json.dumps(TINY)))
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, weights)
    return load_clip(str(folder / "tiny.json"), str(weights))
