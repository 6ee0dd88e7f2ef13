"""Which photos are train, val and test of a benchmark: the published split, an official one, or one drawn here.

* ``published``: CoOp's ``split_zhou_*.json``, used for the tables of CoOp and POMP.
* ``official``: the lists of the data set's authors (also torchvision's splits), as they are.
* ``generated``: drawn with a seed by CoOp's rules. Its photos are not those of the published split, and it is never
  called that. It is saved as ``split_generated_seed{seed}.json`` in the data set's folder, in CoOp's format.

By default the published split is taken if its file exists; else the official lists of sets that have all three
(OxfordFlowers, DTD), if they exist; else a split is generated. Where there are official lists of train and test only
(OxfordPets, StanfordCars, Food101, SUN397, UCF101) a generated split keeps the test photos and divides train into train
and val; CoOp does the same, except for Food101, which it divides from scratch.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import inside, is_folder
from prompt_core.data.readers.coop import GENERATED, coop_split, generated_note, split_images
from prompt_core.data.readers.original_folders import Listed
from prompt_core.data.splits import SPLITS, NoSuchSplit, check_split, draw_parts
from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_json, write_json

WHICH = ("published", "official", "generated")
SEED = 1
_DRAW_ALL = "50 % train, 20 % val, 30 % test of the photos of each class"
OFFICIAL_TEST = "test is the official list"
_DRAW_VAL = f"20 % of the photos of each class of the official training list are val; {OFFICIAL_TEST}"


@dataclass(frozen=True)
class Benchmark:
    """How one data set of CoOp's benchmarks is read.

    Attributes:
        name: for messages and ``source``.
        split_file: the published split, in the data set's folder.
        lists: reads the official lists, or gives None where they do not exist; None when there are none at all.
        photos: lists all photos; None when a split is only ever drawn from the official lists.
        keeps_test: whether a generated split keeps the test photos of the official list.
        photo_folders: where the photos are, below the data set's folder, in this and other known layouts.
    """

    name: str
    split_file: str
    lists: Callable[[Path], Listed | None] | None = None
    photos: Callable[[Path], Listed] | None = None
    keeps_test: bool = False
    photo_folders: tuple[str, ...] = ()

    def published(self, folder: Path) -> Path | None:
        """CoOp's split file, in the data set's folder or in the one that an archive makes inside it; None without.

        Raises:
            UserError: when only a file with a different spelling of the name exists.
        """
        inner = sorted({name.split("/")[0] for name in self.photo_folders if "/" in name})
        places = [place for place in (folder, *(folder / name for name in inner)) if is_folder(place)]
        for place in places:
            if (place / self.split_file).exists():
                return place / self.split_file
        for place in places:
            for path in sorted(place.iterdir()):
                if path.name.lower().startswith("split_zhou_") and path.name.lower().endswith(".json"):
                    raise UserError(f"found {path}, expected {self.split_file} there: rename it, or move it away")
        return None

    def open(self, folder: Path, split: str, which: str | None = None, seed: int = SEED, save: bool = True) -> ImageSet:
        """The photos of one split.

        Args:
            folder: the data set's folder.
            split: train, val or test.
            which: published, official or generated; None as the module says.
            seed: of a generated split.
            save: save a generated split in ``folder``, if that is writable.

        Raises:
            UserError: when something is missing or damaged; the message has the exact path.
        """
        check_split(split, SPLITS, self.name)
        if not is_folder(folder):
            raise UserError(f"expected {self.name} at {folder}: no such folder")
        if which in (None, "published"):
            path = self.published(folder)
            if path is not None or which == "published":
                return self._published(folder, path or folder / self.split_file, split)
        if which == "official" or (which is None and self.lists is not None and not self.keeps_test):
            listed = self.lists(folder) if self.lists is not None else None
            if listed is not None:
                return self._official(listed, folder, split)
            if which == "official":
                raise UserError(f"{self.name} at {folder} has no official lists of photos; use generated or published")
        return self._generated(folder, split, seed, save)

    def _published(self, folder: Path, path: Path, split: str) -> ImageSet:
        images = coop_split(folder, path.relative_to(folder), split=split, known_folders=self.photo_folders)
        if GENERATED in images.source:
            raise UserError(f"{path} was generated, it is not the published split; download that")
        return dataclasses.replace(images, source=f"{self.name}:{split} (published split {self.split_file})")

    def _official(self, listed: Listed, folder: Path, split: str) -> ImageSet:
        if split not in listed.parts:
            raise NoSuchSplit(
                f"{self.name}: the official lists have {' and '.join(listed.parts)}, no {split}; "
                f"use {self.name}:{folder}#generated, or put {self.split_file} there"
            )
        source = f"{self.name}:{split} (official split)"
        return split_images(listed.parts, listed.images, f"the official lists of {folder}", split, source)

    def _generated(self, folder: Path, split: str, seed: int, save: bool) -> ImageSet:
        path = folder / f"split_generated_seed{seed}.json"
        listed = self.lists(folder) if self.lists is not None and self.keeps_test else None
        about: dict[str, Any] = {"dataset": self.name, "seed": seed, "rule": _DRAW_ALL if listed is None else _DRAW_VAL}
        if listed is not None:
            # drawn again when a list was repaired or replaced
            about["lists_sha256"] = sha256_of_json(listed.parts)
        saved = _read_saved(path, about)
        drawn = saved if saved is not None else self._draw(listed, folder, seed) | {"generated": about}
        source = f"{self.name}:{split} ({generated_note(drawn)})"
        parts = {part: drawn[part] for part in SPLITS}
        images = folder / inside(drawn["images"], str(path))
        if saved is not None:
            try:
                return split_images(parts, images, path, split, source)
            except UserError as error:
                raise UserError(f"{error}; restore the photos, or delete that file to draw another split") from error
        place = folder if listed is None else f"the official lists of {folder}"
        if save:
            for part in SPLITS:  # nothing is saved that cannot be opened
                if drawn[part]:
                    split_images(parts, images, place, part, source)
            # a shared folder may be read-only; the same seed draws the same split again
            with contextlib.suppress(UserError):
                write_json(path, drawn)
        return split_images(parts, images, place, split, source)

    def _draw(self, listed: Listed | None, folder: Path, seed: int) -> dict[str, Any]:
        try:
            if listed is not None:
                train, val = draw_parts(listed.parts["train"], (0.8, 0.2), seed)
                test = listed.parts["test"]
            else:
                assert self.photos is not None, "a set without lists lists its photos"
                listed = self.photos(folder)
                train, val, test = draw_parts(listed.parts["all"], (0.5, 0.2, 0.3), seed)
        except UserError as error:
            raise UserError(f"{self.name} at {folder}: {error}") from error
        return {"images": listed.images.relative_to(folder).as_posix(), "train": train, "val": val, "test": test}


def _read_saved(path: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """An earlier split by the same rule and seed; None when there is none."""
    if not path.exists():
        return None
    document = read_json(path)
    whole = isinstance(document, dict) and isinstance(document.get("images"), str)
    if not whole or any(not isinstance(document.get(part), list) for part in SPLITS):
        raise UserError(f"{path} is damaged: delete it, and the split is drawn again")
    return document if document.get("generated") == about else None
