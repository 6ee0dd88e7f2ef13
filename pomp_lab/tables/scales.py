"""All tables by scale and name."""

from __future__ import annotations

from pomp_lab.tables import laptop as tables_laptop
from pomp_lab.tables import paper as tables_paper
from pomp_lab.tables.plan import Table
from prompt_core.errors import UserError, nearest

SCALES = ("paper", "laptop")
TABLES: dict[tuple[str, str], Table] = {
    (table.scale, table.name): table for table in (*tables_paper.TABLES, *tables_laptop.TABLES)
}
NAMES = tuple(table.name for table in tables_paper.TABLES)


def find_table(name: str, scale: str) -> Table:
    """A table by name.

    Raises:
        UserError: an unknown name or scale.
    """
    if scale not in SCALES:
        raise UserError(f"--scale is {scale!r}; expected {' or '.join(SCALES)}")
    if name not in NAMES:
        raise UserError(f"unknown table {name!r}{nearest(name, NAMES)}; expected one of {', '.join(NAMES)}")
    return TABLES[scale, name]
