"""Published numbers of a configuration: which rows of ``assets/published.json`` are the run that the file describes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pomp_lab.report.published import PublishedTable, load_published
from pomp_lab.zoo.configurations import ConfigurationFile
from prompt_core.errors import UserError, nearest


@dataclass(frozen=True)
class Published:
    """Numbers of one row of a published table.

    Attributes:
        row: its name there.
        numbers: (heading, number), in percent.
        note: how the published run differs from the file, in words.
        table, source: where they stand.
    """

    row: str
    numbers: tuple[tuple[str, float], ...]
    note: str
    table: str
    source: str


def load_mapping() -> dict[str, Any]:
    """``assets/zoo.json``: ``published`` (see :func:`published`) and ``tables`` (see ``zoo.measured``)."""
    mapping: dict[str, Any] = json.loads(
        (resources.files("pomp_lab") / "assets" / "zoo.json").read_text(encoding="utf-8")
    )
    return mapping


def published(
    files: Mapping[str, ConfigurationFile],
    entries: Sequence[Mapping[str, Any]],
    tables: Sequence[PublishedTable] | None = None,
) -> dict[str, list[Published]]:
    """Published numbers by configuration.

    Args:
        entries: objects with ``configurations`` (names of files), ``table``, ``row``, ``columns`` (headings, or what
            they begin with) and, where the published run differs, a ``note``.

    Raises:
        UserError: for a configuration, table, row or column that is not there.
    """
    by_name = {table.name: table for table in (load_published() if tables is None else tables)}
    found: dict[str, list[Published]] = {}
    for entry in entries:
        table = by_name[_one_of(entry["table"], by_name, "published table")]
        rows = dict(table.rows)
        values = rows[_one_of(entry["row"], rows, f"row of {table.name!r}")]
        chosen: list[tuple[str, float]] = []
        for beginning in entry["columns"]:
            matching = [
                (column.heading, value)
                for column, value in zip(table.columns, values, strict=True)
                if (column.heading == beginning or column.heading.startswith(f"{beginning} ")) and math.isfinite(value)
            ]
            if not matching:
                headings = [column.heading for column in table.columns]
                hint = nearest(beginning, headings)
                raise UserError(
                    f"row {entry['row']!r} of {table.name!r} has no number in {beginning!r}{hint}; "
                    "mend pomp_lab/assets/zoo.json"
                )
            chosen += matching
        for name in entry["configurations"]:
            _one_of(name, files, "configuration")
            numbers = Published(entry["row"], tuple(chosen), entry.get("note", ""), table.name, table.source)
            found.setdefault(name, []).append(numbers)
    return found


def _one_of(name: str, known: Mapping[str, Any], what: str) -> str:
    if name not in known:
        raise UserError(f"no {what} is called {name!r}{nearest(name, known)}; mend pomp_lab/assets/zoo.json")
    return name
