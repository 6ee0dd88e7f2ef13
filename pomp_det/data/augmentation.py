"""Scale jitter with a random crop (Ghiasi et al. 2021, "large scale jittering"), from Detectron2's transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform, Transform


class ShiftingCrop(CropTransform):
    """A crop that moves polygons with the image and leaves them whole.

    fvcore's crop intersects polygons with the crop, which needs shapely and time. Masks are only ever drawn inside a
    box, and boxes are cut at the edge, so what hangs over an edge changes nothing.
    """

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Polygons (n, 2) each, in coordinates of the crop; points may lie outside it."""
        return [self.apply_coords(polygon) for polygon in polygons]


class RandomCropToSize(T.Augmentation):
    """A square crop at a random place, without padding. Smaller images stay as they are.

    Detectron2's ``FixedSizeCrop`` draws one number for both directions, so that its crops lie on a diagonal of the
    image; here each direction has its own, as in Detic.

    Args:
        size: side of the crop in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def get_transform(self, image: np.ndarray) -> Transform:
        """A crop at a random place of ``image`` (H, W, C)."""
        height, width = image.shape[:2]
        y, x = (int(np.random.randint(max(side - self.size, 0) + 1)) for side in (height, width))  # noqa: NPY002
        return ShiftingCrop(x, y, self.size, self.size, width, height)


def scale_jitter(size: int, scale: Sequence[float]) -> list[Any]:
    """Fit into ``size`` times a random number, keep the aspect ratio, crop to ``size``, flip half of the time.

    Args:
        size: side of the training image in pixels.
        scale: least and greatest factor, as in ``DATASET_INPUT_SCALE`` (0.1, 2.0).
    """
    return [T.ResizeScale(scale[0], scale[1], size, size), RandomCropToSize(size), T.RandomFlip()]


def shortest_edge(short_sides: Sequence[int], longest: int, style: str = "range") -> list[Any]:
    """Resize the shorter side into a range (or to one of a choice), the longer one to ``longest`` at most; flip."""
    return [T.ResizeShortestEdge(tuple(short_sides), longest, style), T.RandomFlip()]
