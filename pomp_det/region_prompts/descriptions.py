"""What each class is, in words, for the prompt: "name, which is description" (PromptDet, arXiv 2203.16513)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prompt_core.documents.bounds import SMALL_BYTES, read_text
from prompt_core.documents.csv_tables import listed, read_table
from prompt_core.errors import UserError, nearest
from prompt_core.visible import visible_path
from prompt_core.vocabulary import plain_name

_WHICH_IS = "_which_is_"


def read_descriptions(path: Path) -> dict[str, str]:
    """Descriptions by the plain names of classes.

    Args:
        path: a ``.csv`` with the columns ``name`` and ``description``; or PromptDet's
            ``lvis_category_and_description.txt``, whose lines end with ``name_which_is_description``, with underscores
            for spaces.

    Raises:
        UserError: when it is absent, of another format, or describes a class twice.
    """
    if path.suffix.lower() == ".csv":
        columns, rows = read_table(path, SMALL_BYTES)
        if not {"name", "description"} <= set(columns):
            raise UserError(
                f"{visible_path(path)}: 'name' and 'description' are expected as columns, not {listed(columns)}"
            )
        pairs = [(row["name"], row["description"]) for row in rows]
    else:
        lines = [line.strip() for line in read_text(path, SMALL_BYTES).splitlines() if line.strip()]
        parts = [line.split(" ")[-1].partition(_WHICH_IS) for line in lines]
        if not parts or not all(middle for _, middle, _ in parts):
            raise UserError(
                f"{visible_path(path)}: lines that end with name{_WHICH_IS}description, or a .csv, are expected"
            )
        pairs = [(name, text.replace("_", " ")) for name, _, text in parts]
    known: dict[str, str] = {}
    for name, text in pairs:
        if plain_name(name) in known:
            raise UserError(f"{visible_path(path)} describes {name!r} twice; keep one line")
        known[plain_name(name)] = " ".join(text.split()).rstrip(".")
    return known


def described(names: Sequence[str], descriptions: Mapping[str, str]) -> list[str]:
    """``name, which is description`` of each class, for a prompt or a template ``a photo of {}.`` around it.

    A class whose description is empty stays as it is.

    Raises:
        UserError: a class without an entry.
    """
    texts = []
    for name in names:
        text = descriptions.get(plain_name(name))
        if text is None:
            raise UserError(f"class {name!r} has no description{nearest(plain_name(name), list(descriptions))}")
        texts.append(f"{name}, which is {text}" if text else name)
    return texts
