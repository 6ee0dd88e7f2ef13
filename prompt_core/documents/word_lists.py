"""Files of class names: any of their formats, checked against its schema, as the columns of a vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from prompt_core.documents.bounds import SMALL_BYTES, read_text
from prompt_core.documents.csv_tables import listed, read_table
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import Int64, check, check_each
from prompt_core.errors import UserError

Columns = dict[str, Any]


class SavedVocabulary(msgspec.Struct):
    """What ``Vocabulary.save`` writes."""

    names: list[str]
    ids: list[Int64 | str] | None = None
    synsets: list[str] | None = None
    synonyms: list[list[str]] | None = None
    frequency: list[str] | None = None
    source: str | None = None
    keep_underscores: bool = False


class Category(msgspec.Struct):
    """One of the ``categories`` of a COCO or LVIS file."""

    name: str
    id: Int64 | str | None = None
    synset: str | None = None
    synonyms: list[str] | None = None
    frequency: str | None = None


def read_words(path: Path) -> Columns:
    """The columns of a file of class names, by the names of a vocabulary's fields.

    ``.txt`` has one name per line; ``.csv`` a column ``name`` (and ``id``, ``synset``, ``frequency``, ``synonyms``
    separated by ``|``); ``.json`` a list of names, the object that a vocabulary is saved as, or COCO or LVIS
    ``categories``, which are sorted by their ids.

    Raises:
        UserError: when it is absent, too large, or does not fit its schema.
    """
    return READERS[path.suffix.lower()](path)


def _from_txt(path: Path) -> Columns:
    lines = read_text(path, SMALL_BYTES).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return {"names": [line.strip() for line in lines], "source": path.name}


def _from_csv(path: Path) -> Columns:
    columns, rows = read_table(path, SMALL_BYTES)
    if rows and "name" not in columns:
        raise UserError(f"{path}: a column 'name' is expected, the columns are {listed(columns)}")

    def column(key: str) -> list[str] | None:
        return [row[key].strip() for row in rows] if rows and key in columns else None

    synonyms, ids = column("synonyms"), column("id")
    # COCO's and LVIS's category ids are integers in every results file.
    whole = ids is not None and all(_is_whole(identity) for identity in ids)
    return {
        "names": column("name") or [],
        "ids": [int(identity) for identity in ids or []] if whole else ids,
        "synsets": column("synset"),
        "synonyms": None if synonyms is None else [_split_synonyms(cell) for cell in synonyms],
        "frequency": column("frequency"),
        "source": path.name,
    }


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19 and str(int(text)) == text


def _split_synonyms(cell: str) -> list[str]:
    return [part.strip() for part in cell.split("|") if part.strip()]


def _from_json(path: Path) -> Columns:
    value, place = read_json(path), ""
    if isinstance(value, dict) and "names" in value:
        saved: SavedVocabulary = check(value, SavedVocabulary, path)
        return {**msgspec.structs.asdict(saved), "source": saved.source or path.name}
    if isinstance(value, dict) and isinstance(value.get("categories"), list):
        value, place = value["categories"], "categories"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        check_each(value, Category, path, place)
        return _columns_of_categories(value, path.name)
    if isinstance(value, list):
        return {"names": check(value, list[str], path, place), "source": path.name}
    raise UserError(f"{path}: expected a list of names, an object with 'names', or COCO/LVIS 'categories'")


def _columns_of_categories(categories: list[dict[str, Any]], source: str) -> Columns:
    numbered = all(isinstance(item.get("id"), int) for item in categories)
    ordered = sorted(categories, key=lambda item: item["id"]) if numbered else categories

    def column(key: str) -> list[Any] | None:
        return [item[key] for item in ordered] if all(item.get(key) is not None for item in ordered) else None

    return {
        "names": [item["name"] for item in ordered],
        "ids": column("id"),
        "synsets": column("synset"),
        "synonyms": column("synonyms"),
        "frequency": column("frequency"),
        "source": source,
    }


READERS: dict[str, Callable[[Path], Columns]] = {".txt": _from_txt, ".csv": _from_csv, ".json": _from_json}
