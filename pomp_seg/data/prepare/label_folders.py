"""Folders of label images made from other label images: nothing twice, nothing half, nothing wrong passed over.

Beside each folder lies ``FOLDER.source.json`` with the recipe and, for each label, the sha256 of its source and of the
result. The same again means that there is nothing to do. It also says whether the folder is complete: a run that is
interrupted leaves ``"complete": false``, and registration refuses such a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from pomp_engine.data.derived_files import Outcome, derive_json, source_record, write_compact_json
from pomp_seg.data.label_maps import present_classes, read_label_map
from pomp_seg.data.records import LABEL_ENDINGS, files_by_key
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, check_writable, read_json, sha256_of_file

Convert = Callable[[Any], np.ndarray]
WORKERS = 4


@dataclass(frozen=True)
class Converted:
    """What :func:`convert_labels` did.

    Attributes:
        written, adopted, unchanged: numbers of labels that were made, that were there already with the same pixels,
            and that were made from the same source before.
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
            done = ", ".join(f"{count:,} labels {what}" for what, count in parts.items() if count)
        return done + (f", {self.skipped:,} sources without a labelled pixel" if self.skipped else "")


def convert_labels(
    output: Path,
    sources: Mapping[str, Any],
    recipe: str,
    convert: Convert,
    num_classes: int,
    ignore_label: int = 255,
    overwrite: bool = False,
    workers: int = WORKERS,
    digest: Callable[[Any], str] | None = None,
) -> Converted:
    """Write ``output/KEY.png`` for each source; sources without any labelled pixel give no file.

    Args:
        sources: ``{key: what convert reads}``, files unless ``digest`` is given.
        recipe: name and version of what ``convert`` does; a new version makes the folder anew.
        convert: source to label map, (H, W) integers 0..num_classes-1 and ``ignore_label``.
        overwrite: replace labels that were not made here, or changed since, and remove those of other photos.
        digest: source to the hash that tells whether it changed; default that of the file.

    Raises:
        UserError: when there is no source, a source is damaged or missing, or (without ``overwrite``) the folder holds
            labels of other photos or with other pixels.
    """
    if not sources:
        raise UserError(f"there are no labels to make {output} from; python datasets/check.py says how to get them")
    check_writable(output / "label.png")
    record = source_record(output)
    known = _known(record)
    same_recipe = known.get("recipe") == recipe
    removed = _remove_strangers(output, {f"{key}.png" for key in sources}, overwrite)
    started = _Record(record, known, same_recipe and bool(known.get("complete")) and not removed)
    files_before = known.get("files", {})
    make = (convert, digest or _file_digest, num_classes, ignore_label)
    task = partial(_one, output, sources, files_before, same_recipe, make, overwrite)
    results: dict[str, tuple[str, str, str | None]] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            # The first file that is not as it has to be marks the folder, before it is touched.
            for key, result in zip(sources, pool.map(partial(task, started), sources), strict=True):
                results[key] = result
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    kinds = [kind for kind, _, _ in results.values()]
    wrong = [key for key, (kind, _, _) in results.items() if kind == "wrong"]
    if wrong:
        if not known and "written" not in kinds:
            record.unlink()  # a folder of another tool stays as it was
        raise UserError(
            f"{len(wrong)} of {len(sources)} labels in {output} are there with other content than {recipe} makes, the "
            f"first is {output / wrong[0]}.png; move them away, or give --overwrite"
        )
    written, adopted, unchanged, skipped = map(kinds.count, ("written", "adopted", "unchanged", "skipped"))
    counts = Converted(written, adopted, unchanged, skipped, removed)
    files = {key: [source, made] for key, (_, source, made) in sorted(results.items())}
    if {"recipe": recipe, "complete": True, "files": files} != known:
        write_compact_json(record, {"recipe": recipe, "complete": True, "files": files})
    return counts


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
        UserError: when a file of other content is there and ``overwrite`` is False.
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


