"""What is known of a photo as a row of a Parquet part; columns of the three tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_core.lazy import import_optional
from prompt_core.photos.photo_list import NamedPhoto
from prompt_core.photos.photo_task import Records

if TYPE_CHECKING:
    import pyarrow


def arrow() -> Any:
    """The module ``pyarrow``.

    Raises:
        UserError: where it is not installed.
    """
    return import_optional("pyarrow", "parquet", "for Parquet parts")


def columns(task: str) -> pyarrow.Schema:
    """Columns of a task's parts.

    ``file_name``, ``error`` (why a photo was left out, else null), ``width``, ``height``; of a classifier ``word``
    (null: none of these), ``own_share``, ``none_of_these`` and ``best``; of a detector ``detections``; of a segmenter
    ``words`` and ``label_map``, a PNG.
    """
    pa = arrow()
    text, real, whole = pa.string(), pa.float64(), pa.int32()
    box = ("bbox", pa.list_(real, 4))  # x, y, width, height in pixels
    mask = ("mask", pa.struct([("size", pa.list_(whole, 2)), ("counts", text)]))  # COCO's compressed run lengths
    detection = pa.struct([("word", text), ("score", real), box, ("area", real), mask])
    region = pa.struct([("index", whole), ("word", text), ("negative", pa.bool_()), ("share", real), ("score", real)])
    best = pa.list_(pa.struct([("word", text), ("own_share", real)]))
    of_task = {
        "classify": [("word", text), ("own_share", real), ("none_of_these", real), ("best", best)],
        "detect": [("detections", pa.list_(detection))],
        "segment": [("words", pa.list_(region)), ("label_map", pa.binary())],
    }
    first = [("file_name", text), ("error", text), ("width", whole), ("height", whole)]
    return pa.schema([*first, *of_task[task]])


def part_rows(
    task: str,
    photos: Sequence[NamedPhoto],
    records: Records,
    skipped: dict[NamedPhoto, str],
    names: Sequence[str],
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """A row for each photo, in their order; one is in memory.

    Args:
        names: the words that were asked for, in the order of the model's.
        folder: of the loop, where a segmenter's label maps lie.
    """
    known = records()
    photo_with, record = next(known, (None, {}))
    for photo in photos:
        if photo == photo_with:
            sizes = {"file_name": photo.name, "error": None, "width": record["width"], "height": record["height"]}
            yield {**sizes, **_content(task, record, names, folder)}
            photo_with, record = next(known, (None, {}))
        else:
            yield {"file_name": photo.name, "error": skipped.get(photo, "")}


def _content(task: str, record: dict[str, Any], names: Sequence[str], folder: Path) -> dict[str, Any]:
    if task == "classify":
        return {key: record[key] for key in ("word", "own_share", "none_of_these", "best")}
    if task == "detect":
        return {"detections": [_detection(row, names) for row in record["detections"]]}
    asked = set(names)
    words = [
        {
            "index": entry["index"],
            "word": entry["name"],
            "negative": entry["name"] not in asked,
            "share": entry["share"],
            "score": entry["score"],
        }
        for entry in record["classes"]
    ]
    return {"words": words, "label_map": (folder / record["label_map"]).read_bytes()}


def _detection(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    word = names[row["category_id"] - 1]
    numbers = {key: row[key] for key in ("score", "bbox", "area")}
    return {"word": word, **numbers, "mask": row.get("segmentation")}
