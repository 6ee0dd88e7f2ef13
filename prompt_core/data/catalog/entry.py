"""One classification data set: its names, folders, template, reader and what it should hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prompt_core.data.catalog.benchmark_splits import WHICH, Benchmark
from prompt_core.data.catalog.hand_written import PHOTO, selected_templates
from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import is_folder
from prompt_core.errors import UserError, nearest
from prompt_core.files import data_root


@dataclass(frozen=True)
class Count:
    """An expected number. ``seen``: taken from code or logs of the field's projects; else from the literature."""

    number: int
    seen: bool = False


def seen(number: int) -> Count:
    """A number taken from code or logs of the field's projects."""
    return Count(number, seen=True)


@dataclass(frozen=True)
class Seen:
    """What is at a path of a data set, without its being opened.

    Attributes:
        detail: what was counted, and what is missing.
        right: whether all is there.
        opens: whether its splits can be opened in a moment.
    """

    path: Path
    detail: str
    right: bool = True
    opens: bool = True


@dataclass(frozen=True)
class ClassificationEntry:
    """One data set.

    Attributes:
        name: in ``--datasets`` and ``DATA.TRAIN``.
        aliases: other names. Case does not matter, and a hyphen is an underscore.
        folders: below the data root; the first is CoOp's.
        marks: files or folders that must all be in a folder for it to be recognised as this set; none where the layout
            is too generic for that.
        reader: opens a split of the folder; a :class:`Benchmark` where several divisions into splits exist.
        classes: number of classes.
        test: photos of the test split, as CoOp and POMP divide.
        base_test: test photos of the first ceil(n/2) classes, which identify the published split better than the total.
        official_test: photos of the official test list, where it differs.
        splits: what ``datasets/check.py`` counts.
        other_marks: marks of other layouts of this set.
        how: how to get it; ``{folder}`` is its folder.
        template: the hand-written one of CoOp, with ``{}`` for the name.
        inspect: what is in its folder by parts, where classes or files may be missing that no split shows.
    """

    name: str
    aliases: tuple[str, ...]
    folders: tuple[str, ...]
    marks: tuple[str, ...]
    reader: Benchmark | Callable[[Path, str], ImageSet]
    classes: Count
    test: Count
    how: str
    template: str = PHOTO
    base_test: Count | None = None
    official_test: Count | None = None
    splits: tuple[str, ...] = ("train", "val", "test")
    other_marks: tuple[tuple[str, ...], ...] = ()
    inspect: Callable[[str], list[Seen]] | None = None

    @property
    def ensemble(self) -> list[str]:
        """The published ensemble: seven selected templates, and outside the ImageNet family the set's template."""
        return selected_templates(None if "imagenet" in self.name else self.template)

    def advice(self, folder: Path) -> str:
        """How to get the set, with the path of its folder."""
        return self.how.format(folder=folder)

    @property
    def split_file(self) -> str | None:
        """Name of CoOp's split file, or None where folders or official lists define the splits."""
        return self.reader.split_file if isinstance(self.reader, Benchmark) else None

    def folder(self, path: Path) -> Path:
        """The set's folder: ``path`` itself, unless it is a data root with one of ``folders`` in it."""
        return path if self.recognises(path) else (self._below(path) or path)

    def recognises(self, path: Path) -> bool:
        """Whether the split file, or everything that marks this set, is in the folder ``path``."""
        if self.split_file is not None and (path / self.split_file).exists():
            return True
        known = (self.marks, *self.other_marks)
        return any(all((path / mark).exists() for mark in marks) for marks in known if marks)

    def place(self, root: str | Path | None = None) -> Path:
        """The set's folder below the data root; where none exists, CoOp's.

        A root that is the set's own folder is returned as it is.
        """
        base = data_root(root)
        called_so = not self.marks and base.absolute().name in self.folders and is_folder(base)
        return self._below(base) or (base if called_so or self.recognises(base) else base / self.folders[0])

    def _below(self, base: Path) -> Path | None:
        """The first of ``folders`` that exists in ``base``, one with the set's marks before others."""
        places = [base / name for name in self.folders if is_folder(base / name)]
        return next(filter(self.recognises, places), next(iter(places), None))

    def open(self, folder: Path, split: str, which: str | None = None, save: bool = True) -> ImageSet:
        """The photos of one split in the set's folder.

        Args:
            folder: as :meth:`place` or :meth:`folder` give it.
            split: train, val or test.
            which: published, official or generated division; None as
                :mod:`prompt_core.data.catalog.benchmark_splits` says.
            save: keep a generated division in the folder.

        Raises:
            UserError: when something is missing, or ``which``is not a division of this set.
        """
        if which is not None and which not in WHICH:
            raise UserError(f"{self.name}#{which}: expected #{', #'.join(WHICH)}{nearest(which, WHICH)}")
        if isinstance(self.reader, Benchmark):
            return self.reader.open(folder, split, which, save=save)
        if which is not None:
            raise UserError(f"{self.name}#{which}: this data set has one division only; leave #{which} out")
        if not is_folder(folder):
            raise UserError(f"expected {self.name} at {folder}: no such folder")
        return self.reader(folder, split)
