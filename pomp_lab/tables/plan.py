"""The definition of a table: rows to learn and score, the sets they are scored on, the published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pomp_lab.arguments import chosen
from prompt_core.errors import UserError

Settings = tuple[tuple[str, str], ...]
# Chosen by the table and the command line: the data, and what distinguishes runs.
RESERVED = (
    "DATA.TRAIN",
    "DATA.CLASSES",
    "DATA.VOCABULARY",
    "SEED",
    "OUTPUT",
    "EVAL.DATASETS",
    "EVAL.SPLIT",
    "EVAL.CLASSES",
    "EVAL.VOCABULARY",
)


@dataclass(frozen=True)
class Published:
    """The published numbers that a row reproduces.

    Attributes:
        table: its name in ``assets/published.json``.
        row: of that table.
        model: the backbone, where its columns have different ones.
        column: one column, for tables whose columns are settings of the row; ``dataset`` is its data set.
    """

    table: str
    row: str
    model: str = ""
    column: str = ""
    dataset: str = ""


@dataclass(frozen=True)
class Row:
    """One way to classify.

    Attributes:
        name: in the table.
        config: file below ``configs/prompt``.
        train: name of the training images (:mod:`pomp_lab.tables.data_folders`); empty where nothing is learned.
        wide: negatives come from the wide vocabulary of the training images instead of their own classes.
        settings: the settings that define the row; the command line cannot change them.
        budget: how long it learns, and the like; the command line can change it.
        published: the numbers that it reproduces.
    """

    name: str
    config: str
    train: str = ""
    wide: bool = False
    settings: Settings = ()
    budget: Settings = ()
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What the table of costs measures.

    Attributes:
        clip: architecture.
        vocabulary: where the names of most rows come from.
        sampled: K of POMP's rows.
        wide: a larger vocabulary for two more rows; empty for none.
    """

    clip: str
    vocabulary: str
    sampled: tuple[int, ...]
    wide: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the paper at one scale.

    Attributes:
        note: what a reader must know about it.
        targets: names of what is scored (:mod:`pomp_lab.tables.scored_sets`).
        metrics: the metrics that are shown.
        published: published tables that are shown below.
        whatever_is_there: also score all catalogued data sets below the data root.
        most_texts: a method whose class features differ from image to image leaves out a column of more texts.
        cost: of a table that is measured instead of learned and scored; it has no rows of its own.
    """

    name: str
    scale: str
    title: str
    note: str
    rows: tuple[Row, ...]
    targets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (42,)
    metrics: tuple[str, ...] = ("top1",)
    published: tuple[str, ...] = ()
    whatever_is_there: bool = False
    most_texts: int | None = None
    cost: Cost | None = None

    def chosen(self, names: str | None) -> list[Row]:
        """Rows by name, separated by ``;``; all for None.

        Raises:
            UserError: an unknown name.
        """
        known = {row.name: row for row in self.rows}
        return [known[name] for name in chosen(names, known, "row")]


def check_overrides(table: Table, rows: Sequence[Row], keys: Sequence[str]) -> None:
    """Refuse overrides of what defines the table or its rows.

    Raises:
        UserError: naming the first such key.
    """
    for key in keys:
        if key in RESERVED:
            raise UserError(
                f"{key} is the table's own choice; leave it out, or use --root, --seeds, --rows or --datasets instead"
            )
        owners = [row.name for row in rows if key in dict(row.settings)]
        if owners:
            raise UserError(
                f"{key} defines row {owners[0]!r} of table {table.name}; leave it out, or choose other --rows"
            )
