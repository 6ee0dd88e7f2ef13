"""The loop over a user's photos: read, predict, write, a few at a time, so that none spoils the others.

What is found is on disk before the next photos are read (:mod:`prompt_core.photos.part_file`); memory does not grow
with their number, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from prompt_core.errors import UserError, describe_failure, is_out_of_memory
from prompt_core.photos.part_file import PartFile
from prompt_core.photos.photo_list import NamedPhoto
from prompt_core.photos.photo_task import PhotoTask, Records
from prompt_core.runs.lock import alone_in
from prompt_core.visible import visible_path

# Takes how many photos are done, of how many there are to do.
Progress = Callable[[int, int], None]
# Threads that decode the photos of a batch: Pillow's decoders let others run meanwhile.
READERS = 2


@dataclass(frozen=True)
class Outcome:
    """The end of a loop.

    Attributes:
        line: what was found, in one line.
        skipped: photos that could not be predicted, and why.
        part: the file to remove when nothing is left to do (:func:`remove_parts`).
        records: what was found in each photo, while that file is there.
    """

    line: str
    skipped: dict[Path, str]
    part: Path
    records: Records


def predict_photos(
    task: PhotoTask, photos: Sequence[NamedPhoto], folder: Path, progress: Progress | None = None
) -> Outcome:
    """Predict each photo that an earlier, unfinished run in ``folder`` has not, and write the document about all.

    Photos that cannot be read, or for which memory is lacking, are left out.

    Args:
        progress: is told after each photo.

    Raises:
        UserError: when no photo can be read; when the folder holds an unfinished run of another identity, another
            process writes to it, or it cannot be written.
    """
    with predicted_photos(task, photos, folder, progress) as (records, skipped):
        if len(skipped) == len(photos):
            first = next(iter(skipped.values()))
            raise UserError(first if len(photos) == 1 else f"none of {len(photos)} photos can be read; {first}")
        task.finish(records, folder)
        seen = len(photos) - len(skipped)
        line = f"{task.summary(records)} in {seen} photos, written to {visible_path(folder)}"
    return Outcome(line, {photo.place: why for photo, why in skipped.items()}, _part_of(task, folder), records)


@contextlib.contextmanager
def predicted_photos(
    task: PhotoTask, photos: Sequence[NamedPhoto], folder: Path, progress: Progress | None = None
) -> Iterator[tuple[Records, dict[NamedPhoto, str]]]:
    """The records of photos, once all are predicted, and why others are left out; see :func:`predict_photos`.

    Raises:
        UserError: when the folder holds an unfinished run of another identity, another process writes to it, or it
            cannot be written.
    """
    skipped: dict[NamedPhoto, str] = {}
    with alone_in(folder), PartFile(_part_of(task, folder), task.identity()) as part:
        part.forget_others(photos)
        waiting = [photo for photo in photos if not part.holds(photo)]
        for done, (photo, reason) in enumerate(_predict_all(task, waiting, part, folder), start=1):
            if reason:
                skipped[photo] = reason
            if progress is not None:
                progress(done, len(waiting))

        def records() -> Iterator[tuple[NamedPhoto, dict[str, Any]]]:
            return part.records(photos)

        yield records, skipped


def remove_parts(outcomes: Iterable[Outcome]) -> None:
    """Remove the records of runs whose documents are written."""
    for outcome in outcomes:
        outcome.part.unlink(missing_ok=True)


def _part_of(task: PhotoTask, folder: Path) -> Path:
    return folder / f"{task.document}.part"


def _predict_all(
    task: PhotoTask, photos: Sequence[NamedPhoto], part: PartFile, folder: Path
) -> Iterator[tuple[NamedPhoto, str]]:
    """Predict and write photo by photo; yields each with why it cannot be predicted, else an empty text."""
    waiting = iter(photos)
    with ThreadPoolExecutor(READERS) as readers:
        while batch := list(islice(waiting, task.batch)):
            yield from _predict_some(task, batch, part, folder, readers)


def _predict_some(
    task: PhotoTask, photos: list[NamedPhoto], part: PartFile, folder: Path, readers: ThreadPoolExecutor
) -> list[tuple[NamedPhoto, str]]:
    reasons = dict.fromkeys(photos, "")

    def attempted(photo: NamedPhoto, action: Callable[[], Any], blamed: bool = True) -> Any:
        """The result of an action; None where the photo is the cause that there is none, which is noted."""
        try:
            return action()
        except Exception as error:
            if not ((blamed and isinstance(error, UserError)) or is_out_of_memory(error)):
                raise
            reason, named = describe_failure(error)[0], f"photo {visible_path(photo.place)}"
            reasons[photo] = reason if reason.startswith(named) else f"{named}: {reason}"
            return None

    def prepared(photo: NamedPhoto) -> Any:
        pixels = attempted(photo, photo.read)
        return None if pixels is None else attempted(photo, lambda: task.prepare(pixels))

    at_once = len(photos) > 1 and all(photo.within is None for photo in photos)  # a video is read in its order
    kept = [*(readers.map if at_once else map)(prepared, photos)]
    readable = [(photo, small) for photo, small in zip(photos, kept, strict=True) if small is not None]
    predictions = _predicted_together(task, [small for _, small in readable])
    for place, (photo, small) in enumerate(readable):
        found = predictions[place] if predictions else attempted(photo, partial(task.predict_named, small, photo.name))
        if found is not None:
            record = attempted(photo, partial(task.write, photo, small, found, folder), blamed=False)
            if record is not None:
                part.append(photo, record)
    return list(reasons.items())


def _predicted_together(task: PhotoTask, prepared: list[Any]) -> list[Any]:
    """The predictions of several photos; none where one of them spoils the others, which are then predicted alone."""
    if len(prepared) < 2:
        return []
    try:
        return task.predict_batch(prepared)
    except Exception as error:
        if not isinstance(error, UserError) and not is_out_of_memory(error):
            raise
        return []
