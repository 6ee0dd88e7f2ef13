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
from pomp_lab.report.runs import find_runs
from pomp_lab.report.sweeps import base_novel_pairs, class_gains, find_baselines, sweeps
from prompt_core.errors import UserError

Write = Callable[..., Path]
SVG = "{http://www.w3.org/2000/svg}"


def reported(path: Path, baseline: str | None = None) -> Report:
    return build_report(find_runs([path]), baseline)


def test_lines_over_k_differ_in_nothing_else(all_kinds: Path) -> None:
    report = reported(all_kinds)
    found = sweeps(report.rows, report.columns, "K", report.baselines)
    first = next(sweep for sweep in found if sweep.column.metric == "top1")
    assert first.values == ["100", "1000"]
    assert [(line.label, line.points) for line in first.lines] == [
        ("correction: none", [("100", pytest.approx(41.35), pytest.approx(0.25)), ("1000", 42.25, 0.25)]),
        ("correction: log10", [("100", pytest.approx(41.35), pytest.approx(0.25)), ("1000", 42.25, 0.25)]),
    ]
    assert first.baseline == 41.4
    margins = sweeps(report.rows, report.columns, "correction")[0]
    assert margins.values == ["none", "log10"]
    assert [line.label for line in margins.lines] == ["K: 100", "K: 1000"]
    assert math.isnan(margins.baseline)


def test_lines_of_reproduced_tables(tmp_path: Path) -> None:
    """Such files hold K and the margin under two names each, the margin as a text."""
    margins = ("log10", "1.0", "none", "0.5", "ln")
    for number, (K, margin) in enumerate(itertools.product((1000, 100, 0), margins)):
        settings = {"method": "pomp", "K": K, "LOSS.NUM_CLASSES": K, "correction": margin, "LOSS.CORRECTION": margin}
        document = {"row": f"K = {K}, {margin}", "seed": 0, "settings": {**settings, "OPTIM.LR": 0.1, "seed": 0}}
        document |= {"table": "ablation_margin", "scale": "laptop", "set/top1": 50.0 + number}
        document |= {"_run": {"learned": f"hash {number}"}, "_protocol": {"set": {"split": "val"}}}
        (tmp_path / f"{number:016x}.json").write_text(json.dumps(document))
    report = reported(tmp_path)
    (numbers,) = sweeps(report.rows, report.columns, "K")
    assert numbers.values == ["100", "1000", "all"]
    labels = ["none", "0.5", "1", "log10", "ln"]
    assert sorted(line.label for line in numbers.lines) == sorted(f"correction: {label}" for label in labels)
    (margin,) = sweeps(report.rows, report.columns, "correction")
    assert margin.values == labels
    assert sorted(line.label for line in margin.lines) == ["K: 100", "K: 1000", "K: all"]
    line = next(line for line in margin.lines if line.label == "K: 1000")
    assert [value for _, value, _ in line.points] == [52.0, 53.0, 51.0, 50.0, 54.0]
    assert {"Accuracy against K", "Accuracy against the margin"} <= {plot.title for plot in report.plots}


def test_runs_that_differ_in_more_are_no_line(write_base_novel: Write, tmp_path: Path) -> None:
    write_base_novel("a", 41.0, 33.0, num_classes=100, correction="log10", shots=16)
    write_base_novel("b", 42.0, 33.0, num_classes=500, correction="log10", shots=100)
    report = reported(tmp_path)
    assert sweeps(report.rows, report.columns, "K") == []
    assert "sweeps" not in {plot.section for plot in report.plots}


def test_all_classes_stand_right_of_every_number(write_base_novel: Write, tmp_path: Path) -> None:
    for number in (0, 1000, 100):
        write_base_novel(f"K={number}", 41.0, 33.0, num_classes=number, correction=None)
    report = reported(tmp_path)
    assert sweeps(report.rows, report.columns, "K")[0].values == ["100", "1000", "all"]


