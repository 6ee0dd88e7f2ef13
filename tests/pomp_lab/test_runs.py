"""Runs of experiments: what is done is found, what is damaged is done again, no process outlives its parent."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pomp_lab.report.foreign import read_document
from pomp_lab.report.results import read_runs
from pomp_lab.runs import Run, RunStore, damage, mean_text, part_of, plain_command, run_missing, run_process
from prompt_core.documents.sealed_json import without_seal
from prompt_core.errors import UserError
from prompt_core.files import write_text

ROOT = Path(__file__).resolve().parents[2]
WHOLE: dict[str, Any] = {
    "a/top1": 3.0,
    "a/top5": None,
    "_run": {"history": [], "settings": {"K": 5}},
    "_protocol": {"a": {"split": "val"}},
}


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in WHOLE.items() if key not in keys}


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, messages: list[str]) -> RunStore:
    return RunStore(tmp_path / "runs", tmp_path / "results/table.json", messages.append)


RUN = Run("POMP", 0, {"row": "POMP", "seed": 0, "lr": 0.1})


def test_a_run_is_known_by_what_decided_it(store: RunStore) -> None:
    assert store.document(RUN) is None
    stored = store.keep(RUN, {**WHOLE, "b/top1": float("nan"), "_protocol": {"a": {}, "b": {}}}, settings={"lr": 0.1})
    assert (stored["a/top1"], stored["b/top1"]) == (3.0, None)
    assert stored["_run"] == {"row": "POMP", "seed": 0, "id": RUN.id, "history": [], "settings": {"lr": 0.1}}
    assert store.document(RUN) == stored
    assert store.document(Run("POMP", 0, {**RUN.identity, "lr": 0.2})) is None
    assert [RUN.key, Run("hand", None, {}).key, RUN.label] == ["POMP/seed 0", "hand", "POMP, seed 0"]


def test_a_results_file_travels_alone(store: RunStore, tmp_path: Path, messages: list[str]) -> None:
    other = Run("hand prompt", None, {"row": "hand prompt"})
    documents = {run.key: store.keep(run, WHOLE) for run in (RUN, other)}
    store.write_results({"command": "x"}, {RUN.key: documents[RUN.key]})
    store.write_results({"command": "y"}, {other.key: documents[other.key]})
    text = store.results.read_text(encoding="utf-8")
    assert len(text.splitlines()) == 7, "one run a line"
    written = json.loads(text)
    assert without_seal(written["about"]) == {"command": "y"}
    assert {key: without_seal(document) for key, document in written["runs"].items()} == documents
    alone = RunStore(tmp_path / "elsewhere", store.results, messages.append)
    assert alone.document(RUN) == documents[RUN.key]
    # Other settings under the same name are another run.
    assert alone.document(Run("POMP", 0, {"lr": 0.2})) is None
    damaged = json.loads(text)
    damaged["runs"][RUN.key] = {"_run": documents[RUN.key]["_run"]}
    store.results.write_text(json.dumps(damaged))
    alone = RunStore(tmp_path / "elsewhere", store.results, messages.append)
    assert (alone.document(RUN), alone.document(other)) == (None, documents[other.key])
    assert messages == [f"{store.results}: POMP/seed 0 is damaged (_protocol is not an object) and is ignored"]


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_never_another_number(store: RunStore, messages: list[str], flips: int) -> None:
    runs = [Run("POMP", seed, {"row": "POMP", "seed": seed}) for seed in (0, 1)]
    documents = {run.key: store.keep(run, {**WHOLE, "a/top1": 3.1 + (run.seed or 0)}) for run in runs}
    store.write_results({"title": "a table"}, documents)
    own, shared, places = store.folder_of(runs[0]) / "metrics.json", store.results, random.Random(0)
    expected = {path: shown(path) for path in (own, shared)}
    refused = 0
    for path in (own, shared):
        whole = path.read_bytes()
        for _ in range(flips):
            damaged = bytearray(whole)
            damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
            path.write_bytes(damaged)
            alone = RunStore(store.folder if path is own else store.folder / "elsewhere", shared, messages.append)
            found = [alone.document(run) for run in runs]
            assert all(one in (None, documents[run.key]) for one, run in zip(found, runs, strict=True))
            with contextlib.suppress(UserError):
                assert shown(path) == expected[path]
                continue
            refused += 1
        path.write_bytes(whole)
    assert refused > flips / 2
    assert shown(shared) == expected[shared]


def shown(path: Path) -> list[Any]:
    """What a report reads."""
    return [
        (run.name, run.label, run.about, *run.numbers.values()) for run in read_runs(path, read_document(path), "x")
    ]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (WHOLE, ""),
        ({"_run": {"skipped": {"a": "too long"}}, "_protocol": {}}, ""),
        ([], "not an object"),
        ({}, "_run is not an object"),
        (without("_protocol"), "_protocol is not an object"),
        (without("a/top1", "a/top5"), "a has no numbers"),
        ({**without("a/top1", "a/top5"), "_protocol": {}}, "it has no numbers"),
        ({**WHOLE, "_protocol": {}}, "a has no protocol"),
    ],
)
def test_damage(document: Any, reason: str) -> None:
    assert damage(document) == reason


@pytest.mark.parametrize("text", ["", json.dumps(WHOLE)[:-5], "[" * 100_000, "5", "null", "{}"])
def test_what_is_damaged_counts_as_missing(store: RunStore, messages: list[str], text: str) -> None:
    document = store.keep(RUN, WHOLE)
    path = store.folder_of(RUN) / "metrics.json"
    path.write_text(text)
    assert store.document(RUN) is None
    assert store.document(RUN) is None
    assert len(messages) == 1
    assert messages[0].startswith(f"{path} is damaged")
    store.results.parent.mkdir()
    store.results.write_text(text)
    assert RunStore(store.folder, store.results, messages.append).document(RUN) is None
    assert f"{store.results} is damaged" in messages[-1]
    # What the results file still knows is not done again.
    store.write_results({}, {RUN.key: document})
    assert store.document(RUN) == document


def test_a_document_of_some_data_sets() -> None:
    document = {"a/x": 1, "b/x": 2, "_run": {"skipped": {"b": "no", "c": "no"}}, "_protocol": {"a": {}, "b": {}}}
    assert part_of(document, ["a"]) == {"a/x": 1, "_run": {}, "_protocol": {"a": {}}}
    assert part_of(document, ["b"]) == {"b/x": 2, "_run": {"skipped": {"b": "no"}}, "_protocol": {"b": {}}}


def test_several_processes_may_share_a_folder(store: RunStore, messages: list[str]) -> None:
    other, done = Run("other", None, {"row": "other"}), []
    holder = RunStore(store.folder, store.results)
    with holder.claim(RUN.id) as mine:
        assert mine
        with store.claim(RUN.id) as also:
            assert not also
    with holder.claim(RUN.id) as mine:

        def do(run: Run) -> None:
            done.append(run.row)
            if run is other:
                (store.folder / "locks" / RUN.id).unlink()  # the other process has ended

        run_missing(store, [RUN, other], do)
    assert done == ["other", "POMP"]
    assert messages == ["waiting for another process: POMP, seed 0"]


def test_what_several_runs_start_from_is_made_once(store: RunStore, messages: list[str]) -> None:
    """Another process that makes it is waited for; a run's own claim covers its folder."""
    file, made = store.folder_of(RUN) / "model_final.pth", []
    started, finish = threading.Event(), threading.Event()

    def make() -> None:
        made.append(1)
        with RunStore(store.folder, store.results).claim(RUN.id) as mine:
            assert not mine
        started.set()
        assert finish.wait(30)
        write_text(file, "weights")

    first = threading.Thread(target=store.once, args=(file, make))
    first.start()
    assert started.wait(30)
    other = RunStore(store.folder, store.results, lambda line: (messages.append(line), finish.set()))  # type: ignore[func-returns-value]
    assert other.once(file, make) == file
    first.join()
    assert (made, messages) == ([1], [f"waiting for another process: {RUN.id}/model_final.pth"])
    with pytest.raises(KeyboardInterrupt), store.claim("x"):
        raise KeyboardInterrupt
    with other.claim("x") as mine:
        assert mine, "a claim ends with its process or its error"


