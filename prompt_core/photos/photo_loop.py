"""The loop over a user's photos: read, predict, write, one after the other, so that none spoils the others.

What is found is on disk before the next photo is read (:mod:`prompt_core.photos.part_file`); memory does not grow with
their number, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prompt_core.data.open_photo import read_photo
from prompt_core.errors import UserError, describe_failure, is_out_of_memory
from prompt_core.photos.json_lists import write_json_lists
from prompt_core.photos.part_file import PartFile
from prompt_core.photos.photo_list import NamedPhoto
from prompt_core.runs.lock import alone_in
from prompt_core.visible import visible_path

# A function that gives the records again and again, from the beginning.
Records = Callable[[], Iterator[tuple[NamedPhoto, dict[str, Any]]]]


class PhotoTask(Protocol):
    """What a detector or a segmenter does with one photo."""

    document: str  # file name of the JSON document about all photos

    def identity(self) -> dict[str, Any]:
        """What predictions depend on besides the photo: plain values by names that a user understands."""

    def predict(self, pixels: np.ndarray) -> Any:
        """The prediction for (H, W, 3) uint8 in RGB; a :class:`UserError` where this photo is the cause."""

    def write(self, photo: NamedPhoto, pixels: np.ndarray, prediction: Any, folder: Path) -> dict[str, Any]:
        """Write the files about a photo; returns its record, JSON."""

    def lists(self, records: Records) -> Mapping[str, Iterable[Any]]:
        """The document's lists, from the records."""

    def summary(self, records: Records) -> str:
        """What was found, in words."""


@dataclass(frozen=True)
class Outcome:
    """The end of a loop.

    Attributes:
        line: what was found, in one line.
        skipped: photos that could not be predicted, and why.
        part: the file to remove when nothing is left to do (:func:`remove_parts`).
    """

    line: str
    skipped: dict[Path, str]
    part: Path


def predict_photos(task: PhotoTask, photos: Sequence[NamedPhoto], folder: Path) -> Outcome:
    """Predict each photo that an earlier, unfinished run in ``folder`` has not, and write the document about all.

    Photos that cannot be read, or for which memory is lacking, are left out.

    Raises:
        UserError: when no photo can be read; when the folder holds an unfinished run of another identity, another
            process writes to it, or it cannot be written.
    """
    skipped: dict[Path, str] = {}
    with alone_in(folder), PartFile(folder / f"{task.document}.part", task.identity()) as part:
        part.forget_others(photos)
        for photo in photos:
            if not part.holds(photo):
                reason = _predict_one(task, photo, part, folder)
                if reason:
                    skipped[photo.path] = reason

        def records() -> Iterator[tuple[NamedPhoto, dict[str, Any]]]:
            return part.records(photos)

        if len(skipped) == len(photos):
            first = next(iter(skipped.values()))
            raise UserError(first if len(photos) == 1 else f"none of {len(photos)} photos can be read; {first}")
        write_json_lists(folder / task.document, task.lists(records))
        seen = len(photos) - len(skipped)
        line = f"{task.summary(records)} in {seen} photos, written to {visible_path(folder)}"
    return Outcome(line, skipped, part.path)


def remove_parts(outcomes: Iterable[Outcome]) -> None:
    """Remove the records of runs whose documents are written."""
    for outcome in outcomes:
        outcome.part.unlink(missing_ok=True)


def _predict_one(task: PhotoTask, photo: NamedPhoto, part: PartFile, folder: Path) -> str:
    """Predict and write one photo; returns why it cannot be predicted, else an empty text."""
    try:
        try:
            pixels = read_photo(photo.path)
        except UserError as error:
            return str(error)
        try:
            prediction = task.predict(pixels)
        except UserError as error:
            return f"photo {visible_path(photo.path)}: {describe_failure(error)[0]}"
        record = task.write(photo, pixels, prediction, folder)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return f"photo {visible_path(photo.path)}: {describe_failure(error)[0]}"
    part.append(photo, record)
    return ""
