"""Checks of classification data sets: folder, split file, classes and photos, of which a few are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prompt_core.data.catalog.benchmark_splits import OFFICIAL_TEST, Benchmark
from prompt_core.data.catalog.entry import ClassificationEntry, Count
from prompt_core.data.catalog.lookup import NAMES, classification_entry, find_entry
from prompt_core.data.check_photos import count_photos, empty_classes, read_photos, repeated
from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import is_folder
from prompt_core.data.sources import data_set_name, open_images
from prompt_core.data.splits import SPLITS, NoSuchSplit, base_half
from prompt_core.errors import UserError

PRESENT, MISSING, WRONG, BROKEN, OPTIONAL = "present", "missing", "wrong", "broken", "optional"


@dataclass(frozen=True)
class Finding:
    """State of one file or folder of a data set.

    Attributes:
        dataset: the data set's name.
        path: where it is, or belongs.
        state: present, missing, wrong (it opens, but differs from what is expected), broken (it cannot be opened) or
            optional (it is absent, and the group can do without it).
        detail: what was counted, or what is wrong.
        advice: how to get it; empty when it is present.
    """

    dataset: str
    path: Path
    state: str
    detail: str = ""
    advice: str = ""


GROUP = "classification"
# Not part of the group: samples for a laptop.
SMALL = ("tiny_imagenet",)


def is_group(group: str) -> bool:
    """Whether ``group`` is the name or alias of a classification data set, or ``classification`` for all of them."""
    return group == GROUP or find_entry(group) is not None


def check_group(group: str, root: Path) -> list[Finding]:
    """Check one classification data set, or all of them.

    Raises:
        UserError: for an unknown group.
    """
    names = [name for name in NAMES if name not in SMALL] if group == GROUP else [group]
    findings: list[Finding] = []
    for entry in [classification_entry(name) for name in names]:
        try:
            findings += check_entry(entry, root)
        except Exception as error:  # an unforeseen error in one set must not hide what the others lack
            detail = f"cannot be checked: {type(error).__name__}: {error}"
            findings.append(Finding(entry.name, root / entry.folders[0], BROKEN, detail))
    return findings


def check_entry(entry: ClassificationEntry, root: Path) -> list[Finding]:
    """Check the folder, the split file where CoOp has one, and each split; all photos of small splits are decoded.

    Nothing is written: a split that has to be generated is drawn in memory.
    """
    folder = entry.place(root)
    advice = entry.advice(folder)
    if not is_folder(folder):
        return [Finding(entry.name, folder, MISSING, "photos and labels", advice)]
    findings: list[Finding] = []
    reported: set[str] = set()
    if isinstance(entry.reader, Benchmark):
        finding = _split_file(entry.name, entry.reader, folder, advice)
        findings.append(finding)
        reported.add(finding.detail)
    parts, opens = _parts(entry, str(folder), advice)
    findings += parts
    if not opens:
        return findings
    opened: dict[str, ImageSet] = {}
    for split in entry.splits:
        try:
            images = entry.open(folder, split, save=False)
        except NoSuchSplit:
            continue
        except (UserError, OSError) as error:
            if str(error) not in reported:  # what is missing for one split is mostly missing for all
                findings.append(Finding(entry.name, folder, BROKEN, f"{split}: {error}", advice))
            reported.add(str(error))
        else:
            wrong = _unexpected(entry, images, split)
            findings.append(_split(entry.name, folder, split, images, opened, wrong, advice))
            opened[split] = images
    return findings


def check_source(source: str, root: Path) -> list[Finding]:
    """Any other source of :func:`prompt_core.data.sources.open_images`: counts, without expected numbers.

    Classes without photos are only noted, since a split may lack some by design, as training lacks novel ones. Splits
    with the same photos, as in a source without splits, share a row.

    Raises:
        UserError: when no split can be opened.
    """
    rows: dict[str, ImageSet] = {}
    errors: dict[str, Exception] = {}
    for split in SPLITS:
        try:
            images = open_images(source, split, root=root, save=False)
        except UserError as error:
            errors[split] = error
            continue
        same = next((name for name, other in rows.items() if other.keys == images.keys), None)
        if same is not None:
            images = rows.pop(same)
        rows[f"{same}, {split}" if same is not None else split] = images
    if not rows:
        raise next((error for error in errors.values() if not isinstance(error, NoSuchSplit)), errors[SPLITS[0]])
    name = data_set_name(source)
    place = next(iter(rows.values())).root
    findings = [
        Finding(name, place, BROKEN, f"{split}: {error}")
        for split, error in errors.items()
        if not isinstance(error, NoSuchSplit)
    ]
    opened: dict[str, ImageSet] = {}
    for split, images in rows.items():
        findings.append(_split(name, images.root, split, images, opened, [], ""))
        opened[split] = images
    entry = find_entry(source.partition(":")[0])
    return findings if entry is None else [*_parts(entry, source.partition(":")[2], "")[0], *findings]


def _parts(entry: ClassificationEntry, text: str, advice: str) -> tuple[list[Finding], bool]:
    """A row for each part of a set that has some, and whether its splits can be opened."""
    if entry.inspect is None:
        return [], True
    try:
        seen = entry.inspect(text)
    except UserError as error:
        return [Finding(entry.name, Path(text), BROKEN, str(error), advice)], False
    rows = [
        Finding(entry.name, one.path, PRESENT if one.right else WRONG, one.detail, "" if one.right else advice)
        for one in seen
    ]
    return rows, all(one.opens for one in seen)


def _split_file(name: str, reader: Benchmark, folder: Path, advice: str) -> Finding:
    try:
        path = reader.published(folder)
    except UserError as error:
        return Finding(name, folder / reader.split_file, BROKEN, str(error))
    if path is None:
        missing = "published split; numbers of another one cannot be compared"
        return Finding(name, folder / reader.split_file, MISSING, missing, advice)
    return Finding(name, path, PRESENT, "published split")


def _split(
    name: str, place: Path, split: str, images: ImageSet, before: dict[str, ImageSet], wrong: list[str], advice: str
) -> Finding:
    """One row: counts, faults, and the source's notes in parentheses (which division, whose names)."""
    read, faults = read_photos(images)
    wrong = [*wrong, *faults]
    about = images.source.partition(" (")[2].removesuffix(")")
    notes = [f"note: {text}" for text in (*empty_classes(images), *repeated(images, before)) if text not in wrong]
    detail = [f"{split}: {count_photos(images, read)}", *wrong, *notes, *filter(None, [about])]
    return Finding(name, place, WRONG if wrong else PRESENT, "; ".join(detail), advice if wrong else "")


def _unexpected(entry: ClassificationEntry, images: ImageSet, split: str) -> list[str]:
    wrong: list[str] = []
    if len(images.names) != entry.classes.number:
        wrong.append(f"expected {_count_text(entry.classes)} classes")
    if split == entry.splits[-1]:
        whole = images.source.endswith("(official split)") or OFFICIAL_TEST in images.source
        official = entry.official_test if whole else None
        expected = official or entry.test
        if len(images) != expected.number:
            wrong.append(f"expected {_count_text(expected)} photos")
        base = base_half(images)
        if official is None and entry.base_test is not None and len(base) != entry.base_test.number:
            half = f"{len(base):,} photos of the first {len(base.names)} classes"
            wrong.append(f"{half}, expected {_count_text(entry.base_test)}")
    return wrong + empty_classes(images)


def _count_text(count: Count) -> str:
    return f"{count.number:,}" + ("" if count.seen else " (literature)")