def test_base_and_novel_columns_are_paired_by_their_candidates(all_kinds: Path) -> None:
    report = reported(all_kinds)
    pairs = base_novel_pairs(report.rows, report.columns)
    told = [
        (pair.base.dataset, pair.base.protocol.get("candidates"), pair.novel.protocol.get("candidates"))
        for pair in pairs
    ]
    # One segmenter alone is no picture.
    assert told == [("Tiny-ImageNet base classes", 160, 40), ("Tiny-ImageNet base classes", 200, 200)]
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
    (gain,) = class_gains(report.rows, report.columns, report.baselines)
    assert (gain.row.label, gain.baseline.label) == ("learned", "hand")
    assert gain.classes == [("dog", 20.0, 60.0), ("cat", -5.0, 45.0)]
    plot = next(plot for plot in report.plots if plot.section == "classes")
    assert "1 of 2 classes better, 1 worse, on average +7.5" in plot.caption
    assert [row.label for row in find_baselines(report.rows, "other")] == ["other"]
    with pytest.raises(UserError, match="no row is called 'lerned'; nearest: 'learned'"):
        find_baselines(report.rows, "lerned")


def test_drawings_are_whole_svg_of_the_pages_colours(all_kinds: Path) -> None:
    report = reported(all_kinds)
    assert {plot.section for plot in report.plots} == {"sweeps", "scatter", "curves"}
    titles = [plot.title for plot in report.plots if plot.section == "curves"]
    assert sorted(titles) == ["Detectors", "Prompts"]
    every: list[str] = []
    for plot in report.plots:
        root = ElementTree.fromstring(plot.svg)
        ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        every += ids
        assert all(each.startswith(f"{plot.key}-") for each in ids)
        named = root.attrib["aria-labelledby"].split()
        assert [root.find(f"{SVG}{tag}").attrib["id"] for tag in ("title", "desc")] == named  # type: ignore[union-attr]
        assert root.attrib["role"] == "img"
        assert "var(--ink)" in plot.svg
        assert "#a1" not in plot.svg, "a colour that does not follow the page"
        for reference in {part.split('"')[0] for part in plot.svg.split('href="#')[1:]}:
            assert reference in ids
        assert "<text" in plot.svg
    assert len(every) == len(set(every))


def test_the_same_runs_give_the_same_drawings(all_kinds: Path) -> None:
    first, second = reported(all_kinds), reported(all_kinds)
    assert [plot.svg for plot in first.plots] == [plot.svg for plot in second.plots]


def test_points_tell_their_row(all_kinds: Path) -> None:
    plot = next(plot for plot in reported(all_kinds).plots if plot.section == "scatter")
    titles = [element.text for element in ElementTree.fromstring(plot.svg).iter(f"{SVG}title")]
    assert any(text and "POMP K=1000, log10 – base 42.2, novel 31.0" in text for text in titles), titles


def test_awkward_names_are_text_in_drawings(write_run: Write, tmp_path: Path) -> None:
    names = ["_hidden", "$\\frac$", "<b>&amp;", 'id="x" url(#y)', "-->", "x" * 200]
    for number, name in enumerate(names):
        history = [{"loss": 3.0 - epoch, "accuracy": 0.1} for epoch in range(2)]
        path = write_run(f"r{number}", {"train/loss": 1.0}, {"train": {"metric": name}}, history=history)
        path.rename(tmp_path / f"{number}")
    arguments = [f"{name}={tmp_path / str(number)}" for number, name in enumerate(names) if "=" not in name]
    report = build_report(find_runs(arguments))
    (plot,) = report.plots
    shown = [element.text for element in ElementTree.fromstring(plot.svg).iter(f"{SVG}text")]
    assert {"\u200b_hidden", "$\\frac$", "<b>&amp;", "-->"} <= set(shown)
    assert "x" * 43 + "…" in shown


def test_each_data_set_has_its_own_hand_prompt(write_base_novel: Write, write_run: Write, tmp_path: Path) -> None:
    write_base_novel('"a photo of a {}."', 41.4, 32.9, None, templates=["a photo of a {}."])
    protocol = {"set": {"split": "val"}}
    with_classes(write_run("z_hand", {"set/top1": 50.0}, protocol, prompt="{}"), {"cat": 50.0})
    with_classes(write_run("learned", {"set/top1": 55.0}, protocol), {"cat": 45.0})
    report = reported(tmp_path)
    assert [row.label for row in report.baselines] == ['"a photo of a {}."', "z_hand"]
    gains = class_gains(report.rows, report.columns, report.baselines)
    assert [(gain.row.label, gain.baseline.label) for gain in gains] == [("learned", "z_hand")]
