"""Masks of annotations before anything decodes them: pycocotools writes as many pixels as run lengths say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from prompt_core.documents.schema import Count

# Sides of an image, of which a polygon may reach out: pycocotools draws every pixel of its edges, a photo's or not.
REACH, LEAST_SIDE = 10, 1000
# Pixels of an image's side.
Side = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class RunLengths(msgspec.Struct, gc=False):
    """A mask as lengths of runs by columns, as a list or compressed; ``size`` is height and width in pixels."""

    size: tuple[Side, Side]
    counts: str | list[Count]


def mask_fault(segmentation: Any, width: int, height: int) -> str | None:
    """What is wrong with polygons or run lengths; None where nothing is, or there is no mask.

    Args:
        segmentation: of an annotation whose numbers are numbers (``Shapes`` in pomp_det.data.annotation_schema).
        width, height: of the image in pixels.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != [height, width] or "counts" not in segmentation:
            return "run-length mask of another size than the image"
        return (
            None if runs_total(segmentation["counts"]) == height * width else "run lengths that do not fill the image"
        )
    if not isinstance(segmentation, list) or not any(is_polygon(polygon) for polygon in segmentation):
        return "mask of fewer than three points"
    furthest = REACH * max(width, height, LEAST_SIDE)
    if any(abs(value) > furthest for polygon in segmentation if is_polygon(polygon) for value in polygon):
        return f"mask with a point beyond {furthest:,} pixels"
    return None


def is_polygon(polygon: Any) -> bool:
    """Whether it is a list of x, y, x, y, … of three points or more."""
    return isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0


def runs_total(counts: str | Sequence[int]) -> int | None:
    """Pixels that run lengths cover; None where they are no run lengths, or one is negative."""
    lengths = _decompressed(counts) if isinstance(counts, str) else counts
    if lengths is None:
        return None
    # Sums of Python: one length may be beyond 64 bits.
    values = [int(value) for value in lengths]
    return sum(values) if all(value >= 0 for value in values) else None


def _decompressed(text: str) -> np.ndarray | None:
    """Run lengths of COCO's compressed texts (``rleFrString`` in maskApi.c of cocoapi).

    Groups of 5 bits, low ones first, the sixth bit says that more follow; from the fourth number on, a length is given
    as the difference to the one before the last.
    """
    if not text.isascii():
        return None
    digits = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48  # (n,)
    if len(digits) == 0 or digits.min() < 0 or digits.max() > 63 or digits[-1] & 0x20:
        return None
    ends = np.flatnonzero((digits & 0x20) == 0)  # (m,) the last digit of each number
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    if places.max() > 6:  # 35 bits; an image has far fewer pixels
        return None
    numbers = np.add.reduceat((digits & 0x1F) << (5 * places), starts)  # (m,)
    signed = np.where(digits[ends] & 0x10, numbers - (1 << (5 * (places[ends] + 1))), numbers)
    lengths = signed.copy()
    lengths[1::2] = np.cumsum(signed[1::2])
    lengths[2::2] = np.cumsum(signed[2::2])
    return lengths
