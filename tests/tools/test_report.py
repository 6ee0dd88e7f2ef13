"""``tools/report.py`` as users run it: the two files, and one line for bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="drawings need matplotlib (extra `demo`)")

ROOT = Path(__file__).resolve().parents[2]
CallTool = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs/one"
    folder.mkdir(parents=True)
    run = {"seed": 1, "clip": "ViT-B-16-quickgelu", "pretrained": "openai"}
    words = {"split": "test", "metric": "top-1 over all images (micro)", "images": 2_465, "candidates": 100}
    protocol = {"caltech101": {**words, "source": "caltech101, published split"}}
    document = {"caltech101/top1": 94.5, "_run": run, "_protocol": protocol}
    (folder / "metrics.json").write_text(json.dumps(document))
    return folder


def test_both_files_are_written(run_folder: Path, call_tool: CallTool, tmp_path: Path) -> None:
    code, out, error = call_tool("report", "runs", "--output", "out")
    assert (code, error) == (0, "")
    assert out == "1 run in 1 row on 1 data set; each protocol has its own columns.\nopen out/report.html\n"
    assert "| one − POMP |  | −0.5 |" in (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "−0.5" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_the_committed_results(call_tool: CallTool, tmp_path: Path) -> None:
    files = [ROOT / f"docs/results/{name}.json" for name in ("base_novel_tune", "scenes", "coco_small", "base_novel")]
    code, out, error = call_tool("report", *files, "--output", tmp_path / "out")
    assert (code, error) == (0, "")
    assert "Several protocols" in out
    text = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    for part in ("POMP K=1000, ln, 16 shots", 'boxes, "a {name}"', "coco_small", "report half", "tune half"):
        assert part in text


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, ["absent"], "no run at absent; "),
        (None, ["empty"], "no run in empty: it holds neither a metrics.json"),
        ("{", ["bad"], "is not valid JSON"),
        ("{}x", ["runs/one", "bad"], "is not valid JSON"),
        ('{"a": 1}', ["bad"], "holds no results"),
        (None, ["runs/one", "runs/one"], "two runs are called 'one'"),
        (None, ["runs/one", "--baseline", "two"], "no row is called 'two'"),
        (None, [], "are required"),
        (None, ["runs/one", "--outputs", "x"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_line(
    run_folder: Path, tmp_path: Path, call_tool: CallTool, content: str | None, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    if content is not None:
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad/metrics.json").write_text(content)
    code, out, error = call_tool("report", *arguments, "--output", "out")
    assert (code, out) == (2, "")
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(run_folder: Path, tmp_path: Path, call_tool: CallTool) -> None:
    (tmp_path / "file").write_text("mine")
    code, _, error = call_tool("report", run_folder, "--output", tmp_path / "file")
    assert code == 2
    assert "cannot write to" in error
    assert (tmp_path / "file").read_text() == "mine"
