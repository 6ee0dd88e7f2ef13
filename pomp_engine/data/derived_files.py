"""Derived files: made from their inputs, never remade without need, never by name alone.

Beside each derived file lies ``FILE.source.json`` with the sha256 of every input, the recipe and the sha256 of the
result. The same inputs and recipe again mean that there is nothing to do. A file without this record (made by another
tool) is compared by content.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, check_writable, read_json, sha256_of_file, write_json


class Outcome(Enum):
    """What :func:`derive_json` did."""

    WRITTEN = "written"
    UP_TO_DATE = "nothing to do"
    ADOPTED = "already there with the same content"


def source_record(output: Path) -> Path:
    """The file that says what ``output`` was made from."""
    return output.with_name(output.name + ".source.json")


def derive_json(
    output: str | os.PathLike[str],
    inputs: Mapping[str, str],
    recipe: str,
    build: Callable[[], Any],
    overwrite: bool = False,
) -> Outcome:
    """Write ``build()`` as compact JSON to ``output``, unless it is there already.

    Args:
        inputs: what the result depends on: a name and a sha256 each (:func:`file_inputs`).
        recipe: name and version of what ``build`` does; a new version remakes the file.
        overwrite: also replace a file that this function did not write.

    Raises:
        UserError: when a file of other content is there that was not made here, and ``overwrite`` is False.
    """
    target = Path(output)
    record = source_record(target)
    wanted = {"recipe": recipe, "inputs": dict(inputs)}
    known = _read_record(record)
    intact = target.is_file() and known is not None and known.get("output_sha256") == sha256_of_file(target)
    if intact and known is not None and {key: known.get(key) for key in wanted} == wanted:
        return Outcome.UP_TO_DATE
    check_writable(target)
    value = build()
    outcome = Outcome.WRITTEN
    if target.is_file() and not intact and not overwrite:
        if read_json(target) != json.loads(json.dumps(value)):
            raise UserError(
                f"{target} is there with other content than {recipe} makes of {', '.join(inputs)}; "
                "move it away, or give --overwrite"
            )
        outcome = Outcome.ADOPTED
    else:
        write_compact_json(target, value)
    write_json(record, {**wanted, "output_sha256": sha256_of_file(target)})
    return outcome


def state_of(output: Path, inputs: Mapping[str, str] | None = None) -> str | None:
    """Why a derived file is out of date, or None when it is not (or nothing is known of how it was made)."""
    known = _read_record(source_record(output))
    if known is None:
        return None
    if known.get("output_sha256") != sha256_of_file(output):
        return "changed since it was made; delete it and prepare it again"
    if inputs is not None and known.get("inputs") != dict(inputs):
        return "made from other inputs than the present ones; prepare it again"
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


def preparation_parser(description: str | None) -> ArgumentParser:
    """The options that all preparation scripts share; the first line of ``description`` is shown."""
    parser = ArgumentParser(description=(description or "").partition("\n")[0])
    add_root(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that were made otherwise")
    return parser


def add_root(parser: ArgumentParser) -> None:
    """``--root``, see :func:`prompt_core.files.data_root`."""
    parser.add_argument("--root", metavar="DIR", help="data root (default: POMP_DATA, else datasets)")


def print_outcomes(made: Mapping[Path, Outcome]) -> None:
    """One line for each derived file."""
    for path, outcome in made.items():
        print(f"{path}: {outcome.value}")


def _read_record(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = read_json(path)
    except UserError:
        return None
    return value if isinstance(value, dict) else None
