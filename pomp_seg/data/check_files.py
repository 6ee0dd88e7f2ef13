"""Checks of segmentation data sets: what is present, missing or wrong, and how to get it."""

from __future__ import annotations

from pathlib import Path

from pomp_engine.data.derived_files import source_record
from pomp_seg.data.catalog import CATALOG, SegmentationEntry
from pomp_seg.data.label_sets import entry_classes
from pomp_seg.data.records import LABEL_ENDINGS, check_prepared, files_by_key, label_folder, load_records
from prompt_core.data.check import MISSING, PRESENT, WRONG, Finding
from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_file


def check_group(group: str, root: Path) -> list[Finding]:
    """Check every data set of a group of :data:`pomp_seg.data.catalog.GROUPS`.

    Raises:
        UserError: for an unknown group.
    """
    return CATALOG.check(group, root, check_entry)


def check_entry(entry: SegmentationEntry, root: Path) -> list[Finding]:
    """The labels (their number, and whether they are unchanged), the photos, classes and label counts."""
    folder = label_folder(entry, root)
    findings = [_labels(entry, root)]
    if not folder.images.is_dir():
        findings.append(Finding(entry.name, folder.images, MISSING, "photos", entry.images_advice(root)))
    if any(finding.state != PRESENT for finding in findings):
        return findings
    try:
        records = load_records(folder, len(entry_classes(entry, root)))
        photos = len({record["file_name"] for record in records})
    except UserError as error:
        return [*findings, Finding(entry.name, folder.images, WRONG, str(error), entry.images_advice(root))]
    findings.append(Finding(entry.name, folder.images, PRESENT, f"{photos:,} photos"))
    if folder.label_counts is not None:
        findings.append(Finding(entry.name, folder.label_counts, PRESENT, f"{len(records):,} pairs of photo and class"))
    return findings


def _labels(entry: SegmentationEntry, root: Path) -> Finding:
    path, advice = root / entry.labels, entry.advice(root)
    if not path.is_dir():
        return Finding(entry.name, path, MISSING, "labels", advice)
    try:
        entry_classes(entry, root)
        files = files_by_key(path, LABEL_ENDINGS, entry.label_suffix)
        if (root / entry.images[0]).is_dir() or entry.image_folder(root).is_dir():
            check_prepared(label_folder(entry, root))
        skipped, wrong = _as_made(path)
    except UserError as error:
        return Finding(entry.name, path, WRONG, str(error), advice)
    counted = f"{len(files):,} labels" + (f", {skipped:,} sources without a labelled pixel" if skipped else "")
    if wrong is None and entry.image_count is not None and len(files) + skipped != entry.image_count:
        wrong = f"{counted}; the published set has {entry.image_count:,}"
    return Finding(entry.name, path, WRONG if wrong else PRESENT, wrong or counted, advice if wrong else "")


def _as_made(folder: Path) -> tuple[int, str | None]:
    """(sources without a label, fault or None) of a folder that was prepared here; (0, None) for any other."""
    record = source_record(folder)
    if not record.is_file():
        return 0, None
    known = read_json(record)
    if not isinstance(known, dict) or not isinstance(known.get("files"), dict):
        return 0, f"{record} is damaged; prepare the labels again"
    changed = [
        key
        for key, (_, made) in known["files"].items()
        if made is not None and (not (folder / f"{key}.png").is_file() or sha256_of_file(folder / f"{key}.png") != made)
    ]
    skipped = sum(made is None for _, made in known["files"].values())
    if changed:
        return skipped, f"{len(changed)} labels changed since they were made, the first is {changed[0]}.png"
    strange = sorted(set(files_by_key(folder, LABEL_ENDINGS)) - set(known["files"]))
    if strange:
        return skipped, f"{len(strange)} labels do not belong to this set, the first is {strange[0]}.png"
    return skipped, None
