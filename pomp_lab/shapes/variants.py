"""Other looks of the embedded data set, for experiments across domains: same labels and masks, different pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def blurred(image: np.ndarray) -> np.ndarray:
    """Out of focus: a Gaussian blur whose standard deviation is 1.6 % of the image's side."""
    from PIL import Image, ImageFilter

    radius = 0.016 * min(image.shape[:2])
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def sketch(image: np.ndarray) -> np.ndarray:
    """Pencil lines on white paper where brightness or colour changes; the colours themselves are lost."""
    slopes = np.gradient(image.astype(np.float32) / 255, axis=(0, 1))
    strength = np.sqrt(sum(slope**2 for slope in slopes)).max(axis=-1)
    # The threshold keeps texture and noise of the background off the paper.
    lines = np.clip((strength - 0.03) * 5, 0, 1)
    return np.repeat(((1 - 0.9 * lines) * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)


def recoloured(image: np.ndarray) -> np.ndarray:
    """All hues rotated by 60 degrees and the tones darkened: the colour words of the labels no longer fit."""
    # A rotation about the grey axis of the RGB cube, which keeps each pixel's grey value.
    angle = np.radians(60.0)
    along = np.full((3, 3), 1 / 3)
    cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / np.sqrt(3)
    turn = along + np.cos(angle) * (np.eye(3) - along) + np.sin(angle) * cross
    # Not as a matrix product, whose last bits depend on the number of threads.
    channels = (image.astype(np.float32) / 255)[..., None, :] * turn.astype(np.float32)
    turned = np.clip(channels.sum(axis=-1), 0, 1)
    return (turned**1.3 * 255 + 0.5).astype(np.uint8)


def small(image: np.ndarray) -> np.ndarray:
    """The detail of a small picture: reduced to a third and enlarged again, so that masks and boxes stay valid."""
    from PIL import Image

    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    reduced = picture.resize((max(1, width // 3), max(1, height // 3)), Image.Resampling.BOX)
    return np.asarray(reduced.resize((width, height), Image.Resampling.BILINEAR))


VARIANTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda image: image,
    "blurred": blurred,
    "sketch": sketch,
    "recoloured": recoloured,
    "small": small,
}
"""Name to function, (H, W, 3) uint8 to the same."""
