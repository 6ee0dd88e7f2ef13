"""A request for a table, top to bottom: check, list or run, print, write."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pomp_lab.tables.jobs import Job, Opened, make_jobs
from pomp_lab.tables.listing import list_jobs, listing_blocks, without_downloads
from pomp_lab.tables.plan import Row, Table, check_overrides, parse_seeds
from pomp_lab.tables.runner import Runner
from pomp_lab.tables.scales import find_table
from pomp_lab.tables.settings import plain_command
from pomp_lab.tables.show import Block, Line, print_blocks, read_line, table_blocks, write_blocks
from pomp_lab.tables.sources import find_source, missing_sources, present_benchmarks
from pomp_lab.tables.store import Store
from pomp_lab.tables.targets import source_of
from prompt_core.config import _pairs
from prompt_core.errors import UserError, nearest
from prompt_core.files import make_output_folder

# How notes of tables say DATA.SHOTS.
_SHOTS = re.compile(r"\b16 ((?:photos|images) of (?:each|a class))")


@dataclass(frozen=True)
class Request:
    """What the command line asks for; ``seeds``, ``rows`` and ``datasets`` are None for the table's own."""

    table: str
    scale: str
    output: Path
    root: Path
    configs: Path
    seeds: str | None = None
    rows: str | None = None
    datasets: str | None = None
    overrides: tuple[str, ...] = ()


def reproduce(request: Request, dry_run: bool = False) -> list[Block]:
    """Run what is missing of a table, print and write it; with ``dry_run`` list it and write nothing.

    Returns:
        what was printed.

    Raises:
        UserError: a bad request, absent data (one line with what to do).
        KeyboardInterrupt: Ctrl-C; the same call goes on.
    """
    table = find_table(request.table, request.scale)
    seeds = parse_seeds(request.seeds, table)
    store = Store(request.output)
    if table.measured:
        return _cost(request, table, store, dry_run)
    rows = table.chosen(request.rows)
    check_overrides(table, rows, [key for key, _ in _pairs(request.overrides)])
    targets = _targets(request, table, rows)
    needed = [*(row.train for row in rows if row.train), *map(source_of, targets)]
    absent_lines = missing_sources(needed, request.root)
    absent = [name for name in dict.fromkeys(needed) if find_source(name).missing(request.root)]
    if absent_lines and not dry_run:
        more = f" ({len(absent_lines) - 1} more: --dry-run lists all)" if len(absent_lines) > 1 else ""
        raise UserError(absent_lines[0] + more)
    if dry_run:
        with tempfile.TemporaryDirectory() as lists, without_downloads():
            opened = Opened(request.root, Path(lists))
            jobs = make_jobs(rows, seeds, request.configs, request.overrides, opened, absent)
            runner = Runner(table, store, opened)
            here = [name for name in targets if find_source(source_of(name)).name not in absent]
            runner.check_selection([job for job in jobs if job.row.train not in absent], here)
            blocks = listing_blocks(runner, list_jobs(runner, jobs, targets, absent), absent_lines)
        print_blocks(blocks)
        return blocks
    make_output_folder(request.output)
    opened = Opened(request.root, request.output / "lists")
    jobs = make_jobs(rows, seeds, request.configs, request.overrides, opened)
    runner = Runner(table, store, opened, lambda line: print(line, flush=True))
    runner.run(jobs, targets)
    blocks = _shown(runner, jobs, targets, request.overrides)
    print_blocks(blocks)
    file = request.output / f"{table.name}_{table.scale}.md"
    write_blocks(blocks, file)
    print(f"written to {file}")
    _report(store)
    return blocks


