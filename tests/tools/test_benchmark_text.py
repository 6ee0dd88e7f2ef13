"""The benchmark compares like with like, derives its ratios from what it measured, and keeps earlier parts."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from pomp_lab.benchmarks import text as benchmark
from prompt_core.errors import UserError, run_command
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.vocabulary import Vocabulary

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark_text.py"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, with counts that suit COCO's 80 names and a tiny tower."""
    specification = importlib.util.spec_from_file_location("benchmark_text", TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    small = {"SMALL": 48, "LARGE": 60, "REFERENCE_CHUNK": 25, "WIDTHS": (32,), "COUNTS": (3, 6)}
    for name, value in small.items():
        monkeypatch.setattr(module, name, value)
    return module


@pytest.fixture
def run(
    tool: ModuleType,
    tiny_model: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    """Run the tool with one thread into ``results.json``: exit code, output, errors."""
    threads = torch.get_num_threads()
    output = tmp_path / "results.json"
    fixed = ["--clip", str(tiny_model[0]), "--vocabulary", "coco", "--threads", "1", "--output", str(output)]

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *fixed, *arguments])
        with pytest.raises(SystemExit) as stop:
            run_command(tool.main)
        out, error = capsys.readouterr()
        return int(stop.value.code or 0), out, error

    yield call
    torch.set_num_threads(threads)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run here instead of in fresh processes, which take seconds to start."""

    def here(command: list[str], **options: Any) -> SimpleNamespace:
        result = benchmark.run_job(benchmark.Job(**json.loads(command[-1])))
        return SimpleNamespace(returncode=0, stdout=json.dumps(result), stderr="")

    monkeypatch.setattr(benchmark, "subprocess", SimpleNamespace(run=here))


def median(side: dict[str, Any], quantity: str = "seconds") -> float:
    return float(np.median(side[quantity]["all"]))


def test_a_step_in_fresh_processes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    original = subprocess.run
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *a, **k: started.append(1) or original(*a, **k))
    code, out, error = run("--parts", "k128", "--repeats", "2")
    assert code == 0, error
    assert len(started) == 4
    report = json.loads((tmp_path / "results.json").read_text())
    setting = report["set_up"]
    assert (setting["threads"], setting["vocabulary"], setting["contexts"], setting["images"]) == (1, "coco", 16, 32)
    assert setting["cpu"]
    assert setting["versions"]["torch"] == torch.__version__
    part = report["parts"]["k128"]
    assert "benchmark_text.py --clip" in part["command"]
    ours, theirs = part["shared_prefix"], part["full_context"]
    assert part["time_ratio"] == pytest.approx(median(theirs) / median(ours))
    assert part["memory_ratio"] == pytest.approx(median(theirs, "extra_bytes") / median(ours, "extra_bytes"))
    for side in (ours, theirs):
        assert side["names"] == 48
        for quantity in ("seconds", "extra_bytes", "peak_bytes"):
            values = side[quantity]["all"]
            assert len(values) == 2
            assert (side[quantity]["min"], side[quantity]["max"]) == (min(values), max(values))
            assert min(values) > 0
        # A process with torch in it is never smaller than this.
        assert side["peak_bytes"]["min"] > 2**26 > side["extra_bytes"]["min"]
    assert theirs["reference"]
    assert not ours["reference"]
    assert ours["result"] == pytest.approx(theirs["result"], rel=1e-3)
    assert [(row["part"], row["measured"]) for row in report["targets"]] == [
        ("k128", part["time_ratio"]),
        ("k128", part["memory_ratio"]),
    ]
    assert "times less extra memory" in out
    assert f"k128, shared_prefix, 48 names: {median(ours):.3g} ({ours['seconds']['min']:.3g} to " in out


@pytest.mark.usefixtures("in_this_process")
def test_parts_join_those_of_an_earlier_run(
    run: Run, tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--parts", "full,k1000", "--repeats", "1", "--chunk-size", "30")[0] == 0
    file = tmp_path / "results.json"
    earlier = json.loads(file.read_text())["parts"]
    never = (("classifier", "template_ratio", "never", 1e9, None), *tool.TARGETS)
    monkeypatch.setattr(tool, "TARGETS", never)
    code, out, error = run("--parts", "classifier", "--repeats", "1", "--classifier-names", "12")
    assert code == 0, error  # a missed target is a result, not a failure
    assert "no" in next(line for line in out.splitlines() if "never" in line)
    report = json.loads(file.read_text())
    parts = report["parts"]
    assert {name: parts[name] for name in earlier} == earlier
    assert set(parts) == {"full", "k1000", "classifier"}
    assert [row["part"] for row in report["targets"]] == [
        "classifier",
        "k1000",
        "full",
        "full",
        "classifier",
        "classifier",
    ]

    k1000, full, classifier = parts["k1000"], parts["full"], parts["classifier"]
    assert k1000["time_ratio"] == pytest.approx(median(k1000["full_context"]) / median(k1000["shared_prefix"]))
    assert k1000["full_context"]["chunk_size"] == 25
    assert k1000["full_context"]["result"] == pytest.approx(k1000["shared_prefix"]["result"], rel=1e-3)
    assert (full["every_name"]["names"], full["every_name"]["chunk_size"]) == (80, 30)
    per_name = median(full["every_name"]) / 80, median(full["one_pass"]) / 60
    assert full["time_per_name_ratio"] == pytest.approx(per_name[0] / per_name[1])
    assert full["peak_gib"] == pytest.approx(median(full["every_name"], "peak_bytes") / 2**30)

    scaled = median(classifier["open_clip"]) / 12 * 80
    assert classifier["open_clip_seconds"] == pytest.approx(scaled)
    for work in ("template", "prompt"):
        assert classifier[work]["names"] == 80
        assert classifier[f"{work}_ratio"] == pytest.approx(scaled / median(classifier[work]))
    assert "first 12 names, scaled by 80 / 12" in classifier["note"]
    assert classifier["note"] in out
    values = [classifier[side]["result"]["first_values"] for side in ("open_clip", "template", "prompt")]
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert values[0] != pytest.approx(values[2], abs=1e-3)


def test_results_of_another_set_up_are_not_mixed(run: Run, tmp_path: Path) -> None:
    assert run("--parts", "crossover", "--repeats", "1")[0] == 0
    before = (tmp_path / "results.json").read_bytes()
    code, _, error = run("--parts", "crossover", "--threads", "2")
    assert code == 2
    assert "another set-up (threads); remove it" in error
    assert (tmp_path / "results.json").read_bytes() == before


def test_crossover_forces_each_path(make_tiny_clip: Callable[..., Any]) -> None:
    """Each path runs as often as the other, and the work of a row is what the encoder decides by."""
    vocabulary = Vocabulary.load("coco")
    calls: list[str] = []

    def counted(name: str) -> Any:
        original = getattr(PromptedTextEncoder, name)
        return patch.object(PromptedTextEncoder, name, lambda *a: calls.append(name) or original(*a))

    with counted("_packed"), counted("_truncated"):
        rows = benchmark.measure_crossover(vocabulary, (32,), (6, 3, 80), 2, 1e6)
    assert [row["names"] for row in rows] == [3, 6]  # 80 names have more work than asked for
    assert calls == ["_packed", "_truncated"] * 6
    for row in rows:
        assert len(row["packed"]["all"]) == len(row["truncated"]["all"]) == 2
        assert row["time_ratio"] == pytest.approx(median(row, "truncated") / median(row, "packed"))
        encoder = PromptedTextEncoder(make_tiny_clip(width=row["width"]))
        ids = benchmark.choose_names(vocabulary, row["names"], at_random=True)
        sequences = encoder.tokenizer.prompts([vocabulary.names[row] for row in ids.tolist()], benchmark.CONTEXTS)
        for minimum, path in ((row["work"], encoder._packed), (row["work"] + 1, encoder._truncated)):
            with patch("prompt_core.text.encoder.PACKED_MINIMUM_WORK", minimum):
                assert encoder._choose(sequences) == path


def test_memory_is_what_the_work_takes() -> None:
    def take(mebibytes: int) -> int:
        return len(np.ones(mebibytes * 2**20, dtype=np.uint8))

    for mebibytes in (96, 24):  # the smaller one second: it must not be hidden by the larger one's peak
        found = benchmark.measure(lambda size=mebibytes: take(size))
        # The kernel counts pages per processor and adds them up with a little slack.
        assert mebibytes - 1 < found["extra_bytes"] / 2**20 < mebibytes + 8
        assert found["result"] == mebibytes * 2**20
        assert found["peak_bytes"] > found["extra_bytes"]


def test_a_warm_call_is_the_second() -> None:
    results = iter("ab")
    assert benchmark.measure(lambda: next(results), warm=True)["result"] == "b"


def test_bounds_belong_to_what_meets_them(tool: ModuleType) -> None:
    exact = {"k1000": {"time_ratio": 10.0}, "full": {"peak_gib": 4.0, "time_per_name_ratio": 1.25}}
    missed = {"k1000": {"time_ratio": 9.99}, "full": {"peak_gib": 4.01, "time_per_name_ratio": 1.26}}
    assert [row["met"] for row in tool.check_targets(exact)] == [True] * 3
    assert [row["met"] for row in tool.check_targets(missed)] == [False] * 3
    assert [row["wanted"] for row in tool.check_targets(exact)] == ["at least 10", "at most 4", "at most 1.25"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "k12"], "unknown part 'k12'"),
        (["--repeats", "0"], "above 0"),
        (["--parts", "classifier", "--classifier-names", "81"], "open_clip could not be measured: 81 names were asked"),
    ],
)
def test_bad_input_is_told(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    code, _, error = run("--repeats", "1", *arguments)
    assert code == 2
    assert message in error
    assert not (tmp_path / "results.json").exists()


def test_names_are_distinct_classes() -> None:
    vocabulary = Vocabulary.load("coco")
    drawn = benchmark.choose_names(vocabulary, 40, at_random=True).tolist()
    assert len(set(drawn)) == 40
    assert drawn != list(range(40)) == benchmark.choose_names(vocabulary, 40, at_random=False).tolist()
    with pytest.raises(UserError, match="81 names were asked for, the vocabulary has 80"):
        benchmark.choose_names(vocabulary, 81, at_random=True)