def test_texts() -> None:
    assert [mean_text([1.0, 2.0]), mean_text([1.26]), mean_text([]), mean_text([0.1234], 3)] == [
        "1.5 ± 0.5",
        "1.3",
        "nan",
        "0.123",
    ]
    assert plain_command("compare.py --output /a/b/ KEY value") == "compare.py --output b KEY value"


def test_a_run_that_stops_is_reported() -> None:
    run_process(sys.exit, (0,), "row 'a'")
    with pytest.raises(UserError, match="the run of row 'a' stopped with code 2"):
        run_process(sys.exit, (2,), "row 'a'")


PARENT = """
import os, signal, sys, time
from pathlib import Path
from pomp_lab.runs import run_process
from prompt_core.command_line import asked_to_stop
from prompt_core.errors import run_command

def train(file):
    with asked_to_stop() as asked:
        while not asked:
            Path(file).write_text(str(os.getpid()))
            time.sleep(0.02)
    Path(file).with_suffix(".checkpoint").touch()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore Ctrl-C
    run_command(lambda: run_process(train, (sys.argv[1],), "a row"))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_training_stops_with_the_comparison(tmp_path: Path, number: signal.Signals) -> None:
    file, script = tmp_path / "pid", tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script, file], env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: file.is_file() and file.read_text() != "")
    parent.send_signal(number)
    _, error = parent.communicate(timeout=30)
    polite = number != signal.SIGKILL
    assert (parent.returncode, error) == ((130, "interrupted\n") if polite else (-signal.SIGKILL, ""))
    assert not polite or file.with_suffix(".checkpoint").exists(), "the parent waits for the training"
    wait_for(file.with_suffix(".checkpoint").exists)
    wait_for(lambda: not Path(f"/proc/{file.read_text()}").exists())


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
