"""What Label Studio exports as JSON, read back: annotations of people, and predictions where there are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from pomp.formats.brush_runs import mask_of_brush
from pomp.formats.checked import Collected, Coordinate, Share, checked_size, checked_word
from pomp.formats.labelled import NONE_OF_THESE, Corrections, LabelledObject, LabelledPhoto
from pomp.formats.labelstudio_json import CONFIGURATION, KIND
from pomp.formats.mask_shapes import box_of_mask, mask_of_polygons
from pomp.formats.matching import UPLOADED, in_local_files
from pomp_engine.data.annotation_masks import Side
from prompt_core.data.photo_files import is_file
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import check
from prompt_core.documents.xml_files import read_xml
from prompt_core.errors import UserError
from prompt_core.visible import visible_path

Byte = msgspec.Meta(ge=0, le=255)


class Value(msgspec.Struct, gc=False):
    """Where something is, in per cent of the photo's sides; what it is, is under a name that its kind has."""

    x: Coordinate | None = None
    y: Coordinate | None = None
    width: Coordinate | None = None
    height: Coordinate | None = None
    rotation: Coordinate = 0.0
    points: list[tuple[Coordinate, Coordinate]] | None = None
    rle: list[int] | None = None
    choices: list[str] | None = None
    labels: list[str] | None = None
    rectanglelabels: list[str] | None = None
    polygonlabels: list[str] | None = None
    brushlabels: list[str] | None = None


class Result(msgspec.Struct, gc=False):
    """One thing that somebody said."""

    type: str
    value: Value
    original_width: Side | None = None
    original_height: Side | None = None
    image_rotation: float = 0
    score: Share | None = None


class Said(msgspec.Struct, gc=False):
    """What a person or a model said of a photo."""

    result: list[dict[str, Any]] = []
    was_cancelled: bool = False


class Task(msgspec.Struct, gc=False):
    """A photo."""

    data: dict[str, Any]
    annotations: list[Said] = []
    predictions: list[Said] = []


def read(path: Path) -> Corrections:
    """Read an export of a project, or tasks that this toolkit wrote.

    A person's last annotation counts. Rotated rectangles become the boxes around them.

    Raises:
        UserError: when it does not fit its schema.
    """
    document = read_json(path)
    tasks = [document] if isinstance(document, dict) else document
    if not isinstance(tasks, list):
        raise UserError(f"{visible_path(path)} is no export of Label Studio; a list of tasks is expected")
    collected = Collected(KIND, _listed_words(path.parent / CONFIGURATION))
    for number, item in enumerate(tasks):
        task: Task = check(item, Task, path, f"[{number}]")
        collected.add(_photo(task, f"{visible_path(path)}: [{number}]", path, collected))
    return collected.corrections()


def _listed_words(path: Path) -> list[str]:
    """The words of a labelling configuration beside the export, in its order."""
    if not is_file(path):
        return []
    values = [item.get("value") or "" for item in read_xml(path).iter() if item.tag in ("Label", "Choice")]
    words = [checked_word(value, visible_path(path)) for value in values]
    return [word for word in words if word != NONE_OF_THESE]


def _photo(task: Task, where: str, path: Path, collected: Collected) -> LabelledPhoto:
    people = [said for said in task.annotations if not said.was_cancelled]
    if len(people) > 1:
        collected.leave_out("earlier annotations of photos with several", len(people) - 1)
    chosen = (people or task.predictions)[-1:]
    results: list[Result] = [check(item, Result, path, f"{where} result") for said in chosen for item in said.result]
    sizes = [(item.original_width, item.original_height) for item in results if item.original_width]
    width, height = sizes[0] if sizes else (task.data.get("width"), task.data.get("height"))
    width, height = (side if isinstance(side, int) and side > 0 else 0 for side in (width, height))
    checked_size(width, height, where)
    objects: list[LabelledObject] = []
    words: tuple[str, ...] | None = None
    scores: tuple[float, ...] = ()
    for item in results:
        if item.type == "choices" and item.value.choices is not None:
            said_words = tuple(checked_word(word, where) for word in item.value.choices)
            words = () if said_words == (NONE_OF_THESE,) else said_words
            scores = () if people or item.score is None or len(words) != 1 else (item.score,)
        elif item.image_rotation % 360:
            collected.leave_out("regions of images that were turned in Label Studio")
        elif not (width and height):
            raise UserError(f"{where}: a region without original_width and original_height")
        else:
            found = list(_objects(item, width, height, where, None if people else item.score))
            objects += found
            if not found:
                collected.leave_out(f"regions of the kind {item.type}")
    return LabelledPhoto(_name(task, where), width, height, tuple(objects), words, scores, by_model=not people)


def _objects(item: Result, width: int, height: int, where: str, score: float | None) -> Iterator[LabelledObject]:
    value = item.value
    words = value.rectanglelabels or value.polygonlabels or value.brushlabels or value.labels or []
    mask = None
    if value.rle is not None:
        if any(not 0 <= byte <= 255 for byte in value.rle):
            raise UserError(f"{where}: a brush of bytes from 0 to 255 is expected")
        mask = mask_of_brush(value.rle, width, height, where)
        box = box_of_mask(mask)
    elif value.points is not None and len(value.points) >= 3:
        points = [(x * width / 100, y * height / 100) for x, y in value.points]
        mask = mask_of_polygons([[number for point in points for number in point]], height, width)
        box = _around(points)
    elif None not in (value.x, value.y, value.width, value.height) and item.type in ("rectanglelabels", "labels"):
        box = _around(_corners(value, width, height))
    else:
        return
    for word in words:
        yield LabelledObject(checked_word(word, where), box, score, mask)


def _corners(value: Value, width: int, height: int) -> list[tuple[float, float]]:
    """Of a rectangle that is turned clockwise around its upper left corner, in pixels."""
    assert value.x is not None and value.y is not None and value.width is not None and value.height is not None  # noqa: PT018
    left, top = value.x * width / 100, value.y * height / 100
    across, along = value.width * width / 100, value.height * height / 100
    turn = math.radians(value.rotation)
    sine, cosine = (math.sin(turn), math.cos(turn)) if value.rotation else (0.0, 1.0)
    steps = ((0.0, 0.0), (across, 0.0), (across, along), (0.0, along))
    return [(left + x * cosine - y * sine, top + x * sine + y * cosine) for x, y in steps]


def _around(points: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _name(task: Task, where: str) -> str:
    """The photo of a task: as this toolkit said, or from the address of the image."""
    name = task.data.get("file_name")
    if isinstance(name, str) and name:
        return name
    texts = [text for key, text in task.data.items() if isinstance(text, str) and text]
    address = task.data.get("image") if isinstance(task.data.get("image"), str) else texts[0] if texts else ""
    if not address:
        raise UserError(f"{where}: its data name no image")
    local = in_local_files(str(address))
    if local:
        return local
    parts = urlsplit(str(address))
    place = unquote(parts.path).lstrip("/")
    last = place.rpartition("/")[2]
    if "/upload/" in f"/{place}":
        return UPLOADED.sub("", last, count=1)
    return last if parts.scheme else place
