"""A request for a table, top to bottom: check, list or run, print, write."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from pomp_lab.arguments import chosen, whole_numbers
from pomp_lab.runs import Document, RunStore, plain_command
from pomp_lab.tables import laptop, paper
from pomp_lab.tables.data_folders import DataFolders
from pomp_lab.tables.jobs import Inputs, Job, make_jobs
from pomp_lab.tables.plan import Row, Table, check_overrides
from pomp_lab.tables.runner import Runner, check_selection
from pomp_lab.tables.scored_sets import Target, open_target, source_of
from pomp_lab.tables.show import Block, listing, print_blocks, table_blocks, write_blocks
from prompt_core.config import override_pairs
from prompt_core.errors import UserError, nearest
from prompt_core.files import make_output_folder
from prompt_core.visible import say

SCALES = ("paper", "laptop")
TABLES = {(table.scale, table.name): table for table in (*paper.TABLES, *laptop.TABLES)}
NAMES = tuple(table.name for table in paper.TABLES)
# The wording of DATA.SHOTS in notes of tables.
_SHOTS = re.compile(r"\b16 ((?:photos|images) of (?:each|a class))")


@dataclass(frozen=True)
class Request:
    """The arguments of the command line; ``seeds``, ``rows`` and ``datasets`` are None for the table's own.

    Everything is written to ``output``: ``learned/ID`` and ``runs/ID`` with learned methods and their numbers, which
    all tables share, and ``TABLE_SCALE.json`` and ``TABLE_SCALE.md``.
    """

    table: str
    scale: str
    output: Path
    root: Path
    configs: Path
    seeds: str | None = None
    rows: str | None = None
    datasets: str | None = None
    overrides: tuple[str, ...] = ()


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


def reproduce(request: Request, dry_run: bool = False) -> None:
    """Do the missing runs of a table, print and write it; with ``dry_run`` list them and write nothing.

    Raises:
        UserError: a bad request, absent data (one line with what to do).
        KeyboardInterrupt: on Ctrl-C; the same call continues.
    """
    table = find_table(request.table, request.scale)
    store = RunStore(request.output / "runs", request.output / f"{table.name}_{table.scale}.json")
    if table.cost is None:
        blocks = _scored_table(request, table, store, dry_run)
    elif request.seeds or request.datasets or request.overrides:
        raise UserError("table cost is a measurement: it takes no --seeds, no --datasets and no KEY VALUE overrides")
    else:
        from pomp_lab.tables.cost import cost_blocks

        blocks = cost_blocks(table, table.cost, request.rows, store, dry_run)
    print_blocks(blocks)
    if dry_run:
        return
    written = store.results.with_suffix(".md")
    write_blocks(blocks, written)
    say(f"written to {written}")
    if table.cost is None:
        write_page(store, request.output)


def _scored_table(request: Request, table: Table, store: RunStore, dry_run: bool) -> list[Block]:
    rows, folders = table.chosen(request.rows), DataFolders(request.root)
    seeds = table.seeds if request.seeds is None else whole_numbers("--seeds", request.seeds)
    check_overrides(table, rows, [key for key, _ in override_pairs(request.overrides)])
    names = _target_names(request, table, rows, folders)
    needed = dict.fromkeys([*(row.train for row in rows if row.train), *map(source_of, names)])
    absent = {name: line for name in needed if (line := folders.missing(name)) is not None}
    if absent and not dry_run:
        more = f" ({len(absent) - 1} more: --dry-run lists all)" if len(absent) > 1 else ""
        raise UserError(next(iter(absent.values())) + more)
    targets = [open_target(name, folders) for name in names if source_of(name) not in absent]
    runner = Runner(store, request.output / "learned", table.most_texts)

    def make(lists: Path) -> list[Job]:
        return make_jobs(rows, seeds, request.configs, request.overrides, Inputs(folders, lists), absent)

    if dry_run:
        # Missing weights are not downloaded: listing writes nothing.
        with tempfile.TemporaryDirectory() as lists, patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
            blocks = [listing(table, _states(runner, make(Path(lists)), targets, len(names), absent))]
        return [*blocks, Block("Absent data sets", tuple(absent.values()))] if absent else blocks
    jobs = make(make_output_folder(request.output) / "lists")
    documents = runner.run(jobs, targets)
    table = replace(table, note=note_of(table, request.overrides))
    store.write_results({"title": table.title, "note": table.note}, documents)
    of_rows: dict[Row, list[Document]] = {row: [] for row in rows}
    for job in jobs:
        if document := documents.get(job.run.key):
            of_rows[job.row].append(document)
    return table_blocks(table, of_rows, {job.row: job.impossible for job in jobs if job.impossible})


def _target_names(request: Request, table: Table, rows: Sequence[Row], folders: DataFolders) -> list[str]:
    names = list(table.targets)
    if table.whatever_is_there:
        # The training images are not another data set.
        names += [name for name in folders.benchmarks([row.train for row in rows]) if name not in names]
    return chosen(request.datasets, names, "data set", ",")


def _states(
    runner: Runner, jobs: Sequence[Job], targets: Sequence[Target], count: int, absent: Collection[str]
) -> dict[str, str]:
    """What is done and what is missing, for each job.

    Args:
        targets: those of all ``count`` whose images exist.
    """
    check_selection([job for job in jobs if job.row.train not in absent], targets)
    states = {}
    for job in jobs:
        try:
            if job.row.train in absent:
                state = f"data set {job.row.train} is absent"
            elif job.impossible:
                state = f"not possible: {job.impossible}"
            elif (done := len(targets) - len(runner.missing(job, targets))) == count:
                state = "done"
            else:
                state = f"missing: {done} of {count} image sets done"
                state += f", {count - len(targets)} absent" if count > len(targets) else ""
        except UserError as error:
            state = str(error)  # without the weights it is unknown which runs are done
        states[job.label] = state
    return states


def note_of(table: Table, overrides: Sequence[str]) -> str:
    """The note of a table with the settings of the command line, and without what they make untrue."""
    if not overrides:
        return table.note
    given = dict(override_pairs(overrides))
    note = table.note
    if "DATA.SHOTS" in given:
        number = "all" if given["DATA.SHOTS"].startswith("-") else given["DATA.SHOTS"]
        note = _SHOTS.sub(lambda match: f"{number} {match[1]}", note)
    # Folders of the machine are private.
    words = plain_command(" ".join(f"{key} {value}" for key, value in given.items()))
    return f"{note} With {words}.".lstrip()


def write_page(store: RunStore, output: Path) -> None:
    """All numbers of the folder on one page, if there are any and matplotlib is installed."""
    if any(store.folder.glob("*/metrics.json")) and importlib.util.find_spec("matplotlib"):
        from pomp_lab.report.build import write_report

        write_report([store.folder], output)
        say(f"all numbers: {output / 'report.html'}")
