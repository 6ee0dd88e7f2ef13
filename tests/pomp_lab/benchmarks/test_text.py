"""The benchmark compares like with like, derives its ratios from what it measured, and keeps earlier parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from pomp_lab.benchmarks import limits, text_parts
from pomp_lab.benchmarks import text as benchmark
from prompt_core.errors import UserError
from prompt_core.text import encoder as encoder_module
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.vocabulary import Vocabulary

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call_tool: Run, tiny_model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the tool with one thread into ``results.json``, with counts that suit COCO's 80 names and a tiny tower."""
    small = {"SMALL": 48, "LARGE": 60, "REFERENCE_CHUNK": 25, "WIDTHS": (32,), "COUNTS": (3, 6)}
    for name, value in small.items():
        monkeypatch.setattr(text_parts, name, value)
    monkeypatch.setattr(limits, "PRODUCT_SIDE", {"cpu": 64})
    monkeypatch.setattr(limits, "COPY_BYTES", {"cpu": 2**16})
    fixed = ["--clip", tiny_model[0], "--vocabulary", "coco", "--threads", "1", "--output", "results.json"]
    return lambda *arguments: call_tool("benchmark_text", *fixed, *arguments)


def median(side: dict[str, Any], quantity: str = "seconds") -> float:
    return float(np.median(side[quantity]["all"]))


@pytest.mark.slow
def test_a_step_in_fresh_processes(run: Run, tmp_path: Path) -> None:
    code, out, error = run("--parts", "k128", "--repeats", "1")
    assert code == 0, error
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
            assert len(values) == 1
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
    assert ours["product_share"]["median"] == pytest.approx(ours["operations"] / median(ours) / ours["product_rate"])
    # 77 tokens of each name, against those of the name and a prefix for all.
    assert theirs["operations"] > 8 * ours["operations"]
    assert "times less extra memory" in out
    assert f"k128, shared_prefix, 48 names: {median(ours):.3g} ({ours['seconds']['min']:.3g} to " in out


@pytest.mark.usefixtures("in_this_process")
def test_parts_join_those_of_an_earlier_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--parts", "full,k1000", "--repeats", "1", "--chunk-size", "30")[0] == 0
    file = tmp_path / "results.json"
    earlier = json.loads(file.read_text())["parts"]
    never = (("classifier", "template_ratio", "never", 1e9, None), *text_parts.TARGETS)
    monkeypatch.setattr(text_parts, "TARGETS", never)
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


def test_fused_attention_computes_the_same(run: Run, tmp_path: Path) -> None:
    code, out, error = run("--parts", "attention", "--repeats", "1")
    assert code == 0, error
    rows = json.loads((tmp_path / "results.json").read_text())["parts"]["attention"]["rows"]
    assert [(row["names"], row["way"]) for row in rows] == [
        (names, way) for names in (48, 60) for way in ("products", "expanded", "joined")
    ]
    for row in rows:
        assert row["difference"] < 1e-5
        products = next(other for other in rows if (other["names"], other["way"]) == (row["names"], "products"))
        assert row["times"] == pytest.approx(median(row) / median(products))
    assert max(row["difference"] for row in rows) > 0
    assert "attention, joined, 60 names: " in out


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_steps_give_the_same(run: Run, tmp_path: Path) -> None:
    with patch("prompt_core.text.encoder.PACKED_MINIMUM_WORK", 0):
        code, out, error = run("--parts", "compiled", "--repeats", "1")
    assert code == 0, error
    (row,) = json.loads((tmp_path / "results.json").read_text())["parts"]["compiled"]["rows"]
    assert (row["names"], row["same_result"]) == (48, True)
    assert row["time_ratio"] == pytest.approx(row["compiled"]["median"] / row["as_it_is"]["median"])
    assert "times the step as it is" in out


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_are_compared_with_a_plain_product(run: Run, tmp_path: Path, precision: str) -> None:
    code, out, error = run("--parts", "steps", "--repeats", "1", "--precision", precision)
    assert code == 0, error
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["set_up"].get("precision", "float32") == precision
    part = report["parts"]["steps"]
    for side, names in (("few", 48), ("many", 60)):
        assert part[side]["names"] == names
        assert part[f"{side}_share"] == median(part[side], "product_share")
        seconds = median(part[side])
        assert part[f"{side}_share"] == pytest.approx(part[side]["operations"] / seconds / part[side]["product_rate"])
        share = part[side]["bytes_moved"] / seconds / part[side]["copy_rate"]
        assert median(part[side], "copy_share") == pytest.approx(share)
    assert "% of the speed of a plain product" in out
    assert [(row["value"], row["wanted"]) for row in report["targets"]] == [
        ("few_share", "at least 0.7"),
        ("many_share", "at least 0.75"),
    ]


@pytest.mark.usefixtures("in_this_process")
def test_results_of_another_set_up_are_not_mixed(run: Run, tmp_path: Path) -> None:
    assert run("--parts", "crossover", "--repeats", "1")[0] == 0
    before = (tmp_path / "results.json").read_bytes()
    code, _, error = run("--parts", "crossover", "--threads", "2")
    assert code == 2
    assert "other settings (threads); remove it" in error
    assert (tmp_path / "results.json").read_bytes() == before


def test_crossover_forces_each_path(make_tiny_clip: Callable[..., Any]) -> None:
    """Each path runs as often as the other, and the work of a row is what the encoder decides by."""
    vocabulary = Vocabulary.load("coco")
    bounds: list[float] = []
    original = PromptedTextEncoder.__call__

    def counted(*arguments: Any) -> torch.Tensor:
        bounds.append(encoder_module.PACKED_MINIMUM_WORK)
        return original(*arguments)

    with patch.object(PromptedTextEncoder, "__call__", counted):
        rows = benchmark.measure_crossover(vocabulary, (32,), (6, 3, 80), 2, 1e6)
    assert [row["names"] for row in rows] == [3, 6]  # 80 names have more work than asked for
    assert bounds == [0.0, float("inf")] * 6
    for row in rows:
        assert len(row["packed"]["all"]) == len(row["truncated"]["all"]) == 2
        assert row["time_ratio"] == pytest.approx(median(row, "truncated") / median(row, "packed"))
        encoder = PromptedTextEncoder(make_tiny_clip(width=row["width"]))
        ids = benchmark.choose_names(vocabulary, row["names"], at_random=True)
        sequences = encoder.tokenizer.prompts([vocabulary.names[row] for row in ids.tolist()], benchmark.CONTEXTS)
        assert row["work"] == (sequences.lengths - sequences.prefix_length).sum() * 12 * row["width"] ** 2


def test_targets_of_the_parts() -> None:
    parts = {"k1000": {"time_ratio": 10.0}, "full": {"peak_gib": 4.01, "time_per_name_ratio": 1.25}}
    rows = text_parts.check_targets(parts)
    assert [(row["part"], row["wanted"], row["met"]) for row in rows] == [
        ("k1000", "at least 10", True),
        ("full", "at most 4", False),
        ("full", "at most 1.25", True),
    ]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "k12"], "unknown part 'k12'"),
        (["--repeats", "0"], "1 or more"),
        (["--device", "cuda"], "no GPU is usable here"),
        (["--precision", "bfloat61"], "unknown precision 'bfloat61'; nearest: 'bfloat16'"),
        (["--parts", "classifier", "--classifier-names", "81"], "open_clip could not be measured: 81 names were asked"),
    ],
)
def test_bad_input_is_reported(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
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
