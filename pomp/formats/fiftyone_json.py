"""FiftyOne: its own layout (``fiftyone.types.FiftyOneDataset``): ``samples.json``, ``metadata.json``, and ``data``.

A model's answers are in the field ``predictions``, a person's in ``ground_truth``, words of whole photos in ``words``.
Boxes are in parts of the photo's sides; a mask is the part of it in its box.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pomp.formats.folders import PhotoTable, whole_folder
from pomp.formats.labelled import LabelledObject, LabelledPhoto, Photos
from pomp.formats.mask_shapes import pixels_of_mask
from prompt_core.files import write_json
from prompt_core.photos.json_lists import write_json_lists

KIND = "fiftyone"
SAMPLES, METADATA, DATA = "samples.json", "metadata.json", "data"
PREDICTIONS, TRUTH, WORDS = "predictions", "ground_truth", "words"
NAME = "photo"  # its own name, which exports keep when they move the file
# Newer ones read the layout of older ones; this one's is documented by many published data sets.
VERSION = "0.23.8"


def write(photos: Photos, words: Sequence[str], target: Path) -> None:
    """Write the folder."""
    with whole_folder(target) as folder:
        with PhotoTable(folder, DATA) as table:
            write_json_lists(folder / SAMPLES, {"samples": _samples(photos(), table)})
        write_json(folder / METADATA, _metadata(target.name, words))


def _samples(photos: Iterator[LabelledPhoto], table: PhotoTable) -> Iterator[dict[str, Any]]:
    for photo in photos:
        file = table.add(photo)
        things = {
            "_cls": "Detections",
            "detections": [_detection(item, number, photo) for number, item in enumerate(photo.objects)],
        }
        said = None if photo.words is not None and not photo.objects else things
        yield {
            "_id": _identity(photo.name),
            "filepath": f"{DATA}/{file}",
            "tags": [],
            "metadata": {"_cls": "ImageMetadata", "width": photo.width, "height": photo.height, "num_channels": 3},
            "_media_type": "image",
            NAME: photo.name,
            "_rand": int(_digest(photo.name)[:8], 16) / 2**32,
            PREDICTIONS: said if photo.predicted else None,
            TRUTH: None if photo.predicted else said,
            WORDS: None if photo.words is None else _classifications(photo),
        }


def _classifications(photo: LabelledPhoto) -> dict[str, Any]:
    shares = [*photo.scores, *(None for _ in photo.words or ())]
    found = [
        {
            "_id": _identity(photo.name, "word", number),
            "_cls": "Classification",
            "tags": [],
            "label": word,
            **({} if share is None else {"confidence": share}),
        }
        for number, (word, share) in enumerate(zip(photo.words or (), shares, strict=False))
    ]
    return {"_cls": "Classifications", "classifications": found}


def _detection(item: LabelledObject, number: int, photo: LabelledPhoto) -> dict[str, Any]:
    x, y, width, height = item.box
    row: dict[str, Any] = {
        "_id": _identity(photo.name, "thing", number),
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": item.word,
        "bounding_box": [x / photo.width, y / photo.height, width / photo.width, height / photo.height],
    }
    if item.score is not None:
        row["confidence"] = item.score
    if item.mask is not None:
        left, top, right, bottom = pixels_of_box(item.box)
        row["mask"] = _packed(pixels_of_mask(item.mask)[top:bottom, left:right])
    return row


def pixels_of_box(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """First and one beyond the last column and row of a box, at least one of each: left, top, right, bottom."""
    x, y, width, height = box
    left, top = max(0, round(x)), max(0, round(y))
    return left, top, max(left + 1, round(x + width)), max(top + 1, round(y + height))


def _packed(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(pixels), allow_pickle=False)
    return {"$binary": {"base64": base64.b64encode(zlib.compress(file.getvalue())).decode("ascii"), "subType": "00"}}


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _identity(*parts: object) -> dict[str, str]:
    """An identity of MongoDB's kind, the same whenever this is written."""
    return {"$oid": _digest(*parts)[:24]}


def _metadata(name: str, words: Sequence[str]) -> dict[str, Any]:
    things = [
        _field("id", "ObjectId", db_field="_id"),
        _field("tags", "List", subfield="String"),
        _field("attributes", "Dict", subfield="EmbeddedDocument", document="labels.Attribute"),
        _field("label", "String"),
        _field("bounding_box", "List", subfield="Float"),
        _field("mask", "Array"),
        _field("confidence", "Float"),
        _field("index", "Int"),
    ]
    of_photo = [field for field in things if field["name"] in ("id", "tags", "label", "confidence")]
    size = [_field("size_bytes", "Int"), _field("mime_type", "String")]
    size += [_field(side, "Int") for side in ("width", "height", "num_channels")]
    return {
        "name": name,
        "version": VERSION,
        "media_type": "image",
        "group_media_types": {},
        "tags": [],
        "info": {},
        "classes": {field: list(words) for field in (PREDICTIONS, TRUTH, WORDS)},
        "default_classes": list(words),
        "mask_targets": {},
        "default_mask_targets": {},
        "skeletons": {},
        "app_config": {},
        "sample_fields": [
            _field("id", "ObjectId", db_field="_id"),
            _field("filepath", "String"),
            _field("tags", "List", subfield="String"),
            _field("metadata", "EmbeddedDocument", document="metadata.ImageMetadata", fields=size),
            _field(NAME, "String"),
            *(_labels(field, "Detections", "detections", "Detection", things) for field in (PREDICTIONS, TRUTH)),
            _labels(WORDS, "Classifications", "classifications", "Classification", of_photo),
        ],
    }


def _labels(name: str, kind: str, inner: str, single: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    listed = _field(inner, "List", document=f"labels.{single}", subfield="EmbeddedDocument", fields=fields)
    return _field(name, "EmbeddedDocument", document=f"labels.{kind}", fields=[listed])


def _field(
    name: str,
    kind: str,
    document: str | None = None,
    subfield: str | None = None,
    fields: Sequence[dict[str, Any]] = (),
    db_field: str | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "ftype": f"fiftyone.core.fields.{kind}Field",
        "embedded_doc_type": None if document is None else f"fiftyone.core.{document}",
        "subfield": None if subfield is None else f"fiftyone.core.fields.{subfield}Field",
        "fields": list(fields),
        "db_field": db_field or name,
        "description": None,
        "info": None,
    }
