"""The facts that a folder of shapes holds about itself, checked where others read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from prompt_core.documents.bounds import SMALL_BYTES
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import check


class _Row(msgspec.Struct):
    id: int
    name: str
    split: Literal["base", "novel"]
    colour: str
    pattern: str
    shape: str


class _Rows(msgspec.Struct):
    classes: Annotated[list[_Row], msgspec.Meta(min_length=1)]


class _Options(msgspec.Struct):
    classes: Annotated[int, msgspec.Meta(ge=1)]


class _Manifest(msgspec.Struct):
    options: _Options


def class_rows(shapes: Path) -> list[dict[str, Any]]:
    """The classes of ``classes.json``: ``id``, ``name``, ``split`` (base or novel), attributes and more.

    Raises:
        UserError: when the file is absent, damaged or another document.
    """
    document = read_json(shapes / "classes.json", SMALL_BYTES)
    check(document, _Rows, shapes / "classes.json")
    rows: list[dict[str, Any]] = document["classes"]
    return rows


def shape_options(shapes: Path) -> dict[str, Any]:
    """The options of ``shapes.json`` that the folder was made with.

    Raises:
        UserError: as :func:`class_rows`.
    """
    document = read_json(shapes / "shapes.json", SMALL_BYTES)
    check(document, _Manifest, shapes / "shapes.json")
    options: dict[str, Any] = document["options"]
    return options
