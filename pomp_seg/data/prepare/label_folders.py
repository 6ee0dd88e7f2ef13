"""Folders of label images made from other label images, incrementally, resumably and checked against a manifest.

Next to each folder is ``FOLDER.source.json`` with the recipe and, for each label, the sha256 of its source and of the
result. If they match there is nothing to do. It also records whether the folder is complete: an interrupted run leaves
``"complete": false``, and registration refuses such a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pomp_engine.data.derived_files import Outcome, derive_json, read_record, source_record, write_compact_json
from pomp_seg.data.label_maps import present_classes, read_label_map, write_label_map
from pomp_seg.data.records import LABEL_ENDINGS, files_by_key
from prompt_core.errors import UserError
from prompt_core.files import check_writable, sha256_of_file

WORKERS = 4


@dataclass(frozen=True)
class Converted:
    """What :func:`convert_labels` did.

    Attributes:
        written, adopted, unchanged: numbers of labels that were made, that already existed with the same pixels, and
            that had been made from the same source before.
        skipped: sources without any labelled pixel.
        removed: labels that do not belong to the set.
    """

    written: int
    adopted: int
    unchanged: int
    skipped: int
    removed: int = 0

    def __str__(self) -> str:
        if not self.written and not self.adopted and not self.removed:
            done = f"nothing to do, {self.unchanged:,} labels"
        else:
            parts = {"written": self.written, "already there with the same pixels": self.adopted}
            parts |= {"unchanged": self.unchanged, "removed": self.removed}
            done = ", ".join(f"{count:,} labels {state}" for state, count in parts.items() if count)
        return done + (f", {self.skipped:,} sources without a labelled pixel" if self.skipped else "")


Made = dict[Path, Converted | Outcome]
"""What was done for each folder and file of a preparation."""


def convert_labels(
    output: Path,
    sources: Mapping[str, Any],
    recipe: str,
    convert: Callable[[Any], np.ndarray],
    num_classes: int,
    ignore_label: int = 255,
    overwrite: bool = False,
    workers: int = WORKERS,
    digest: Callable[[Any], str] | None = None,
) -> Converted:
    """Write ``output/KEY.png`` for each source; sources without any labelled pixel give no file.

    Args:
        sources: ``{key: what convert reads}``, files unless ``digest`` is given.
        recipe: name and version of what ``convert`` does; a new version remakes the folder.
        convert: source to label map, (H, W) integers 0..num_classes-1 and ``ignore_label``.
        overwrite: replace labels that were not made here or have changed since, and remove those of other photos.
        digest: source to a hash that shows whether it changed; default that of the file.

    Raises:
        UserError: when there is no source, a source is damaged or missing, or (without ``overwrite``) the folder holds
            labels of other photos or with other pixels.
    """
    if not sources:
        raise UserError(f"there are no labels to make {output} from; python datasets/check.py says how to get them")
    check_writable(output / "label.png")
    record = read_record(output) or {}
    if not isinstance(record.get("files"), dict):
        record = {}
    before = record.get("files", {})
    removed = _remove_foreign(output, {f"{key}.png" for key in sources}, overwrite)

    def sha256_of_source(key: str) -> str:
        return (digest or _file_digest)(sources[key])

    def sha256_of_label(key: str) -> str | None:
        path = output / f"{key}.png"
        return sha256_of_file(path) if path.is_file() else None

    def make(key: str) -> tuple[str, str | None]:
        """What was done for one label, and the sha256 of the result."""
        path, ours = output / f"{key}.png", label_hashes[key] == before.get(key, [None, None])[1]
        labels = convert(sources[key])
        empty = bool((labels == ignore_label).all())
        if label_hashes[key] is not None and not ours and not overwrite:
            return ("adopted" if not empty and _same_pixels(path, labels) else "wrong"), label_hashes[key]
        if empty:
            path.unlink(missing_ok=True)
            return "skipped", None
        write_label_map(path, labels, num_classes)
        return "written", sha256_of_file(path)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        source_hashes = dict(zip(sources, pool.map(sha256_of_source, sources), strict=True))
        label_hashes = dict(zip(sources, pool.map(sha256_of_label, sources), strict=True))
        same_recipe = record.get("recipe") == recipe
        current = [key for key in sources if same_recipe and before.get(key) == [source_hashes[key], label_hashes[key]]]
        results = {key: ("unchanged" if label_hashes[key] else "skipped", label_hashes[key]) for key in current}
        pending = [key for key in sources if key not in results]
        if pending or removed or not record.get("complete"):
            # Marked before anything changes. The records of the files stay: files are compared by their own hashes.
            marked = {"recipe": None, "files": {}, **record, "complete": False}
            write_compact_json(source_record(output), marked)
        try:
            results |= zip(pending, pool.map(make, pending), strict=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    kinds = [results[key][0] for key in sources]
    if "wrong" in kinds:
        if not record and "written" not in kinds:
            source_record(output).unlink()  # a folder of another tool stays as it was
        first = list(sources)[kinds.index("wrong")]
        raise UserError(
            f"{kinds.count('wrong')} of {len(sources)} labels in {output} are not what {recipe} "
            f"makes, the first is {output / first}.png; move them away, or give --overwrite"
        )
    files = {key: [source_hashes[key], results[key][1]] for key in sorted(sources)}
    if {"recipe": recipe, "complete": True, "files": files} != record:
        write_compact_json(source_record(output), {"recipe": recipe, "complete": True, "files": files})
    counts = {kind: kinds.count(kind) for kind in ("written", "adopted", "unchanged", "skipped")}
    return Converted(**counts, removed=removed)


def count_labels(
    labels: Path,
    output: Path,
    ignore_label: int = 255,
    overwrite: bool = False,
    inputs: Mapping[str, str] | None = None,
) -> Outcome:
    """Write ``{label file: [classes in it]}``, as ZSSeg's tools do, for prompt tuning on regions.

    Args:
        labels: folder of label images.
        inputs: what the labels depend on, for a folder that :func:`convert_labels` did not make.

    Raises:
        UserError: when a file with other content exists and ``overwrite`` is False.
    """
    if inputs is None:
        record = source_record(labels)
        inputs = {record.name: sha256_of_file(record)}

    def build() -> dict[str, list[int]]:
        files = sorted(files_by_key(labels, LABEL_ENDINGS).values())
        with ThreadPoolExecutor(WORKERS) as pool:
            present = pool.map(lambda file: present_classes(read_label_map(file), ignore_label).tolist(), files)
            return {Path(file).name: classes for file, classes in zip(files, present, strict=True)}

    return derive_json(output, inputs, "classes of each label, 1", build, overwrite)


def lookup(values: Mapping[int, int], ignore_label: int, ignored: Iterable[int] = ()) -> Callable[[Path], np.ndarray]:
    """A reader of label images that replaces their values; those of ``ignored`` become ``ignore_label``.

    The result raises UserError for any other value, with the file.
    """
    table = {**{int(value): ignore_label for value in ignored}, **values}
    size = max(table) + 1
    array = np.full(size + 1, -1, dtype=np.int32)  # the last entry stands for all values beyond the table
    for value, target in table.items():
        array[value] = target

    def convert(path: Path) -> np.ndarray:
        labels = read_label_map(path)
        mapped: np.ndarray = array[np.where((labels < 0) | (labels > size), size, labels)]
        if (mapped < 0).any():
            raise UserError(
                f"label file {path} has the value {labels[mapped < 0][0]}, which is not one of the data set's; "
                f"expected {min(values)}..{max(values)} for classes; download the labels again"
            )
        return mapped

    return convert


def _file_digest(source: Path) -> str:
    if not source.is_file():
        raise UserError(f"{source} does not exist; the data set needs it; download its labels again")
    return sha256_of_file(source)


def _same_pixels(path: Path, labels: np.ndarray) -> bool:
    try:
        present = read_label_map(path)
    except UserError:
        return False
    return present.shape == labels.shape and bool((present == labels).all())


def _remove_foreign(output: Path, names: set[str], overwrite: bool) -> int:
    """Remove labels in the folder that belong to no source: they would silently join the set."""
    labels = sorted(path for path in output.iterdir() if path.suffix.lower() in LABEL_ENDINGS)
    foreign = [path for path in labels if path.name not in names and not path.name.startswith(".")]
    if foreign and not overwrite:
        raise UserError(
            f"{output} holds {len(foreign)} labels that do not belong to this set, the first is {foreign[0]}; move "
            "them away, or give --overwrite to delete them"
        )
    for path in foreign:
        path.unlink()
    return len(foreign)
