"""What is found to draw, and drawings as SVG."""

from __future__ import annotations

import itertools
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="drawings need matplotlib (extra `demo`)")

from pomp_lab.report.build import Report, build_report
from pomp_lab.report.find import find_runs
from pomp_lab.report.sweeps import base_novel_pairs, class_gains, find_baselines, sweeps
from prompt_core.errors import UserError

Write = Callable[..., Path]
SVG = "{http://www.w3.org/2000/svg}"


def reported(path: Path, baseline: str | None = None) -> Report:
    return build_report(find_runs([path]), baseline)


def test_lines_over_k_differ_in_nothing_else(all_kinds_report: Report) -> None:
    report = all_kinds_report
    swept = sweeps(report.rows, report.columns, "K", report.baselines)
    first = next(sweep for sweep in swept if sweep.column.metric == "top1")
    assert first.values == ["100", "1000"]
    line = [("100", pytest.approx(41.35), pytest.approx(0.25)), ("1000", 42.25, 0.25)]
    assert first.lines == {"correction none": line, "correction log10": line}
    assert first.baseline == 41.4
    margins = sweeps(report.rows, report.columns, "correction")[0]
    assert margins.values == ["none", "log10"]
    assert list(margins.lines) == ["K 100", "K 1000"]
    assert math.isnan(margins.baseline)


def test_lines_of_reproduced_tables(write_run: Write, tmp_path: Path) -> None:
    """Such files hold K and the margin under two names each, the margin as a text."""
    margins = ("log10", "1.0", "none", "0.5", "ln")
    for number, (K, margin) in enumerate(itertools.product((1000, 100, 0), margins)):
        settings = {"method": "pomp", "K": K, "LOSS.NUM_CLASSES": K, "correction": margin, "LOSS.CORRECTION": margin}
        about = {"row": f"K = {K}, {margin}", "settings": {**settings, "OPTIM.LR": 0.1}, "id": f"{number:016x}"}
        write_run(str(number), {"set/top1": 50.0 + number}, {"set": {"split": "val"}}, **about)
    report = reported(tmp_path)
    (numbers,) = sweeps(report.rows, report.columns, "K")
    assert numbers.values == ["100", "1000", "all"]
    labels = ["none", "0.5", "1", "log10", "ln"]
    assert sorted(numbers.lines) == sorted(f"correction {label}" for label in ("none", "0.5", "1.0", "log10", "ln"))
    (margin,) = sweeps(report.rows, report.columns, "correction")
    assert margin.values == labels
    assert sorted(margin.lines) == ["K 0", "K 100", "K 1000"]
    assert [value for _, value, _ in margin.lines["K 1000"]] == [52.0, 53.0, 51.0, 50.0, 54.0]
    assert [plot.title for plot in report.plots["K and the margin"]] == [
        *("Accuracy against K", "Accuracy against the margin"),
    ]


def test_runs_that_differ_in_more_are_no_line(write_base_novel: Write, tmp_path: Path) -> None:
    write_base_novel("a", 41.0, 33.0, K=100, correction="log10", shots=16)
    write_base_novel("b", 42.0, 33.0, K=500, correction="log10", shots=100)
    report = reported(tmp_path)
    assert sweeps(report.rows, report.columns, "K") == []
    assert "K and the margin" not in report.plots


def test_all_classes_stand_right_of_every_number(write_base_novel: Write, tmp_path: Path) -> None:
    for number in (0, 1000, 100):
        write_base_novel(f"K={number}", 41.0, 33.0, K=number, correction=None)
    report = reported(tmp_path)
    assert sweeps(report.rows, report.columns, "K")[0].values == ["100", "1000", "all"]


def test_base_and_novel_columns_are_paired_by_their_candidates(all_kinds_report: Report) -> None:
    report = all_kinds_report
    pairs = base_novel_pairs(report.rows, report.columns)
    summary = [
        (pair.base.dataset, pair.base.protocol.get("candidates"), pair.novel.protocol.get("candidates"))
        for pair in pairs
    ]
    # One segmenter alone is no picture.
    assert summary == [("tiny_base_of_own", 160, 40), ("tiny_base_of_both", 200, 200)]
    row, x, y = pairs[0].points[0]
    assert (row.hand, x, y) == (True, 41.4, 32.9)


