"""Predictions on disk: one JSON line for each image, one file for each rank.

::

    FOLDER/predictions/manifest.json      data set, classes, protocol facts; written first, at the end with checksums
    FOLDER/predictions/rank_00000.jsonl   {"image_id": …, "instances": [{"category_id", "bbox", "score", …}]}

Boxes are x, y, width, height in pixels, masks are compressed run lengths, category ids are the data set's own. Nothing
is kept in memory, whatever the number of images and ranks. A file carries the ending ``.part`` until its rank is done.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import msgspec
import numpy as np

from prompt_core.documents.bounds import SMALL_BYTES
from prompt_core.documents.json_files import decode_json
from prompt_core.documents.schema import Count, Finite, Int64, check
from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, read_sealed_json, sha256_of_file, write_sealed_json
from prompt_core.temporary_files import appending_to

SUBFOLDER = "predictions"
MANIFEST = "manifest.json"
# Bytes of a line: 300 detections with masks take about a tenth of a megabyte.
LINE_BYTES = 256 << 20
_IMAGE_ID = re.compile(rb'\{"image_id": (-?\d{1,18}), ')


class Manifest(msgspec.Struct):
    """What scoring needs in addition to the detections."""

    dataset: str
    kind: Literal["coco", "lvis", "openimages"]
    annotations: str
    ranks: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    tasks: list[Literal["bbox", "segm"]] | None
    class_groups: dict[str, list[Int64]] = {}
    vocabulary_sha256: str | None = None
    detections_per_image: int | None = None
    sha256: dict[str, str] = {}  # of each file; empty in those of older versions


class Mask(msgspec.Struct, gc=False):
    """Compressed run lengths of an image of height and width ``size``."""

    size: tuple[Count, Count]
    counts: str


class Prediction(msgspec.Struct, gc=False):
    """One detection in the data set's own category ids, with a box x, y, width, height in pixels or a mask."""

    category_id: Int64
    score: Finite
    bbox: tuple[Finite, Finite, Finite, Finite] | None = None
    segmentation: Mask | None = None


class Line(msgspec.Struct, gc=False):
    """One image."""

    image_id: Int64
    instances: list[Prediction]


def clear_predictions(folder: Path) -> None:
    """Remove the predictions of an earlier run, which may have had more ranks.

    Raises:
        UserError: when the folder cannot be created or written.
    """
    place = make_output_folder(folder / SUBFOLDER)
    for path in [place / MANIFEST, *place.glob("rank_*.jsonl"), *place.glob("rank_*.jsonl.part")]:
        path.unlink(missing_ok=True)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write what scoring needs in addition to the detections."""
    write_sealed_json(folder / SUBFOLDER / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what :func:`write_manifest` wrote.

    Raises:
        UserError: when the folder holds no predictions, or the manifest does not fit its schema.
    """
    path = folder / SUBFOLDER / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} holds no predictions: {path} does not exist; run the evaluation with inference")
    manifest: dict[str, Any] = read_sealed_json(path, SMALL_BYTES)
    try:
        check(manifest, Manifest, path)
    except UserError as error:
        raise UserError(f"{error}; {path} does not describe predictions, run the evaluation with inference") from error
    return manifest


class PredictionWriter:
    """Appends images to the file of one rank.

    Args:
        folder: of the data set's evaluation.
        rank: of this process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._target = folder / SUBFOLDER / f"rank_{rank:05d}.jsonl"
        self._partial = self._target.with_name(self._target.name + ".part")
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        self._digest = hashlib.sha256()
        self._stream: TextIO | None = open(self._partial, "w", encoding="ascii")  # noqa: SIM115 - closed in close()

    def write(self, image_id: int, instances: Sequence[dict[str, Any]]) -> None:
        """Append one image; an image without detections is also written, as evaluated."""
        assert self._stream is not None, "the file is closed"
        line = {"image_id": int(image_id), "instances": list(instances)}
        try:
            text = json.dumps(line, allow_nan=False) + "\n"
        except ValueError as error:
            raise UserError(f"image {image_id} has a box or score that is not finite: {error}") from error
        with appending_to(self._partial):
            self._stream.write(text)
        self._digest.update(text.encode("ascii"))

    def close(self) -> dict[str, str]:
        """Finish the file and give it its name; returns the name and the sha256 of the content."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with appending_to(self._partial):
                stream.close()
            self._partial.replace(self._target)
        return {self._target.name: self._digest.hexdigest()}


class PredictionIndex:
    """Position of each image in the files of all ranks: 16 bytes of memory per image.

    Images are read in the order of their ids, so that results do not depend on how ranks shared them out. An image
    that two ranks predicted (samplers pad) counts once.

    Raises:
        UserError: when files are missing, unfinished or damaged.
    """

    def __init__(self, folder: Path) -> None:
        place = folder / SUBFOLDER
        unfinished = sorted(place.glob("rank_*.jsonl.part"))
        if unfinished:
            raise UserError(f"{unfinished[0]} is unfinished: the run was interrupted; run the inference again")
        self.paths = sorted(place.glob("rank_*.jsonl"))
        manifest = read_manifest(folder)
        ranks = manifest["ranks"]
        if len(self.paths) != ranks or manifest["tasks"] is None:
            raise UserError(
                f"{place} holds the predictions of {len(self.paths)} of {ranks} processes; all processes have to "
                "write to one shared folder"
            )
        for path in self.paths:
            stated = manifest.get("sha256", {}).get(path.name)
            if stated is not None and stated != sha256_of_file(path):
                raise UserError(f"{path} is damaged: it does not fit its checksum; run the inference again")
        ids, files, offsets = [], [], []
        for number, path in enumerate(self.paths):
            for image_id, offset in _lines(path):
                ids.append(image_id)
                files.append(number)
                offsets.append(offset)
        self.image_ids, first = np.unique(np.array(ids, dtype=np.int64), return_index=True)
        self._files = np.array(files, dtype=np.int64)[first]
        self._offsets = np.array(offsets, dtype=np.int64)[first]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """(image id, instances) in the order of image ids."""
        streams = [open(path, "rb") for path in self.paths]  # noqa: SIM115 - closed below
        try:
            for image_id, file, offset in zip(self.image_ids, self._files, self._offsets, strict=True):
                streams[file].seek(offset)
                yield int(image_id), _instances(streams[file].readline(), self.paths[file], int(offset))
        finally:
            for stream in streams:
                stream.close()


def _instances(line: bytes, path: Path, offset: int) -> list[dict[str, Any]]:
    place = f"{path}, the line at byte {offset}"
    document = decode_json(line, place)
    check(document, Line, place)
    instances: list[dict[str, Any]] = document["instances"]
    return instances


def _lines(path: Path) -> Iterator[tuple[int, int]]:
    offset = 0
    with open(path, "rb") as stream:
        while line := stream.readline(LINE_BYTES):
            match = _IMAGE_ID.match(line)
            if match is None or not line.endswith(b"]}\n"):
                raise UserError(f"{path} is damaged at byte {offset}; run the inference again")
            yield int(match.group(1)), offset
            offset += len(line)


def write_results(path: Path, instances: Iterable[dict[str, Any]]) -> int:
    """Write detections as a COCO results file, one on each line; returns how many. The caller renames it if need be."""
    count = 0
    with open(path, "w", encoding="ascii") as stream:
        stream.write("[")
        for instance in instances:
            stream.write(("\n" if count == 0 else ",\n") + json.dumps(instance))
            count += 1
        stream.write("\n]\n")
    return count
