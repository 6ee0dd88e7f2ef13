"""Boxed photos of one's own as the COCO files of a run: those to learn from, and those held out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from pomp.formats.coco_json import write_corrections
from pomp.formats.labelled import Corrections, LabelledPhoto
from prompt_core.errors import UserError
from prompt_core.files import write_text

TRAIN, HELD_OUT, WORDS = "boxes_train.json", "boxes_held_out.json", "words.txt"


@dataclass(frozen=True)
class BoxedPhotos:
    """What a run learns from.

    Attributes:
        words: in the order of the categories.
        photos, boxes: that are learned from.
        held_out: photos that measure; 0 for none.
        side: median of the longer sides, in pixels.
        folder: with the files.
    """

    words: list[str]
    photos: int
    boxes: int
    held_out: int
    side: int
    folder: Path


def write_boxed_photos(corrections: Corrections, photos: Path, folder: Path, share: float, seed: int) -> BoxedPhotos:
    """Split boxed photos and write ``boxes_train.json``, ``boxes_held_out.json`` and ``words.txt``.

    Boxes with a score, which no person has confirmed, are left out. A photo is held out by the hash of its name, so
    that more photos do not move the others.

    Args:
        photos: folder that names become relative to.
        share: of the photos that is held out, from 0 to below 1.

    Raises:
        UserError: no boxes, photos that were not found or are elsewhere, nothing left to learn from.
    """
    named = [_confirmed(photo, photos) for photo in corrections.photos]
    words = list(corrections.words) or sorted({thing.word for photo in named for thing in photo.objects})
    ranked = sorted(named, key=lambda photo: hashlib.sha256(json.dumps([seed, photo.name]).encode()).digest())
    number = round(share * len(ranked))
    parts = {HELD_OUT: ranked[:number], TRAIN: ranked[number:]}
    boxes = sum(len(photo.objects) for photo in parts[TRAIN])
    if not boxes:
        raise UserError("the photos to learn from have no boxes that a person made; give more, or a smaller --held-out")
    for name, part in parts.items():
        if part:
            part = sorted(part, key=lambda photo: photo.name)
            write_corrections(replace(corrections, photos=tuple(part), words=tuple(words)), folder / name)
    write_text(folder / WORDS, "".join(f"{word}\n" for word in words))
    sides = sorted(max(photo.width, photo.height) for photo in named)
    return BoxedPhotos(words, len(parts[TRAIN]), boxes, number, sides[len(sides) // 2], folder)


def _confirmed(photo: LabelledPhoto, folder: Path) -> LabelledPhoto:
    if photo.path is None:
        raise UserError(f"photo {photo.name} was not found; give the folder of the photos as --photos")
    if not photo.path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"photo {photo.path} is not in {folder}; give the folder of all photos as --photos")
    name = photo.path.resolve().relative_to(folder.resolve()).as_posix()
    return replace(photo, name=name, objects=tuple(thing for thing in photo.objects if thing.score is None))
