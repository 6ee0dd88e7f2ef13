"""Kinds of pictures that templates mention, and how each shifts image features, measured on procedural pictures.

The pictures are dead leaves (Lee, Mumford and Huang 2001), known to be natural enough to train networks on (arXiv
2106.05963), so no photos are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.mini_clip.architecture import IMAGE_SIZE


def dead_leaves(rng: np.random.Generator, size: int = IMAGE_SIZE) -> Tensor:
    """One procedural picture (3, size, size) in [0, 1]: overlapping shapes with shading and 1/f textures."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    frequency = np.fft.fftfreq(size)
    radius = np.hypot(frequency[:, None], frequency[None])
    radius[0, 0] = 1
    textures = []
    for _ in range(3):
        spectrum = rng.normal(size=(2, size, size)) / radius ** rng.uniform(0.6, 1.6)
        field = np.fft.ifft2(spectrum[0] + 1j * spectrum[1]).real
        textures.append(((field - field.mean()) / field.std()).astype(np.float32))
    picture = rng.uniform(0, 1, 3).astype(np.float32) + 0.15 * textures[0][..., None]  # (size, size, 3)
    for _ in range(int(rng.integers(10, 200))):
        extent = min(size / 2, size / 37 / (rng.uniform() ** 0.6 + 0.03))
        centre, angle, flatness = rng.uniform(0, size, 2), rng.uniform(0, np.pi), rng.uniform(0.4, 1)
        u = ((x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)) / extent
        v = ((y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)) / (extent * flatness)
        inside = u**2 + v**2 < 1 if rng.uniform() < 0.7 else np.maximum(abs(u), abs(v)) < 1
        colour, shade = rng.uniform(0.1, 0.9, 3), 1 + 0.3 * u[inside, None]
        picture[inside] = colour * shade + rng.uniform(0, 0.2) * textures[rng.integers(3)][inside, None]
    return torch.from_numpy(picture.clip(0, 1).astype(np.float32)).permute(2, 0, 1)


def _resized(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)


def _sketch(images: Tensor) -> Tensor:
    grey = F.pad(images.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    edges = (grey[..., 1:, 1:] - grey[..., :-1, 1:]).abs() + (grey[..., 1:, 1:] - grey[..., 1:, :-1]).abs()
    return (1 - 4 * edges).clamp(0, 1).expand(-1, 3, -1, -1)


class Domain(NamedTuple):
    """A kind of picture: the words for it in a template, and its effect on pictures (B, 3, S, S)."""

    words: tuple[str, ...]
    change: Callable[[Tensor], Tensor]


DOMAINS: tuple[Domain, ...] = (
    Domain(
        ("blurry", "low resolution", "pixelated", "jpeg"),
        lambda images: _resized(_resized(images, 64), images.shape[-1]),
    ),
    Domain(("dark",), lambda images: images * 0.35),
    Domain(("bright",), lambda images: 0.4 + 0.6 * images),
    Domain(("black and white",), lambda images: images.mean(1, keepdim=True).expand(-1, 3, -1, -1)),
    Domain(("sketch", "drawing", "doodle", "cartoon"), _sketch),
    Domain(("close-up", "cropped"), lambda images: _resized(images[..., 48:144, 48:144], images.shape[-1])),
    Domain(("small", "tiny"), lambda images: F.pad(_resized(images, 96), (48, 48, 48, 48), value=0.5)),
    Domain(
        ("dirty", "bad"),
        lambda images: images + 0.12 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)),
    ),
)


def domain_strengths(template: str) -> list[float]:
    """Strengths (J) of the domains that a template names; half of the full shift, as photos vary."""
    return [0.5 * any(word in template for word in domain.words) for domain in DOMAINS]


@torch.inference_mode()
def domain_shifts(network: Callable[[Tensor], Tensor], seed: int, count: int = 128) -> tuple[Tensor, Tensor]:
    """The effect of each of :data:`DOMAINS` on the pooled features of ``network``, over ``count`` procedural pictures.

    Returns:
        shifts of the mean feature (J, 1280), and the second moment (1280, 1280) of the single pictures' changes under
        the first domain, loss of resolution.
    """
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    rng = np.random.default_rng(seed)
    pictures = torch.stack([dead_leaves(rng) for _ in range(count)])
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))

    def features(images: Tensor) -> Tensor:
        return torch.cat([network(batch) for batch in ((images.clamp(0, 1) - mean) / std).split(32)])

    plain = features(pictures)
    changes = [features(domain.change(pictures)) - plain for domain in DOMAINS]
    return torch.stack([change.mean(0) for change in changes]), changes[0].T @ changes[0] / count
