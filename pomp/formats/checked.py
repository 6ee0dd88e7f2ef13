"""What every reader checks: words that can be shown, boxes within their photo, masks that fit it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from pomp.formats.labelled import Corrections, LabelledObject, LabelledPhoto
from pomp.formats.mask_shapes import mask_of_polygons, mask_of_runs
from pomp_engine.data.annotation_masks import is_polygon, mask_fault
from prompt_core.data.open_photo import PIXELS_VARIABLE, most_pixels
from prompt_core.errors import UserError
from prompt_core.visible import is_one_line, shortened

# Coordinates in pixels or per cent, which may lie outside.
Coordinate = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
Extent = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


def checked_word(word: str, where: str) -> str:
    """A word without blanks around it.

    Raises:
        UserError: when it is blank or has a line break or another control character.
    """
    plain = word.strip()
    if not plain or not is_one_line(plain):
        raise UserError(f"{where}: {shortened(word)} is no word; a text of one line is expected")
    return plain


def checked_size(width: int, height: int, where: str) -> tuple[int, int]:
    """Width and height that a photo can have: masks get a byte for each pixel.

    Raises:
        UserError: when it has more pixels than any photo that is read.
    """
    if width * height > most_pixels():
        raise UserError(
            f"{where}: a photo of {width:,} x {height:,} pixels; at most {most_pixels():,} are read; set the "
            f"environment variable {PIXELS_VARIABLE} for more"
        )
    return width, height


def checked_mask(segmentation: Any, width: int, height: int, where: str) -> dict[str, Any] | None:
    """COCO's polygons or run lengths as compressed ones; None where there are none.

    Raises:
        UserError: when they do not fit the photo.
    """
    fault = mask_fault(segmentation, width, height)
    if fault:
        raise UserError(f"{where}: {fault}; correct it, or leave the mask out")
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        return mask_of_polygons([polygon for polygon in segmentation if is_polygon(polygon)], height, width)
    counts = segmentation["counts"]
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    return mask_of_runs(counts, height, width)


class Collected:
    """Photos as a reader finds them.

    Args:
        kind: name of the format.
        words: that the file lists, in its order; others follow as they appear.
    """

    def __init__(self, kind: str, words: list[str] | tuple[str, ...] = ()) -> None:
        self.kind = kind
        self._words = dict.fromkeys(words)
        self._photos: list[LabelledPhoto] = []
        self._left_out: Counter[str] = Counter()

    def leave_out(self, what: str, count: int = 1) -> None:
        """Count what cannot be used, such as ``keypoints``."""
        self._left_out[what] += count

    def add(self, photo: LabelledPhoto) -> None:
        """Add a photo, its boxes cut to it."""
        objects = []
        for item in photo.objects:
            box = within(item.box, photo.width, photo.height) if photo.width and photo.height else item.box
            if box is None:
                self.leave_out("boxes without extent")
                continue
            objects.append(LabelledObject(item.word, box, item.score, item.mask))
            self._words[item.word] = None
        self._words.update(dict.fromkeys(photo.words or ()))
        self._photos.append(replace(photo, name=photo.name.replace("\\", "/"), objects=tuple(objects)))

    def corrections(self) -> Corrections:
        """All of it."""
        notes = tuple(f"{count} {what} left out" for what, count in sorted(self._left_out.items()))
        return Corrections(self.kind, tuple(self._photos), tuple(self._words), notes)


def within(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float] | None:
    """The part of a box (x, y, width, height) in its photo; None where there is none."""
    x, y, across, along = box
    if x >= 0 and y >= 0 and across > 0 and along > 0 and x + across <= width and y + along <= height:
        return box
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + across, float(width)), min(y + along, float(height))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None
