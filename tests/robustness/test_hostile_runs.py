"""Every command on what makes no sense: one line and its exit code, nothing half-written, bounded time and memory.

The runs are drawn by seeds. ``HOSTILE_SEED=17`` in the environment repeats the run of one seed alone, and prints it.
``HOSTILE_RUNS`` is how many the slow test draws, from the seed ``HOSTILE_FROM`` on, and ``HOSTILE_REPORT`` a file for
its counts.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("detectron2")
pytest.importorskip("resource", reason="bounds of the kernel are Linux's")

from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import package_versions
from prompt_core.files import write_json
from prompt_core.visible import say

from ..support.forked import Limits
from ..support.hostile_runs import Arena, HostileRun
from ..support.plain_runs import RUNS, PlainRun

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {f"{folder}/{path.stem}" for folder in ("tools", "datasets") for path in (ROOT / folder).glob("*.py")}
COMMANDS = SCRIPTS | {"prompt_core/doctor"}
# What changes this environment.
NOT_TRIED = {"tools/install_detectron2"}
# What makes files of this package, or measures the embedded models for minutes; its options are tried below.
NOT_TRIED |= {f"tools/{name}" for name in ("build_photos", "make_pictures", "measure_mini_prompt")}
NOT_TRIED |= {f"tools/benchmark_{name}" for name in ("front", "loop", "ranks", "real_size", "words")}
# Folders of inputs that are made in moments, and commands that take moments on them.
QUICK = tuple(run for run in RUNS if not run.slow and run.tree in ("prompt", "results", "packages"))
KINDS = {
    *(
        "bytes",
        "checkpoint",
        "csv",
        "json",
        "jsonl",
        "mat",
        "no file",
        "npy",
        "photo",
        "safetensors",
        "tar",
        "text",
        "yaml",
    ),
    *("environment", "line", "name", "number", "output", "path", "setting", "source", "words"),
}


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    arena = Arena(tmp_path_factory.mktemp("arena"))
    arena.load_everything()
    with arena.small():
        yield arena


def test_the_corpus_has_every_command() -> None:
    assert {run.tool for run in RUNS} == COMMANDS - NOT_TRIED


@pytest.mark.parametrize("tool", sorted(COMMANDS))
def test_an_unknown_option_is_one_line(arena: Arena, tool: str) -> None:
    outcome, wrong = arena.execute(HostileRun(PlainRun(tool, "results", ()), ["--no-such-option"]))
    assert (outcome.code, wrong) == (2, []), outcome
    assert outcome.err.startswith("error: ")


def test_hostile_runs(arena: Arena) -> None:
    draw_and_run(arena, QUICK, 40)


@pytest.mark.slow
def test_two_thousand_hostile_runs(arena: Arena) -> None:
    first, runs = int(os.environ.get("HOSTILE_FROM", "0")), int(os.environ.get("HOSTILE_RUNS", "2000"))
    counts = draw_and_run(arena, RUNS, runs, first, os.environ.get("HOSTILE_REPORT"))
    if runs >= 2000:
        assert counts["tool"].keys() == {run.tool for run in RUNS}
        assert counts["input"].keys() == KINDS


def draw_and_run(
    arena: Arena, plain: tuple[PlainRun, ...], runs: int, first: int = 0, report: str | None = None
) -> dict[str, Counter[str]]:
    """Run what the seeds give; counts of the outcomes by command, by kind of input and by exit code."""
    alone = os.environ.get("HOSTILE_SEED")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    failures = []
    start = time.monotonic()
    for seed in [int(alone)] if alone else range(first, first + runs):
        run = arena.draw(seed, plain)
        outcome, wrong = arena.execute(run)
        for table, keys in (("tool", [run.plain.tool]), ("input", set(run.kinds)), ("exit code", [str(outcome.code)])):
            counts[table].update(keys)
        if wrong or alone:
            failures.append(f"HOSTILE_SEED={seed}: {wrong}\n{run}\n{outcome}")
            print(failures[-1], flush=True)
        done = seed + 1 - first
        if report and done % 100 in (0, runs % 100):
            document = {
                "command": f"HOSTILE_FROM={first} HOSTILE_RUNS={runs} HOSTILE_REPORT={Path(report).name} "
                "python -m pytest -m slow tests/robustness/test_hostile_runs.py",
                "versions": package_versions(),
                "runs": done,
                "failures": len(failures),
                "minutes": round((time.monotonic() - start) / 60, 1),
                **{table: dict(sorted(counter.items())) for table, counter in counts.items()},
            }
            write_json(report, document)
    assert not failures, "\n\n".join(failures)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(RUNS)))
def test_without_hostile_parts_a_run_ends_well(arena: Arena, number: int) -> None:
    plain = RUNS[number]
    outcome, wrong = arena.execute(HostileRun.of(plain))
    assert (wrong, outcome.code in (*plain.codes, *([2] if plain.refused else [0]))) == ([], True), outcome
    files = arena.trees[plain.tree]
    assert [pattern for pattern in plain.reads if not list(files.glob(pattern))] == []


def _traceback() -> None:
    raise BaseException("got past")


def _two_errors() -> None:
    say("error: one", error=True)
    raise UserError("two")


def _library() -> None:
    raise ZeroDivisionError


def _control() -> None:
    print("\x1b[31mred")


def _outside() -> None:
    Path("../../outside.txt").write_text("x")


def _result_of_a_failure() -> None:
    Path("metrics.json").write_text("{}")
    raise UserError("failed")


def _temporary() -> None:
    Path(".metrics.json.host-1-a.tmp").write_text("{}")


def _input_changed() -> None:
    Path("two.json").write_text("{}")
    raise UserError("failed")


def _memory() -> None:
    bytearray(1 << 32)


def _resident_memory() -> None:
    block = bytearray(1200 << 20)
    block[::4096] = b"x" * len(block[::4096])


def _endless() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (_traceback, "a traceback"),
        (_two_errors, "2 lines of errors"),
        (_library, "exit code 1"),
        (_control, "a control character"),
        (_outside, "written outside"),
        (_result_of_a_failure, "written by a run that failed"),
        (_temporary, "left: "),
        (_input_changed, "inputs changed"),
        (_memory, "memory: "),
        (_resident_memory, "memory: "),
        (_endless, "signal "),
    ],
)
def test_what_must_not_happen_is_found(arena: Arena, command: Callable[[], None], found: str) -> None:
    run = HostileRun(PlainRun("tools/margins", "results", ()), [])
    _, wrong = arena.execute(run, main=command, limits=Limits(cpu=1 if command is _endless else 30))
    assert any(text.startswith(found) for text in wrong), wrong
    (arena.root / "outside.txt").unlink(missing_ok=True)
