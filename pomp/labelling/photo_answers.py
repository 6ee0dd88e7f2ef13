"""What naming whole photos does with each of them: a row of a table, a line of JSON, a place on a contact sheet."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from pomp.formats.labelled import NONE_OF_THESE, UNSURE, answer_of
from pomp.labelling.contact_sheet import THUMBNAIL, Cell, write_contact_sheets
from prompt_core.files import atomic_path, sha256_of_json
from prompt_core.photos.photo_list import NamedPhoto
from prompt_core.photos.photo_task import PhotoTask, Records

if TYPE_CHECKING:
    from torch import Tensor

    from prompt_core.background.photo_words import PhotoNamer, PhotoWord

JSON_LINES, TABLE = "results.jsonl", "results.csv"
_JPEG_QUALITY = 80
_THUMBNAIL = "thumbnail"


class Prepared(NamedTuple):
    """What is kept of a photo until its batch is full."""

    image: Tensor  # (3, S, S)
    height: int
    width: int
    thumbnail: bytes  # JPEG; empty without contact sheets


class PhotoAnswers(PhotoTask):
    """Answers for photos: ``results.jsonl``, ``results.csv`` and ``contact_sheet_001.jpg`` and so on.

    Args:
        namer: with its words.
        words_listed: how many words an answer lists, at most.
        contact_sheets: whether to write them.
    """

    document = JSON_LINES
    batch = 16

    def __init__(self, namer: PhotoNamer, contact_sheets: bool = True) -> None:
        self._namer = namer
        self._contact_sheets = contact_sheets

    def identity(self) -> dict[str, Any]:
        """Model, words and options."""
        from hashlib import sha256

        from prompt_core.files import hash_tensors

        classifier, digest = self._namer.classifier, sha256()
        assert classifier.background is not None
        hash_tensors(digest, {"words": classifier.weight, "background": classifier.background.weight})
        return {
            "weights": self._namer.clip.image_fingerprint,
            "classifier": digest.hexdigest(),
            "words": sha256_of_json(classifier.names),
            "logit-scale": classifier.background.logit_scale,
            "threshold": self._namer.threshold,
            "contact-sheet": self._contact_sheets,
        }

    def prepare(self, pixels: np.ndarray) -> Prepared:
        """The photo in the size of the CLIP."""
        image = Image.fromarray(pixels)
        thumbnail = _thumbnail(image) if self._contact_sheets else b""
        return Prepared(self._namer.clip.preprocess(image), pixels.shape[0], pixels.shape[1], thumbnail)

    def predict_batch(self, prepared: Sequence[Prepared]) -> list[PhotoWord]:
        """An answer for each, to the last bit the same whatever photos are beside it.

        Libraries sum in another order for another number of photos. A batch always has :attr:`batch`, so that a run
        that was stopped, and shards of any size, end with the same numbers.
        """
        import torch

        images = torch.zeros(max(self.batch, len(prepared)), *prepared[0].image.shape)
        for place, photo in enumerate(prepared):
            images[place] = photo.image
        return self._namer.answers(images)[: len(prepared)]

    def write(self, photo: NamedPhoto, prepared: Prepared, prediction: PhotoWord, folder: Path) -> dict[str, Any]:
        """The record is the photo's line, with its thumbnail."""
        size = {"width": prepared.width, "height": prepared.height}
        thumbnail = {_THUMBNAIL: base64.b64encode(prepared.thumbnail).decode("ascii")} if prepared.thumbnail else {}
        return {**size, **described(prediction), **thumbnail}

    def finish(self, records: Records, folder: Path) -> None:
        """Write the lines, the table and the contact sheets."""
        with atomic_path(folder / JSON_LINES) as temporary, open(temporary, "w", encoding="utf-8") as lines:
            for photo, record in records():
                line = {"file_name": photo.name, **{key: record[key] for key in record if key != _THUMBNAIL}}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        with atomic_path(folder / TABLE) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
            listed = min(5, len(self._namer.classifier.names))
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(table_heading(listed))
            table.writerows(table_row(photo.name, record, listed) for photo, record in records())
        if self._contact_sheets:
            write_contact_sheets(folder, _cells(records))

    def summary(self, records: Records) -> str:
        """How many photos got a word."""
        named = sum(record["word"] is not None for _, record in records())
        return f"one of {len(self._namer.classifier.names)} words for {named}"


def described(answer: PhotoWord) -> dict[str, Any]:
    """An answer as plain values."""
    best = [{"word": word, "own_share": share} for word, share in answer.best]
    return {"word": answer.word, "own_share": answer.share, "none_of_these": answer.none, "best": best}


def table_heading(listed: int) -> list[str]:
    """The columns of the table: answer, its own share, none of these, and the best words with their own shares."""
    best = [text for place in range(1, listed + 1) for text in (f"word_{place}", f"own_share_{place}")]
    return ["file_name", "word", "own_share", "none_of_these", *best]


def table_row(name: str, record: dict[str, Any], listed: int) -> list[str]:
    """The row of a photo; its word is ``none of these`` or ``unsure`` where no word has enough."""
    best = [text for entry in record["best"][:listed] for text in (entry["word"], _share(entry["own_share"]))]
    return [name, shown_answer(record), _share(record["own_share"]), _share(record["none_of_these"]), *best]


def shown_answer(record: dict[str, Any]) -> str:
    """The answer as a person reads it."""
    return answer_of(record["word"], record["none_of_these"]) or UNSURE


def _share(value: float) -> str:
    return f"{value:.4f}"


def _cells(records: Records) -> Iterator[Cell]:
    for photo, record in records():
        answer = shown_answer(record)
        share = record["none_of_these"] if answer == NONE_OF_THESE else record["own_share"]
        yield Cell(base64.b64decode(record[_THUMBNAIL]), answer, share, photo.name)


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy() if max(image.size) <= THUMBNAIL else image.resize(_fitting(image.size), reducing_gap=2.0)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    scale = THUMBNAIL / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
