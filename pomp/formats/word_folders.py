"""Whole photos in folders that are called by their words."""

from __future__ import annotations

from pathlib import Path

from pomp.formats.checked import Collected, checked_word
from pomp.formats.labelled import NONE_OF_THESE, Corrections, LabelledPhoto
from prompt_core.data.open_photo import upright_size
from prompt_core.data.photo_files import list_folders, list_photos
from prompt_core.photos.writable_names import writable
from prompt_core.visible import visible_path

KIND = "folders"


def folder_of_word(word: str) -> str:
    """The name of a word's folder; two words may get the same, and none leads out of the folder it is in."""
    plain = writable(word).strip(". ")
    return plain or "_"


def read(path: Path) -> Corrections:
    """Read the photos of each folder; those in ``none of these`` have no word.

    Raises:
        UserError: when a photo cannot be read, or a folder is called by no word.
    """
    names = list_folders(path)
    collected = Collected(KIND, [checked_word(name, visible_path(path)) for name in names if name != NONE_OF_THESE])
    for name in names:
        for photo in list_photos(path / name, recursive=True):
            file = path / name / photo
            words = () if name == NONE_OF_THESE else (name.strip(),)
            collected.add(LabelledPhoto(f"{name}/{photo}", *upright_size(file), (), words, path=file))
    return collected.corrections()
