"""What FiftyOne exports in its own layout, read back."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from pomp.formats.checked import Collected, Coordinate, Share, checked_size, checked_word
from pomp.formats.fiftyone_json import KIND, METADATA, PREDICTIONS, TRUTH, WORDS, pixels_of_box
from pomp.formats.folders import known_photos
from pomp.formats.labelled import Corrections, LabelledObject, LabelledPhoto
from pomp.formats.mask_shapes import mask_of_pixels
from pomp_engine.data.annotation_masks import Side
from prompt_core.data.photo_files import is_file
from prompt_core.documents.json_files import read_json
from prompt_core.documents.npy_files import decode_npy
from prompt_core.documents.schema import check
from prompt_core.errors import UserError
from prompt_core.visible import visible_path

Extent = Annotated[float, msgspec.Meta(ge=0.0, le=1e3)]
# Bytes of an array beside its values.
_HEADER = 1024


class Size(msgspec.Struct, gc=False):
    """A photo's size in pixels."""

    width: Side | None = None
    height: Side | None = None


class Sample(msgspec.Struct, gc=False):
    """A photo."""

    filepath: str
    photo: str | None = None
    metadata: Size | None = None


class Detection(msgspec.Struct, gc=False):
    """A thing."""

    label: str
    bounding_box: tuple[Coordinate, Coordinate, Extent, Extent]
    confidence: Share | None = None
    mask: dict[str, Any] | None = None


class Classification(msgspec.Struct, gc=False):
    """A word of the whole photo."""

    label: str
    confidence: Share | None = None


def read(path: Path) -> Corrections:
    """Read ``samples.json``: of each sample ``ground_truth``, else ``predictions``, else its first field of boxes.

    Raises:
        UserError: when it does not fit its schema, or a photo with boxes has no size.
    """
    document = read_json(path)
    samples = document.get("samples") if isinstance(document, dict) else None
    if not isinstance(samples, list):
        raise UserError(f"{visible_path(path)} is no export of FiftyOne; an object with 'samples' is expected")
    known = known_photos(path.parent)
    collected = Collected(KIND, _listed_words(path.parent / METADATA))
    for number, fields in enumerate(samples):
        sample: Sample = check(fields, Sample, path, f"samples[{number}]")
        collected.add(_photo(sample, fields, known, path, f"samples[{number}]"))
    return collected.corrections()


def _listed_words(path: Path) -> list[str]:
    """The words of ``metadata.json``, where it is beside the samples and lists some."""
    metadata = read_json(path) if is_file(path) else {}
    listed = metadata.get("default_classes") if isinstance(metadata, dict) else None
    words: list[str] = check(listed or [], list[str], path, "default_classes")
    return [checked_word(word, visible_path(path)) for word in words]


def _photo(
    sample: Sample, fields: dict[str, Any], known: dict[str, tuple[str, int, int]], path: Path, place: str
) -> LabelledPhoto:
    file = sample.filepath.replace("\\", "/").rpartition("/data/")[2].removeprefix("data/")
    name, width, height = known.get(file, (sample.photo or file, 0, 0))
    if sample.metadata is not None and sample.metadata.width and sample.metadata.height:
        width, height = sample.metadata.width, sample.metadata.height
    checked_size(width, height, f"{visible_path(path)}: {place}")
    things = _field(fields, (TRUTH, PREDICTIONS), ("Detections", "Detection"))
    by_model = things is not None and things is fields.get(PREDICTIONS)
    objects = tuple(_objects(things, "detections", width, height, path, place))
    said = _field(fields, (WORDS,), ("Classifications", "Classification"))
    if said is None:
        return LabelledPhoto(name, width, height, objects, by_model=by_model)
    rows: list[Classification] = [
        check(row, Classification, path, f"{place} words") for row in _rows(said, "classifications")
    ]
    words = tuple(checked_word(row.label, visible_path(path)) for row in rows)
    shares = tuple(row.confidence for row in rows if row.confidence is not None)
    return LabelledPhoto(name, width, height, objects, words, shares if len(shares) == len(words) else ())


def _field(fields: dict[str, Any], first: tuple[str, ...], kinds: tuple[str, ...]) -> dict[str, Any] | None:
    for name in (*first, *fields):
        value = fields.get(name)
        if isinstance(value, dict) and value.get("_cls") in kinds:
            return value
    return None


def _rows(said: dict[str, Any], name: str) -> list[Any]:
    rows = said.get(name) if name in said else [said]
    return rows if isinstance(rows, list) else []


def _objects(
    said: dict[str, Any] | None, name: str, width: int, height: int, path: Path, place: str
) -> Iterator[LabelledObject]:
    for number, row in enumerate([] if said is None else _rows(said, name)):
        found: Detection = check(row, Detection, path, f"{place} {name}[{number}]")
        where = f"{visible_path(path)}: {place} {name}[{number}]"
        if not (width and height):
            raise UserError(f"{where}: its photo has no size; run compute_metadata() before the export")
        x, y, across, along = found.bounding_box
        box = (x * width, y * height, across * width, along * height)
        mask = None if found.mask is None else _mask(found.mask, box, width, height, where)
        yield LabelledObject(checked_word(found.label, where), box, found.confidence, mask)


def _mask(
    packed: dict[str, Any], box: tuple[float, float, float, float], width: int, height: int, where: str
) -> dict[str, Any]:
    """The mask in the photo of an array over its box."""
    part = _array(packed, width * height, where)
    left, top, right, bottom = pixels_of_box(box)
    rows = np.arange(bottom - top) * len(part) // (bottom - top)
    columns = np.arange(right - left) * part.shape[1] // (right - left)
    sized = part[rows[:, None], columns] > 0
    pixels = np.zeros((height, width), dtype=bool)
    inside = pixels[top:bottom, left:right]
    inside[:] = sized[: inside.shape[0], : inside.shape[1]]
    return mask_of_pixels(pixels)


def _array(packed: dict[str, Any], pixels: int, where: str) -> np.ndarray:
    binary = packed.get("$binary")
    text = binary.get("base64") if isinstance(binary, dict) else None
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(text or "", validate=True), 8 * pixels + _HEADER)
        if unpacker.unconsumed_tail:
            raise ValueError("it is larger than its photo")
    except (ValueError, TypeError, zlib.error, binascii.Error) as error:
        raise UserError(f"{where}: a mask that cannot be read ({visible_path(error)})") from error
    array = decode_npy(content, f"{where}: its mask")
    if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
        raise UserError(f"{where}: a mask of shape {array.shape}; rows and columns are expected")
    return array
