"""Transforms of photos with label maps: exact label resizing, repeatable colour jitter, padding, centre crop.

Randomness comes from NumPy's global generator, as in Detectron2's augmentations: the loader seeds it for each example.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from detectron2.data.transforms import ResizeTransform, Transform

from prompt_core.errors import UserError, nearest

IMAGE_PADDING = 128  # grey; MaskFormer
CROP_TYPES = ("absolute", "absolute_range", "relative", "relative_range")
FLIPS = ("horizontal", "vertical", "none")
RESIZE_SAMPLINGS = ("choice", "range")


def drawn_generator() -> random.Random:
    """A ``random.Random`` whose seed is the next number of NumPy's global generator."""
    return random.Random(int(np.random.randint(2**31)))  # noqa: NPY002


def nearest_positions(old: int, new: int) -> np.ndarray:
    """Index of the old pixel under the centre of each new pixel, of ``old`` and ``new`` pixels: (new,) int64."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


class LabelResizeTransform(ResizeTransform):
    """Detectron2's resize of an image, with labels of any integer type sampled at the pixel centres.

    Detectron2 cannot resize integers of more than 8 bits, and samples floating-point labels at the pixels' upper left
    corners, which shifts them against the photo by up to half a pixel.
    """

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(h, w) labels to (new_h, new_w)."""
        rows, columns = nearest_positions(self.h, self.new_h), nearest_positions(self.w, self.new_w)
        return segmentation[rows[:, None], columns]


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's augmentation of this name, with :class:`LabelResizeTransform`."""

    def get_transform(self, image: np.ndarray) -> Transform:
        """The resize of ``image`` (H, W, C)."""
        chosen = super().get_transform(image)
        if not isinstance(chosen, ResizeTransform):
            return chosen
        return LabelResizeTransform(chosen.h, chosen.w, chosen.new_h, chosen.new_w, chosen.interp)


class SeededColorTransform(Transform):
    """SSD's colour jitter with a seed. Detectron2's draws from Python's generator, which no loader seeds."""

    def __init__(self, image_format: str, seed: int) -> None:
        """Raises UserError without OpenCV, which only this jitter needs: predictions do without."""
        super().__init__()
        try:
            from detectron2.projects.point_rend import ColorAugSSDTransform
        except ModuleNotFoundError as error:
            raise UserError(
                "the colour jitter of INPUT.COLOR_AUG_SSD needs OpenCV; run: pip install opencv-python-headless"
            ) from error
        self.jitter = ColorAugSSDTransform(image_format)
        self.seed = seed

    def apply_image(self, img: np.ndarray, interp: Any = None) -> np.ndarray:
        """(H, W, 3) uint8, jittered."""
        state = random.getstate()
        random.seed(self.seed)
        try:
            jittered: np.ndarray = self.jitter.apply_image(img, interp)
        finally:
            random.setstate(state)
        return jittered

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """As they are: colours move nothing."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """As it is."""
        return segmentation


class ColorJitter(T.Augmentation):
    """SSD's colour jitter (arXiv 1512.02325): brightness, contrast, saturation and hue, each half of the time.

    Args:
        image_format: order of the channels, ``RGB`` or ``BGR``.
    """

    def __init__(self, image_format: str) -> None:
        super().__init__()
        if image_format not in ("RGB", "BGR"):
            raise UserError(f"INPUT.FORMAT is {image_format!r}; INPUT.COLOR_AUG_SSD needs 'RGB' or 'BGR'")
        self.image_format = image_format

    def get_transform(self, image: np.ndarray) -> Transform:
        """A jitter with a seed of its own."""
        return SeededColorTransform(self.image_format, int(np.random.randint(2**31)))  # noqa: NPY002


def random_flip(kind: str) -> list[T.Augmentation]:
    """The flip, half of the time, that ``INPUT.RANDOM_FLIP`` names; no augmentation for ``none``.

    Raises:
        UserError: for an unknown one.
    """
    check_choice("INPUT.RANDOM_FLIP", kind, FLIPS)
    return [] if kind == "none" else [T.RandomFlip(horizontal=kind == "horizontal", vertical=kind == "vertical")]


def check_choice(key: str, value: str, known: Sequence[str]) -> None:
    """Check that a key has one of its values.

    Raises:
        UserError: with the nearest ones.
    """
    if value not in known:
        raise UserError(f"{key} is {value!r}; expected {', '.join(known)}{nearest(str(value), known)}")


def pad_to_multiple(array: np.ndarray, divisor: int, value: int) -> np.ndarray:
    """(H, W, …) padded at the lower and right edge with ``value`` to multiples of ``divisor``; below 1 pads nothing."""
    if divisor < 1:
        return array
    widths = [(0, -side % divisor) for side in array.shape[:2]] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, widths, constant_values=value)


def centre_crop_or_pad(array: np.ndarray, size: int, value: int) -> np.ndarray:
    """The centre of (H, W, …) as (size, size, …); what is missing on either side is ``value``."""
    for axis in (0, 1):
        surplus = array.shape[axis] - size
        if surplus > 0:
            start = round(surplus / 2)  # as published: of 3 pixels 2 are cut off before, of 1 none
            array = np.take(array, range(start, start + size), axis)
        elif surplus < 0:
            widths = [(0, 0)] * array.ndim
            widths[axis] = (-surplus // 2, -surplus - -surplus // 2)
            array = np.pad(array, widths, constant_values=value)
    return array
