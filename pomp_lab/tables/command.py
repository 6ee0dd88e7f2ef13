"""A request for a table, top to bottom: check, list or run, print, write."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pomp_lab.runs import Document, RunStore, plain_command
from pomp_lab.tables import laptop, paper
from pomp_lab.tables.data_folders import DataFolders
from pomp_lab.tables.jobs import Inputs, Job, make_jobs
from pomp_lab.tables.plan import Row, Table, check_overrides, parse_seeds
from pomp_lab.tables.runner import TableRunner
from pomp_lab.tables.scored_sets import source_of
from pomp_lab.tables.show import Block, print_blocks, read_line, table_blocks, write_blocks
from prompt_core.config import override_pairs
from prompt_core.errors import UserError, nearest
from prompt_core.files import make_output_folder

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


def reproduce(request: Request, dry_run: bool = False) -> list[Block]:
    """Do the missing runs of a table, print and write it; with ``dry_run`` list them and write nothing.

    Returns:
        what was printed.

    Raises:
        UserError: a bad request, absent data (one line with what to do).
        KeyboardInterrupt: on Ctrl-C; the same call continues.
    """
    table = find_table(request.table, request.scale)
    results = request.output / f"{table.name}_{table.scale}.json"
    store = RunStore(request.output / "runs", results, lambda line: print(line, flush=True))
    if table.measured:
        return _cost(request, table, store, dry_run)
    seeds, rows = parse_seeds(request.seeds, table), table.chosen(request.rows)
    check_overrides(table, rows, [key for key, _ in override_pairs(request.overrides)])
    folders = DataFolders(request.root)
    targets = _targets(request, table, rows, folders)
    needed = [*(row.train for row in rows if row.train), *map(source_of, targets)]
    absent = {name: line for name in dict.fromkeys(needed) if (line := folders.missing(name)) is not None}
    if dry_run:
        blocks = _listing(request, table, store, rows, seeds, targets, absent)
        print_blocks(blocks)
        return blocks
    if absent:
        more = f" ({len(absent) - 1} more: --dry-run lists all)" if len(absent) > 1 else ""
        raise UserError(next(iter(absent.values())) + more)
    make_output_folder(request.output)
    inputs = Inputs(folders, request.output / "lists")
    runner = TableRunner(table, inputs, store, request.output / "learned", lambda line: print(line, flush=True))
    jobs = make_jobs(rows, seeds, request.configs, request.overrides, inputs)
    runner.run(jobs, targets)
    documents = {
        runner.run_of(job).key: document for job in jobs if (document := runner.document(job, targets)) is not None
    }
    table = replace(table, note=note_of(table, request.overrides))
    _write(table, store, documents)
    lines = []
    for row in rows:
        of_row = [job for job in jobs if job.row == row]
        reason = runner.impossible(of_row[0])
        of_seeds = [documents[key] for job in of_row if (key := runner.run_of(job).key) in documents]
        lines.append(read_line(row, of_seeds, f"not possible here: {reason}" if reason else ""))
    blocks = table_blocks(table, lines)
    print_blocks(blocks)
    write_blocks(blocks, results.with_suffix(".md"))
    print(f"written to {results.with_suffix('.md')}")
    _report(store, request.output)
    return blocks


def _targets(request: Request, table: Table, rows: Sequence[Row], folders: DataFolders) -> list[str]:
    targets = list(table.targets)
    if table.whatever_is_there:
        # The training images are not another data set.
        targets += [name for name in folders.benchmarks([row.train for row in rows]) if name not in targets]
    if request.datasets is None:
        return targets
    wanted = [name.strip() for name in request.datasets.split(",")]
    for name in wanted:
        if name not in targets:
            raise UserError(
                f"table {table.name} scores no {name!r}{nearest(name, targets)}; expected some of {', '.join(targets)}"
            )
    return wanted


def _listing(
    request: Request,
    table: Table,
    store: RunStore,
    rows: Sequence[Row],
    seeds: Sequence[int],
    targets: Sequence[str],
    absent: dict[str, str],
) -> list[Block]:
    """What is done and what is missing, and which data sets are absent and how to get them."""
    present = [name for name in targets if source_of(name) not in absent]
    with tempfile.TemporaryDirectory() as lists, _without_downloads():
        inputs = Inputs(DataFolders(request.root), Path(lists))
        jobs = make_jobs(rows, seeds, request.configs, request.overrides, inputs, list(absent))
        runner = TableRunner(table, inputs, store, request.output / "learned")
        possible = [job for job in jobs if job.row.train not in absent]
        runner.check_selection(possible, present)
        states = {job: _state(runner, job, present, len(targets)) for job in possible}
    lines = [(job.label, states.get(job, f"data set {job.row.train} is absent")) for job in jobs]
    done = sum(state == "done" for _, state in lines)
    blocks = [Block(table.title, (f"{done} of {len(lines)} runs done.",), ("run", "state"), tuple(lines))]
    return [*blocks, Block("Absent data sets", tuple(absent.values()))] if absent else blocks


def _state(runner: TableRunner, job: Job, present: Sequence[str], count: int) -> str:
    try:
        if reason := runner.impossible(job):
            return f"not possible: {reason}"
        done = len(present) - len(runner.missing(job, present))
    except UserError as error:
        return str(error)  # without the weights it is unknown which runs are done
    if done == count:
        return "done"
    note = f", {count - len(present)} absent" if count > len(present) else ""
    return f"missing: {done} of {count} image sets done{note}"


@contextlib.contextmanager
def _without_downloads() -> Iterator[None]:
    """Do not download missing weights: listing writes nothing."""
    import huggingface_hub.constants as constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


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
    return f"{note} With {words}." if note else f"With {words}."


def _write(table: Table, store: RunStore, documents: dict[str, Document]) -> None:
    """The results file, which can be moved by itself."""
    store.write_results({"command": plain_command(), "title": table.title, "note": table.note}, documents)


def _report(store: RunStore, output: Path) -> None:
    """All numbers of the folder on one page, if there are any and matplotlib is installed."""
    if not any(store.folder.glob("*/metrics.json")):
        return
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    from pomp_lab.report.build import write_report

    write_report([store.folder], output)
    print(f"all numbers: {output / 'report.html'}")


def _cost(request: Request, table: Table, store: RunStore, dry_run: bool) -> list[Block]:
    import torch

    from pomp_lab.tables import cost

    if request.seeds or request.datasets or request.overrides:
        raise UserError("table cost is a measurement: it takes no --seeds, no --datasets and no KEY VALUE overrides")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    jobs = cost.cost_jobs(table, device, torch.get_num_threads())
    chosen = replace(table, rows=tuple(Row(name, "") for name in jobs)).chosen(request.rows)
    jobs = {row.name: jobs[row.name] for row in chosen}
    runs = cost.cost_runs(jobs, device)
    if dry_run:
        lines = tuple((run.label, "missing" if store.document(run) is None else "done") for run in runs)
        blocks = [Block(table.title, (), ("run", "state"), lines)]
        print_blocks(blocks)
        return blocks
    make_output_folder(request.output)
    documents = cost.measured(store, jobs, runs)
    _write(table, store, documents)
    headings, rows = cost.cost_rows(documents)
    about = next(iter(documents.values()))["_run"]
    where = f"Median of {cost.REPEATS} runs on {about['gpu'] or about['cpu']}, torch {about['versions']['torch']}."
    blocks = [Block(table.title, (table.note, where), headings, rows)]
    blocks += table_blocks(replace(table, title="", note=""), [])[1:]
    print_blocks(blocks)
    write_blocks(blocks, store.results.with_suffix(".md"))
    return blocks
