"""What is there of each classification data set: folder, split file, classes and photos, a few of them read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prompt_core.data.base_new import base_half
from prompt_core.data.catalog import NAMES, classification_entry, find_entry
from prompt_core.data.catalog_entry import ClassificationEntry, Count
from prompt_core.data.findings import MISSING, PRESENT, WRONG, Finding
from prompt_core.data.images import ImageSet, UnreadableImage
from prompt_core.errors import UserError

GROUP = "classification"
# Not looked at by the group: samples for a laptop.
SMALL = ("tiny_imagenet",)
READ = 4


def is_group(group: str) -> bool:
    """Whether ``group`` is the name or alias of a classification data set, or ``classification`` for all of them."""
    return group == GROUP or find_entry(group) is not None


def check_group(group: str, root: Path) -> list[Finding]:
    """Look at one classification data set, or at all of them.

    Raises:
        UserError: for an unknown group.
    """
    names = [name for name in NAMES if name not in SMALL] if group == GROUP else [group]
    return [finding for name in names for finding in check_entry(classification_entry(name), root)]


def check_entry(entry: ClassificationEntry, root: Path) -> list[Finding]:
    """The folder, the split file where CoOp has one, and each split; a few photos of the last one are decoded.

    Nothing is written: a split that has to be generated is drawn in memory.
    """
    folder = entry.place(root)
    advice = entry.advice(folder)
    if not folder.is_dir():
        return [Finding(entry.name, folder, MISSING, "photos and labels", advice)]
    findings: list[Finding] = []
    if entry.split_file is not None:
        path = folder / entry.split_file
        there = path.is_file()
        detail = "published split" if there else "published split; numbers of another one cannot be compared"
        findings.append(Finding(entry.name, path, PRESENT if there else MISSING, detail, "" if there else advice))
    said: set[str] = set()
    for split in entry.splits:
        try:
            images = entry.open(folder, split, save=False)
        except UserError as error:
            if str(error) not in said:  # what is missing for one split is mostly missing for all
                findings.append(Finding(entry.name, folder, WRONG, f"{split}: {error}", advice))
            said.add(str(error))
        else:
            findings.append(_split(entry, folder, split, images, decode=split == entry.splits[-1]))
    return findings


def _split(entry: ClassificationEntry, folder: Path, split: str, images: ImageSet, decode: bool) -> Finding:
    counted = f"{split}: {len(images.names):,} classes, {len(images):,} photos"
    wrong = _unexpected(entry, images, split)
    if decode:
        counted += f", {min(READ, len(images))} of them read"
        if unreadable := _unreadable(images):
            wrong.append(f"cannot be read: {unreadable[0]}")
    # what stands in brackets: which division into splits, where the names are from
    detail = "; ".join([counted, *wrong, *filter(None, [images.source.partition(" (")[2].removesuffix(")")])])
    return Finding(entry.name, folder, WRONG if wrong else PRESENT, detail, entry.advice(folder) if wrong else "")


def _unexpected(entry: ClassificationEntry, images: ImageSet, split: str) -> list[str]:
    wrong: list[str] = []
    if len(images.names) != entry.classes.number:
        wrong.append(f"expected {_say(entry.classes)} classes")
    if split == entry.splits[-1]:
        official = entry.official_test is not None and images.source.endswith("(official split)")
        expected = entry.official_test if official and entry.official_test is not None else entry.test
        if len(images) != expected.number:
            wrong.append(f"expected {_say(expected)} photos")
        base = base_half(images)
        if not official and entry.base_test is not None and len(base) != entry.base_test.number:
            half = f"{len(base):,} photos of the first {len(base.names)} classes"
            wrong.append(f"{half}, expected {_say(entry.base_test)}")
    if empty := np.flatnonzero(np.bincount(images.labels, minlength=len(images.names)) == 0).tolist():
        wrong.append(f"{len(empty)} classes have no photos, the first is {images.names[empty[0]]!r}")
    return wrong


def _say(count: Count) -> str:
    return f"{count.number:,}" + ("" if count.seen else " (literature)")


def _unreadable(images: ImageSet) -> list[str]:
    """Of a few photos, spread over the set, those that cannot be decoded."""
    failed: list[str] = []
    for index in sorted({int(place) for place in np.linspace(0, len(images) - 1, READ)}):
        try:
            images.read(index)
        except UnreadableImage as error:
            failed.append(error.key)
    return failed
