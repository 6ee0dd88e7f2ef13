"""Derived files: made from their inputs, and remade only when these or the recipe change.

Next to each derived file or folder is ``NAME.source.json``, the manifest of what it was made from: the recipe, and the
sha256 of every input and of the result. With the same inputs and recipe there is nothing to do. A file without this
record (made by another tool) is compared by content. Folders of labels keep a record of each file:
:mod:`pomp_seg.data.prepare.label_folders`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from prompt_core.errors import UserError
from prompt_core.files import atomic_path, check_writable, read_json, sha256_of_file, write_json


class Outcome(Enum):
    """What :func:`derive_json` did."""

    WRITTEN = "written"
    UP_TO_DATE = "nothing to do"
    ADOPTED = "already there with the same content"

    def __str__(self) -> str:
        return str(self.value)


def source_record(output: Path) -> Path:
    """The path of the record of what ``output`` was made from."""
    return output.with_name(output.name + ".source.json")


def read_record(output: Path) -> dict[str, Any] | None:
    """The record of what ``output`` was made from; None when there is none, or it is damaged."""
    path = source_record(output)
    try:
        record = read_json(path) if path.is_file() else None
    except UserError:
        return None
    return record if isinstance(record, dict) else None


def derive_json(
    output: str | os.PathLike[str],
    inputs: Mapping[str, str],
    recipe: str,
    build: Callable[[], Any],
    overwrite: bool = False,
) -> Outcome:
    """Write ``build()`` as compact JSON to ``output``, unless it exists and is up to date.

    Args:
        inputs: name → sha256 of everything that the result depends on (:func:`file_inputs`).
        recipe: name and version of what ``build`` does; a new version remakes the file.
        overwrite: also replace a file that this function did not write.

    Raises:
        UserError: when a file with other content exists that was not made here, and ``overwrite`` is False.
    """
    target = Path(output)
    wanted = {"recipe": recipe, "inputs": dict(inputs)}
    record = read_record(target) or {}
    intact = target.is_file() and record.get("output_sha256") == sha256_of_file(target)
    if intact and {key: record.get(key) for key in wanted} == wanted:
        return Outcome.UP_TO_DATE
    check_writable(target)
    value = build()
    outcome = Outcome.WRITTEN
    if target.is_file() and not intact and not overwrite:
        if read_json(target) != json.loads(json.dumps(value)):
            raise UserError(
                f"{target} exists, but is not what {recipe} makes from {', '.join(inputs)}; move it away, or give "
                "--overwrite"
            )
        outcome = Outcome.ADOPTED
    else:
        write_compact_json(target, value)
    write_json(source_record(target), {**wanted, "output_sha256": sha256_of_file(target)})
    return outcome


def state_of(output: Path, inputs: Mapping[str, str] | None = None) -> str | None:
    """Why a derived file is out of date, or None when it is up to date or has no record."""
    record = read_record(output)
    if record is None:
        return None
    if record.get("output_sha256") != sha256_of_file(output):
        return "changed since it was made; delete it and prepare it again"
    if inputs is not None and record.get("inputs") != dict(inputs):
        return "its inputs have changed since it was made; prepare it again"
    return None


def file_inputs(root: Path, *paths: Path) -> dict[str, str]:
    """Inputs for :func:`derive_json`: names relative to ``root`` and sha256.

    Raises:
        UserError: when one does not exist.
    """
    inputs = {}
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} does not exist; it is needed to prepare this data set")
        name = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        inputs[name.as_posix()] = sha256_of_file(path)
    return inputs


def write_compact_json(path: Path, value: Any) -> None:
    """JSON without indentation, atomically: annotation files hold millions of numbers.

    Raises:
        UserError: when it cannot be written.
    """
    try:
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
            json.dump(value, stream, separators=(",", ":"), ensure_ascii=False)
            stream.write("\n")
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space, or use another disk"
        ) from error
