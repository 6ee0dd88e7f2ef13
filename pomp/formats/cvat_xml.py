"""CVAT for images 1.1: one XML document with an ``image`` for each photo.

It is uploaded to a task that has the photos, whose names it goes by, and whose labels are the words. Scores have no
place in it, so that all of it counts as said by a person when it comes back. Words of whole photos are tags.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

import numpy as np

from pomp.formats.checked import Collected, checked_size, checked_word
from pomp.formats.labelled import NONE_OF_THESE, Corrections, LabelledObject, LabelledPhoto, Photos
from pomp.formats.mask_shapes import box_of_mask, mask_of_pixels, mask_of_polygons, pixels_of_mask
from prompt_core.documents.xml_files import elements, sayable
from prompt_core.errors import UserError
from prompt_core.files import atomic_path
from prompt_core.visible import shortened, visible_path

KIND = "cvat"
DOCUMENT = "annotations.xml"
_WHOLE = re.compile(r"[0-9]{1,9}")


def write(photos: Photos, words: Sequence[str], folder: Path) -> None:
    """Write ``annotations.xml`` with boxes."""
    _write(photos, words, folder, masks=False)


def write_with_masks(photos: Photos, words: Sequence[str], folder: Path) -> None:
    """Write ``annotations.xml`` with masks; a box without a mask stays a box."""
    _write(photos, words, folder, masks=True)


def _write(photos: Photos, words: Sequence[str], folder: Path, masks: bool) -> None:
    tagged = any(photo.words is not None for photo in photos())
    with atomic_path(folder / DOCUMENT) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        document = _Document(stream)
        document.start("annotations")
        document.text("version", "1.1")
        for name in ("meta", "task", "labels"):
            document.start(name)
        for word in (*words, *([NONE_OF_THESE] if tagged and NONE_OF_THESE not in words else [])):
            document.start("label")
            document.text("name", word)
            document.text("attributes", "")
            document.end("label")
        for name in ("labels", "task", "meta"):
            document.end(name)
        for number, photo in enumerate(photos()):
            _write_photo(document, number, photo, masks)
        document.end("annotations")
        stream.write("\n")


class _Document:
    """An XML document that is written element by element."""

    def __init__(self, stream: Any) -> None:
        self._out = XMLGenerator(stream, encoding="utf-8", short_empty_elements=True)
        self._out.startDocument()

    def start(self, name: str, /, **attributes: object) -> None:
        self._out.startElement(name, AttributesImpl({key: sayable(str(value)) for key, value in attributes.items()}))

    def end(self, name: str) -> None:
        self._out.endElement(name)
        self._out.ignorableWhitespace("\n")

    def text(self, name: str, text: str) -> None:
        self.start(name)
        self._out.characters(sayable(text))
        self.end(name)


def _write_photo(document: _Document, number: int, photo: LabelledPhoto, masks: bool) -> None:
    document.start("image", id=number, name=photo.name, width=photo.width, height=photo.height)
    common = {"source": "auto" if photo.predicted else "manual"}
    for word in () if photo.words is None else photo.words or (NONE_OF_THESE,):
        document.start("tag", label=word, **common)
        document.end("tag")
    for order, item in enumerate(photo.objects):
        place = {**common, "occluded": 0, "z_order": order}
        if masks and item.mask is not None:
            document.start("mask", label=item.word, **place, **_runs(item.mask))
            document.end("mask")
            continue
        x, y, width, height = item.box
        corners = {"xtl": x, "ytl": y, "xbr": x + width, "ybr": y + height}
        document.start("box", label=item.word, **place, **{key: f"{value:.4f}" for key, value in corners.items()})
        document.end("box")
    document.end("image")


def _runs(mask: dict[str, Any]) -> dict[str, object]:
    """Lengths of runs in the mask's own rectangle, by rows, the first of the background."""
    left, top, width, height = (int(value) for value in box_of_mask(mask))
    flat = pixels_of_mask(mask)[top : top + height, left : left + width].ravel()
    ends = np.flatnonzero(np.append(flat[1:] != flat[:-1], True)) + 1 if flat.size else np.zeros(0, dtype=int)
    lengths = np.diff(ends, prepend=0).tolist()
    if flat.size and flat[0]:
        lengths = [0, *lengths]
    return {"rle": ", ".join(map(str, lengths)), "left": left, "top": top, "width": width, "height": height}


