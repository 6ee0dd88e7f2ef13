"""A folder of photos and lists of words in; documents, pictures and files of other tools out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pomp.labelling.outputs import Outputs
from pomp.shards.shard_runs import SHARD_SIZE, cut_in_shards, label_shards
from pomp.shards.shares import Share
from prompt_core.errors import UserError
from prompt_core.files import make_output_folder
from prompt_core.photos.photo_list import list_files_to_predict, list_photos_to_predict
from prompt_core.photos.photo_loop import Outcome, predict_photos, remove_parts
from prompt_core.photos.progress import showing_progress
from prompt_core.photos.video_frames import Every
from prompt_core.visible import say, visible_path

if TYPE_CHECKING:
    from pomp.formats.labelled import LabelledPhoto
    from pomp.models.photo_model import Model


@dataclass(frozen=True)
class Request:
    """What a person asks for.

    Attributes:
        photos: files, folders, patterns, lists, see :func:`list_photos_to_predict`.
        output: the folder for results.
        words: lists of words as texts; None for those of the model. Results of several lists go to folders 1, 2, ….
        negatives: what else may be there, likewise.
        outputs: which files about each photo.
        formats: names of :mod:`pomp.formats`.
        every: which frames of videos.
        strict: the exit code is 1 where a photo was left out.
        share: of shards of the photos, where processes share them; None for all photos in one document.
        shard_size: photos of a shard.
    """

    photos: Sequence[str]
    output: str
    words: Sequence[str | None] = (None,)
    negatives: str = ""
    outputs: Outputs = field(default_factory=Outputs)
    formats: tuple[str, ...] = ()
    every: Every | None = None
    strict: bool = False
    share: Share | None = None
    shard_size: int = SHARD_SIZE


def label_photos(request: Request, load: Callable[[], Model]) -> int:
    """Label photos with each list of words; the model is loaded once. Returns the exit code.

    What is wrong with the photos that are named is told before the model is loaded.

    Raises:
        UserError: what :func:`list_photos_to_predict`, the model, :func:`predict_photos` and formats refuse.
    """
    if request.share is not None:
        return _label_share(request, request.share, load)
    photos = list_photos_to_predict(request.photos, Path(request.output), request.every)
    output = make_output_folder(request.output)
    model = load()
    outcomes = []
    for number, words in enumerate(request.words, start=1):
        if words is not None:
            model.words(words, request.negatives)
        folder = output if len(request.words) == 1 else make_output_folder(output / str(number))
        with showing_progress(model.task) as progress:
            outcomes.append(predict_photos(model.photo_task(request.outputs), photos, folder, progress))
        if request.formats or request.outputs.gallery:
            _write_labelled(request, model, outcomes[-1], folder)
        say(outcomes[-1].line)
    remove_parts(outcomes)
    return tell_left_out(outcomes, len(photos), request.strict)


def _label_share(request: Request, share: Share, load: Callable[[], Model]) -> int:
    if request.formats or request.outputs.crops or len(request.words) != 1:
        raise UserError(
            "processes that share photos write Parquet parts, no --format, --crops or several lists of words; "
            "docs/scale_out.md shows how parts become files of other tools"
        )

    def with_words() -> Model:
        model, words = load(), request.words[0]
        return model if words is None else model.words(words, request.negatives)

    output = Path(request.output)
    shards = cut_in_shards(list_files_to_predict(request.photos, output), request.shard_size)
    asked = {"words": request.words[0] or "", "negatives": request.negatives}
    left_out = label_shards(with_words, shards, share, output, asked, request.every)
    return 1 if left_out and request.strict else 0


def tell_left_out(outcomes: Sequence[Outcome], photos: int, strict: bool) -> int:
    """List and count the photos that were left out; returns the exit code."""
    skipped = {path: reason for outcome in outcomes for path, reason in outcome.skipped.items()}
    for reason in skipped.values():
        say(f"left out: {reason}", error=True)
    if skipped:
        say(f"{len(skipped)} of {photos} photos were left out", error=True)
    return 1 if skipped and strict else 0


def _write_labelled(request: Request, model: Model, outcome: Outcome, folder: Path) -> None:
    """Write the files of other tools, and the gallery."""
    from pomp.formats.formats import write_formats
    from pomp.gallery.gallery import write_gallery
    from pomp.labelling.labelled_records import labelled_photo

    names = model.asked

    def labelled() -> Iterator[LabelledPhoto]:
        for photo, record in outcome.records():
            yield labelled_photo(model.task, photo, record, names, folder)

    def shown() -> Iterator[LabelledPhoto]:
        hidden = request.outputs.hide_photo
        return (replace(photo, path=None, pixels=None) if hidden else photo for photo in labelled())

    for written in write_formats(request.formats, labelled, names, folder):
        say(f"written to {written}")
    if request.outputs.gallery:
        page = write_gallery(folder, shown, names, getattr(model, "threshold", 0.0), boxes=model.task != "segment")
        say(f"the photos in doubt first: {visible_path(page)}")
