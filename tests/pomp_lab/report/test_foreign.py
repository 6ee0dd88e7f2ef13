"""Documents of other people may hold anything: a report comes out whole, or one line says what is wrong."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("matplotlib", reason="drawings need matplotlib (extra `demo`)")

from pomp_lab.report.build import Report, write_report
from prompt_core.errors import UserError
from tests.support.hostile import CONTROLS, MARKUP, json_files, success_or_one_line

TOP1 = {"split": "test", "metric": "top-1 over all images (micro)", "images": 7_500, "candidates": 200}
MODEL = {"clip": "ViT-B-16-quickgelu", "pretrained": "openai"}


def run(K: int, name: str = "x", **about: Any) -> dict[str, Any]:
    """A run with a place in every kind of plot but that of classes, and beside published numbers."""
    numbers = {f"{name}base/top1": 50.0 + K, f"{name}novel/top1": 40.0, "imagenet_a/top1": 1.0, "lvis_v1_val/box_AP": 2}
    sides = {f"{name}{side}": {"split": name, "candidates": 5} for side in ("base", "novel")}
    how = {"seed": 0, "settings": {"K": K, "shots": name}, "history": [{"loss": 2.0, "accuracy": 0.5}, {"loss": 1.0}]}
    return {**numbers, "_run": {**how, **MODEL, **about}, "_protocol": {**sides, "imagenet_a": TOP1}}


def report_of(folder: Path, content: bytes) -> Report:
    """Of a document; page, Markdown and pictures are whole."""
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run/metrics.json").write_bytes(content)
    report = write_report([folder / "run"], folder / "out")
    for line in (report.summary, *report.notes):
        assert len(line.encode("utf-8").splitlines()) == 1
    page = (folder / "out/report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    for picture in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", page):
        ElementTree.fromstring(base64.b64decode(picture))
    assert not re.search("[\x00-\x08\x1b\u202e]", page + (folder / "out/report.md").read_text(encoding="utf-8"))
    return report


@pytest.mark.filterwarnings("error")
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(json_files({"about": {"command": "reproduce.py"}, "runs": {"one": run(1), "two": run(2)}}))
def test_anything_is_reported_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    success_or_one_line(lambda: report_of(tmp_path, content))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("NaN", None),
        ("-Infinity", None),
        ("1e15", None),
        ("1e300", "no metric is larger than 1e+15"),
        ("-1" + "0" * 400, "no metric is larger than 1e+15"),
        ("1" * 5000, "holds a number of more than 4,300 digits"),
        ('{"a": 1}', "a number is expected"),
        ("[" * 60 + "]" * 60, "it is nested more than 50 levels deep"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        # Half a character, which no file of text can hold.
        ('1.0, "\\ud800/top1": 1.0', "is not valid JSON"),
    ],
)
def test_strange_numbers(tmp_path: Path, value: str, message: str | None) -> None:
    text = '{"set/top1": ' + value + ', "_run": {}, "_protocol": {"set": {"split": "val"}}}'
    if message is None:
        assert report_of(tmp_path, text.encode()).tables
    else:
        with pytest.raises(UserError, match=re.escape(message)):
            report_of(tmp_path, text.encode())
        assert not (tmp_path / "out").exists()


def test_strange_descriptions_are_no_error(tmp_path: Path) -> None:
    strange: list[dict[str, Any]] = [
        {"config": "MODEL:\n  NAME: 2024-13-45\n"},
        {"config": "MODEL: &a\n  NAME: *a\n"},
        {"config": "a: " + "[" * 5000},
        {"prompt": "a" * 5000 + ".safetensors"},
        {"prompt": "\x00.safetensors"},
        {"history": [{"loss": 1e308}, {"loss": -1e308}, {"loss": 10**400}]},
        {"settings": {"K": 10**400}},
    ]
    runs = {str(number): run(number, **about) for number, about in enumerate(strange)}
    for document in runs.values():
        del document["_run"]["clip"]
    assert len(report_of(tmp_path, json.dumps({"runs": runs}).encode()).rows) == len(strange)


def test_numbers_of_classes_may_be_anything_too(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    rows = [{"name": "cat", "top1": 10**400}, {"name": [], "top1": 1.0}, {"name": "dog", "top1": "high"}, 5]
    (tmp_path / "run/per_class.json").write_text(json.dumps({"dataset": "xbase", "classes": rows}))
    (read,) = report_of(tmp_path, json.dumps(run(1)).encode()).runs
    assert list(read.classes.values()) == [{"cat": {}, "[]": {"top1": 1.0}, "dog": {}}]


def test_names_are_shown_in_every_plot_and_never_obeyed(tmp_path: Path) -> None:
    """As data sets with base and novel classes, as rows of a sweep and as learning curves."""
    names = ["".join(CONTROLS), "".join(MARKUP), "$\\frac$", "_x", "\uffff", "a" * 300]
    runs = {f"{name} {K}": run(K, name) for name in names for K in (1, 2)}
    report = report_of(tmp_path, json.dumps({"runs": runs}).encode())
    assert list(report.plots) == ["K and the margin", "Base against novel", "Learning"]