def test_seen_and_unseen_frequent_and_rare_are_pairs(write_run: Write, tmp_path: Path) -> None:
    for number in (1, 2):
        numbers = {"set/mIoU-seen": 1.0 * number, "set/mIoU-unseen": 2.0, "lvis/box_APf": 3.0, "lvis/box_APr": 4.0}
        write_run(f"run{number}", numbers, {"set": {"split": "val"}, "lvis": {"split": "val"}})
    report = reported(tmp_path)
    pairs = base_novel_pairs(report.rows, report.columns)
    assert [(pair.base.metric, pair.novel.metric) for pair in pairs] == [
        ("mIoU-seen", "mIoU-unseen"),
        ("box_APf", "box_APr"),
    ]


def with_classes(folder: Path, classes: dict[str, Any]) -> None:
    rows = [{"id": number, "name": name, "top1": value} for number, (name, value) in enumerate(classes.items())]
    (folder / "per_class.json").write_text(json.dumps({"dataset": "set", "metric": "top1", "classes": rows}))


def test_gains_of_classes_over_the_hand_prompt(write_run: Write, tmp_path: Path) -> None:
    protocol = {"set": {"split": "val"}}
    with_classes(
        write_run("hand", {"set/top1": 50.0}, protocol, prompt="a photo of a {}."),
        {"cat": 50.0, "dog": 40.0, "owl": None},
    )
    with_classes(write_run("learned", {"set/top1": 55.0}, protocol), {"cat": 45.0, "dog": 60.0, "owl": 10.0})
    # Another protocol is not compared.
    with_classes(write_run("other", {"set/top1": 55.0}, {"set": {"split": "test"}}), {"cat": 0.0, "dog": 0.0})
    report = reported(tmp_path)
    assert report.baselines
    (gain,) = class_gains(report.rows, report.baselines)
    assert (gain.row.label, gain.baseline.label) == ("learned", "hand")
    assert gain.classes == [("dog", 20.0), ("cat", -5.0)]
    (plot,) = report.plots["Class by class"]
    assert "1 of 2 classes better, 1 worse, on average +7.5" in plot.caption
    assert [row.label for row in find_baselines(report.rows, "other")] == ["other"]
    with pytest.raises(UserError, match="no row is called 'lerned'; nearest: 'learned'"):
        find_baselines(report.rows, "lerned")


def test_plots_are_whole_svg_and_the_same_each_time(all_kinds: Path, all_kinds_report: Report) -> None:
    first, second = all_kinds_report.plots, reported(all_kinds).plots
    assert list(first) == ["K and the margin", "Base against novel", "Learning"]
    assert [plot.title for plot in first["Learning"]] == ["Detectors: learning curves", "Prompts: learning curves"]
    assert first == second
    for plot in (plot for plots in first.values() for plot in plots):
        root = ElementTree.fromstring(plot.data)
        assert root.tag == f"{SVG}svg"
        assert len(list(root.iter(f"{SVG}path"))) > 5


def test_points_are_called_by_the_number_of_their_row(all_kinds_report: Report) -> None:
    report = all_kinds_report
    (plot,) = report.plots["Base against novel"]
    texts = [element.text for element in ElementTree.fromstring(plot.data).iter(f"{SVG}text")]
    assert {"1", "2"} <= set(texts)


def test_awkward_names_are_text_in_plots(write_run: Write, tmp_path: Path) -> None:
    names = ["_hidden", "$\\frac$", "<b>&amp;", "-->", "x" * 200]
    arguments = []
    for number, name in enumerate(names):
        history = [{"loss": 3.0 - epoch, "accuracy": 0.1} for epoch in range(2)]
        path = write_run(f"r{number}", {"train/loss": 1.0}, {"train": {"metric": name}}, history=history)
        arguments.append(f"{name}={path}")
    (plots,) = build_report(find_runs(arguments)).plots.values()
    shown = [element.text for element in ElementTree.fromstring(plots[0].data).iter(f"{SVG}text")]
    assert {"\u200b_hidden", "$\\frac$", "<b>&amp;", "-->", "x" * 43 + "…"} <= set(shown)


def test_each_data_set_has_its_own_hand_prompt(write_base_novel: Write, write_run: Write, tmp_path: Path) -> None:
    write_base_novel('"a photo of a {}."', 41.4, 32.9, None, templates=["a photo of a {}."])
    protocol = {"set": {"split": "val"}}
    with_classes(write_run("z_hand", {"set/top1": 50.0}, protocol, prompt="{}"), {"cat": 50.0})
    with_classes(write_run("learned", {"set/top1": 55.0}, protocol), {"cat": 45.0})
    report = reported(tmp_path)
    assert [row.label for row in report.baselines] == ['"a photo of a {}."', "z_hand"]
    gains = class_gains(report.rows, report.baselines)
    assert [(gain.row.label, gain.baseline.label) for gain in gains] == [("learned", "z_hand")]
