"""Photos in one CSV table that lists them with their classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import inside, require_file, require_photos
from prompt_core.data.readers.folder import wordnet_names
from prompt_core.documents.csv_tables import listed, read_table
from prompt_core.errors import UserError, nearest


def photo_list(
    root: str | Path,
    csv_file: str | Path = "labels.csv",
    file_column: str = "file",
    wnid_column: str | None = "wnid",
    name_column: str | None = "class_name",
) -> ImageSet:
    """A CSV table with one row per photo: its path, and a wnid or a class name (or both).

    A missing column counts as not given. Classes are the sorted wnids, or without them the sorted names. With both, a
    name such as "tench, Tinca tinca" is a list of WordNet synonyms and its first entry is taken; with only wnids the
    names are WordNet lemmas; names without wnids are taken as they are.

    Args:
        root: the folder that paths in the table are relative to.
        csv_file: the table, relative to ``root`` or absolute; UTF-8 with a header line.

    Raises:
        UserError: when the table, a needed column or a listed photo is missing, a path leads out of ``root``, or a wnid
            has two names.
    """
    root = Path(root)
    path = require_file(root / csv_file, "a table of photos")
    columns, rows = read_table(path)
    if file_column not in columns:
        raise UserError(f"{path} has no column {file_column!r}, only {listed(columns)}{nearest(file_column, columns)}")
    wnid_column = wnid_column if wnid_column in columns else None
    name_column = name_column if name_column in columns else None
    id_column = wnid_column or name_column
    if id_column is None:
        raise UserError(f"{path} needs a column of wnids or class names, it has only {listed(columns)}")
    if not rows:
        raise UserError(f"{path} lists no photos: expected one row per photo")
    name_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if not row[file_column] or not row[id_column]:
            raise UserError(f"{path}, row {number}: {file_column!r} or {id_column!r} is empty")
        inside(row[file_column], f"{path}, row {number}")
        name = row[name_column] if name_column else row[id_column]
        if name_of.setdefault(row[id_column], name) != name:
            raise UserError(f"{path}, row {number}: {row[id_column]} is named {name!r} and {name_of[row[id_column]]!r}")
    ids = sorted(name_of)
    if name_column is None:
        known = wordnet_names(ids)
        names = [known.get(wnid, wnid) for wnid in ids]
    elif wnid_column is not None:
        names = [name_of[wnid].split(",")[0].strip() or wnid for wnid in ids]
    else:
        names = ids
    label_of = {class_id: label for label, class_id in enumerate(ids)}
    keys = [row[file_column] for row in rows]
    require_photos(root, keys, path)
    labels = [label_of[row[id_column]] for row in rows]
    return ImageSet(names, ids, np.asarray(labels), keys, f"csv:{root.name}/{path.name}", root)
