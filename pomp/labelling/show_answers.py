"""Answers for photos as a table on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from pomp.formats.labelled import NONE_OF_THESE
from pomp.labelling.label_photos import Request, tell_left_out
from pomp.labelling.photo_answers import shown_answer
from prompt_core.command_line import print_table
from prompt_core.photos.photo_list import list_photos_to_predict
from prompt_core.photos.photo_loop import predict_photos
from prompt_core.photos.progress import showing_progress

if TYPE_CHECKING:
    from pomp.models.photo_model import Model

LISTED = 3


def show_answers(request: Request, load: Callable[[], Model]) -> int:
    """Name photos and print a row for each; nothing is kept but in ``request.output``. Returns the exit code.

    Raises:
        UserError: as :func:`pomp.labelling.label_photos.label_photos`.
    """
    folder = Path(request.output)
    photos = list_photos_to_predict(request.photos, folder, request.every)
    model = load().words(request.words[0] or "", request.negatives)
    with showing_progress(model.task) as progress:
        outcome = predict_photos(model.photo_task(request.outputs), photos, folder, progress)
    table = Table()
    for heading in ("photo", "word", "own share", NONE_OF_THESE, "best words"):
        table.add_column(heading, justify="right" if heading in ("own share", NONE_OF_THESE) else "left")
    for photo, record in outcome.records():
        best = ", ".join(f"{entry['word']} {_percent(entry['own_share'])}" for entry in record["best"][:LISTED])
        shares = _percent(record["own_share"]), _percent(record["none_of_these"])
        table.add_row(photo.name, shown_answer(record), *shares, best)
    print_table(table)
    return tell_left_out([outcome], len(photos), request.strict)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