def lookup(values: Mapping[int, int], ignore_label: int, ignored: Iterable[int] = ()) -> Convert:
    """Reads a label image and replaces its values; those of ``ignored`` become ``ignore_label``.

    The result raises UserError for any other value, with the file.
    """
    table = {**{int(value): ignore_label for value in ignored}, **values}
    size = max(table) + 1
    array = np.full(size + 1, -1, dtype=np.int32)  # the last one stands for all values beyond the table
    for value, target in table.items():
        array[value] = target

    def convert(path: Path) -> np.ndarray:
        labels = read_label_map(path)
        mapped: np.ndarray = array[np.where((labels < 0) | (labels > size), size, labels)]
        if (mapped < 0).any():
            raise UserError(
                f"label file {path} has the value {labels[mapped < 0][0]}, which is none of the data set's; expected "
                f"{min(values)}..{max(values)} for classes; download the labels again"
            )
        return mapped

    return convert


def write_label_map(path: Path, labels: np.ndarray, num_classes: int) -> None:
    """A label map as PNG, of 8 bits where all of ``num_classes`` and the ignored value 255 fit, else of 16 bits."""
    from PIL import Image

    kind = np.uint8 if num_classes <= 255 else np.uint16
    with atomic_path(path) as temporary:
        Image.fromarray(labels.astype(kind)).save(temporary, "PNG")


class _Record:
    """Marks the folder as incomplete, once, before its first change."""

    def __init__(self, path: Path, known: Mapping[str, Any], complete: bool) -> None:
        self._path, self._known, self._pending, self._lock = path, known, complete, Lock()
        if not complete:
            self._mark()

    def before_change(self) -> None:
        with self._lock:
            if self._pending:
                self._pending = False
                self._mark()

    def _mark(self) -> None:
        # What is known of the files stays: they are compared by their own hashes.
        write_compact_json(self._path, {"recipe": None, "files": {}, **self._known, "complete": False})


def _one(
    output: Path,
    sources: Mapping[str, Any],
    known: Mapping[str, Any],
    same_recipe: bool,
    make: tuple[Convert, Callable[[Any], str], int, int],
    overwrite: bool,
    record: _Record,
    key: str,
) -> tuple[str, str, str | None]:
    """(what was done, sha256 of the source, sha256 of the result) of one label."""
    source, target = sources[key], output / f"{key}.png"
    convert, digest_of, num_classes, ignore_label = make
    digest = digest_of(source)
    before = known.get(key) or [None, None]
    there = sha256_of_file(target) if target.is_file() else None
    if same_recipe and key in known and before[0] == digest and there == before[1]:
        return ("unchanged" if there else "skipped"), digest, there
    labels = convert(source)
    empty = bool((labels == ignore_label).all())
    ours = there is not None and there == before[1]
    if there is not None and not ours and not overwrite:
        same = not empty and _same(target, labels)
        record.before_change()
        return ("adopted" if same else "wrong"), digest, there
    record.before_change()
    if empty:
        target.unlink(missing_ok=True)
        return "skipped", digest, None
    write_label_map(target, labels, num_classes)
    return "written", digest, sha256_of_file(target)


def _file_digest(source: Path) -> str:
    if not source.is_file():
        raise UserError(f"{source} does not exist; the data set needs it; download its labels again")
    return sha256_of_file(source)


def _same(path: Path, labels: np.ndarray) -> bool:
    try:
        found = read_label_map(path)
    except UserError:
        return False
    return found.shape == labels.shape and bool((found == labels).all())


def _remove_strangers(output: Path, names: set[str], overwrite: bool) -> int:
    """Labels in the folder that no source makes: they would join the set unseen."""
    there = sorted(path for path in output.iterdir() if path.suffix.lower() in LABEL_ENDINGS)
    strange = [path for path in there if path.name not in names and not path.name.startswith(".")]
    if strange and not overwrite:
        raise UserError(
            f"{output} holds {len(strange)} labels that do not belong to this set, the first is {strange[0]}; move "
            "them away, or give --overwrite to delete them"
        )
    for path in strange:
        path.unlink()
    return len(strange)


def _known(record: Path) -> dict[str, Any]:
    if not record.is_file():
        return {}
    try:
        value = read_json(record)
    except UserError:
        return {}
    return value if isinstance(value, dict) and isinstance(value.get("files"), dict) else {}


def print_made(made: Mapping[Path, Converted | Outcome]) -> None:
    """One line for each folder and file."""
    for path, outcome in made.items():
        print(f"{path}: {outcome.value if isinstance(outcome, Outcome) else outcome}")