def read(path: Path) -> Corrections:
    """Read a document of any task or project; rotated boxes become the boxes around them.

    Raises:
        UserError: when it is no XML of this kind.
    """
    where = visible_path(path)
    collected = Collected(KIND, [word for word in _labels(path) if word != NONE_OF_THESE])
    for element in elements(path, 1):
        if element.tag == "image":
            collected.add(_photo(element, where, collected))
        elif element.tag == "track":
            collected.leave_out("tracks of videos")
    return collected.corrections()


def _labels(path: Path) -> list[str]:
    for element in elements(path, 1):
        if element.tag == "image":
            break
        if element.tag == "meta":
            names = [label.findtext("name") or "" for label in element.iter("label")]
            return [checked_word(name, visible_path(path)) for name in names]
    return []


def _photo(element: Element, where: str, collected: Collected) -> LabelledPhoto:
    name = element.get("name") or ""
    if not name:
        raise UserError(f"{where}: an image without a name")
    where = f"{where}: image {visible_path(name)}"
    width, height = (_whole(element, side, where, 1_000_000) for side in ("width", "height"))
    if not (width and height):
        raise UserError(f"{where}: a photo of {width} x {height} pixels")
    checked_size(width, height, where)
    objects: list[LabelledObject] = []
    words: list[str] | None = None
    for shape in element:
        if shape.tag == "tag":
            words = [*(words or []), checked_word(shape.get("label") or "", where)]
            continue
        found = _object(shape, width, height, where)
        if found is None:
            collected.leave_out(f"shapes of the kind {shape.tag}")
        else:
            objects.append(found)
    if words == [NONE_OF_THESE]:
        words = []
    return LabelledPhoto(name, width, height, tuple(objects), None if words is None else tuple(words))


def _object(shape: Element, width: int, height: int, where: str) -> LabelledObject | None:
    if shape.tag not in ("box", "polygon", "mask"):
        return None
    word = checked_word(shape.get("label") or "", where)
    if shape.tag == "box":
        return LabelledObject(word, _around(list(_corners(shape, where))))
    if shape.tag == "polygon":
        points = [_point(text, where) for text in (shape.get("points") or "").split(";")]
        if len(points) < 3:
            raise UserError(f"{where}: a polygon of {len(points)} points")
        mask = mask_of_polygons([[value for point in points for value in point]], height, width)
        return LabelledObject(word, _around(points), None, mask)
    mask = _mask(shape, width, height, where)
    return LabelledObject(word, box_of_mask(mask), None, mask)


def _corners(shape: Element, where: str) -> Iterator[tuple[float, float]]:
    """Of a box that is turned clockwise around its middle."""
    left, top, right, bottom = (_number(shape.get(side), where) for side in ("xtl", "ytl", "xbr", "ybr"))
    turn = math.radians(_number(shape.get("rotation", "0"), where))
    sine, cosine = (math.sin(turn), math.cos(turn)) if turn else (0.0, 1.0)
    if not turn:  # so that no digit is lost
        yield from ((left, top), (right, bottom))
        return
    across, along = (left + right) / 2, (top + bottom) / 2
    for x, y in ((left, top), (right, top), (right, bottom), (left, bottom)):
        yield (
            across + (x - across) * cosine - (y - along) * sine,
            along + (x - across) * sine + (y - along) * cosine,
        )


def _mask(shape: Element, width: int, height: int, where: str) -> dict[str, Any]:
    left, top = (_whole(shape, side, where, 1_000_000) for side in ("left", "top"))
    across, along = _whole(shape, "width", where, width), _whole(shape, "height", where, height)
    texts = [text.strip() for text in (shape.get("rle") or "").split(",") if text.strip()]
    if not all(_WHOLE.fullmatch(text) for text in texts):
        raise UserError(f"{where}: a mask whose runs are no whole numbers")
    lengths = [int(text) for text in texts]
    if sum(lengths) != across * along or left + across > width or top + along > height:
        raise UserError(f"{where}: a mask whose runs do not fill its {across} x {along} pixels")
    values = np.arange(len(lengths)) % 2 == 1
    pixels = np.zeros((height, width), dtype=bool)
    pixels[top : top + along, left : left + across] = np.repeat(values, lengths).reshape(along, across)
    return mask_of_pixels(pixels)


def _point(text: str, where: str) -> tuple[float, float]:
    x, _, y = text.partition(",")
    return _number(x, where), _number(y, where)


def _around(points: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) <= 1e9:
        raise UserError(f"{where}: {shortened(text)} is no number of pixels")
    return value


def _whole(element: Element, name: str, where: str, most: int) -> int:
    text = element.get(name) or ""
    if not _WHOLE.fullmatch(text) or int(text) > most:
        raise UserError(f"{where}: {name} is {shortened(text)}; a whole number of pixels up to {most} is expected")
    return int(text)