def _targets(request: Request, table: Table, rows: Sequence[Row]) -> list[str]:
    targets = list(table.targets)
    if table.whatever_is_there:
        # What is learned from is no other data set.
        learned = [row.train for row in rows]
        targets += [name for name in present_benchmarks(request.root, learned) if name not in targets]
    if request.datasets is None:
        return targets
    wanted = [name.strip() for name in request.datasets.split(",")]
    for name in wanted:
        if name not in targets:
            raise UserError(
                f"table {table.name} scores no {name!r}{nearest(name, targets)}; expected some of {', '.join(targets)}"
            )
    return wanted


def _shown(runner: Runner, jobs: Sequence[Job], targets: Sequence[str], overrides: Sequence[str]) -> list[Block]:
    lines: list[Line] = []
    skipped: dict[str, list[str]] = {}
    for row in dict.fromkeys(job.row for job in jobs):
        own = [job for job in jobs if job.row == row]
        documents = [
            document
            for job in own
            for name in targets
            if (document := runner.store.read(runner.result_key(job, name))) is not None
        ]
        reason = runner.impossible(own[0])
        lines.append(read_line(row, documents, f"not possible here: {reason}" if reason else ""))
        for document in documents:
            for dataset, why in document["_run"].get("skipped", {}).items():
                skipped.setdefault(row.name, []).append(f"nothing for {dataset}: {why}")
    return table_blocks(replace(runner.table, note=note_of(runner.table, overrides)), lines, skipped)


def note_of(table: Table, overrides: Sequence[str]) -> str:
    """The note of a table whose settings the command line changes: with these, and without what they make untrue."""
    if not overrides:
        return table.note
    given = dict(_pairs(overrides))
    note = table.note
    if "DATA.SHOTS" in given:
        number = "all" if given["DATA.SHOTS"].startswith("-") else given["DATA.SHOTS"]
        note = _SHOTS.sub(lambda found: f"{number} {found[1]}", note)
    # Folders of the machine are nobody's business.
    words = plain_command(" ".join(f"{key} {value}" for key, value in given.items()))
    return f"{note} With {words}." if note else f"With {words}."


def _report(store: Store) -> None:
    """All numbers of the folder on one page, where there are any and drawings are possible."""
    if not any(store.results.glob("*.json")):
        return
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    from pomp_lab.report.build import write_report

    write_report([store.results], store.folder)
    print(f"all numbers: {store.folder / 'report.html'}")


def _cost(request: Request, table: Table, store: Store, dry_run: bool) -> list[Block]:
    import torch

    from pomp_lab.tables.cost import REPEATS, cost_jobs, cost_key, cost_rows, finished, measured

    if request.seeds or request.datasets or request.overrides:
        raise UserError("table cost is a measurement: it takes no --seeds, no --datasets and no KEY VALUE overrides")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    jobs = cost_jobs(table, device, torch.get_num_threads())
    known = tuple(Row(name, "") for name in jobs)
    chosen = [row.name for row in replace(table, rows=known).chosen(request.rows)]
    jobs = {name: jobs[name] for name in chosen}
    if dry_run:
        key = cost_key(jobs, device, REPEATS)
        whole = finished(store.results / f"cost_{key}.json") is not None
        state = "done" if whole else f"{2 * REPEATS} steps to measure"
        rows = tuple((name, state, job.vocabulary, str(job.images)) for name, job in jobs.items())
        blocks = [Block(f"{table.title}: what is left", (), ("run", "state", "names", "images in a step"), rows)]
        print_blocks(blocks)
        return blocks
    make_output_folder(request.output)
    command = plain_command(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    document = measured(table, store, jobs, device, command, REPEATS)
    headings, rows_of = cost_rows(document)
    set_up = document["set_up"]
    where = f"Median of {REPEATS} runs on {set_up['gpu'] or set_up['cpu']}, torch {set_up['versions']['torch']}."
    blocks = [Block(table.title, (table.note, where), tuple(headings), tuple(map(tuple, rows_of)))]
    blocks += table_blocks(replace(table, title="", note=""), [], {})[1:]
    print_blocks(blocks)
    write_blocks(blocks, request.output / f"{table.name}_{table.scale}.md")
    return blocks
