"""Tables in the documentation say what the result files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prompt_core.background.background import CALIBRATED_SCALES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
PAGE = (ROOT / "docs" / "classification.md").read_text(encoding="utf-8")
LAPTOP = ["imagenet21k", "cross_dataset", "cross_domain", "ablation_k", "ablation_margin", "align_uniform"]
MINI_PROMPT = ["mini_prompt", "mini_prompt_tune"]
BASE_NOVEL = ["base_novel", "base_novel_anchor", "base_novel_tune", "base_novel_tune_lr_0.02"]


def rows_below(text: str, start: str) -> list[list[str]]:
    """Cells of the first table behind ``start``, headings first."""
    lines = text[text.index(start) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split(" | ")])
    return [row for number, row in enumerate(rows) if number != 1]


def documents(table: str) -> dict[str, dict[str, Any]]:
    """The ``metrics.json`` documents of a results file by ``ROW/seed N``."""
    runs: dict[str, dict[str, Any]] = json.loads((RESULTS / f"{table}.json").read_text(encoding="utf-8"))["runs"]
    return runs


def number_of(document: dict[str, Any], heading: str) -> float | None:
    """The number of a run that belongs below a heading of a written table."""
    dataset, _, metric = heading.partition(":")[0].partition(", ")
    if dataset in document["_protocol"]:
        value: float | None = document.get(f"{dataset}/{metric or 'top1'}")
        return value
    if " / " in heading:  # images / candidates
        part, _, candidates = heading.partition(" / ")
        for name, words in document["_protocol"].items():
            images = words.get("images_of", "photos").removesuffix(" classes")
            if (images, f"{words['candidates']:,}") == (part, candidates):
                return float(document[f"{name}/top1"])
    if heading in ("alignment", "uniformity"):
        return float(document[f"tiny_imagenet_novel_of_own/{heading}"])
    if len(document["_protocol"]) > 1 or "_of_" in heading:
        return None  # a method has no number where it cannot answer
    (dataset,) = document["_protocol"]
    return float(document[f"{dataset}/{heading.replace(' ', '_')}"])


def test_costs_on_paper_are_those_of_the_result_file() -> None:
    estimates = json.loads((RESULTS / "ranks.json").read_text(encoding="utf-8"))["on_paper"]["rows"]
    seconds = {(row["ranks"], row["step"]): row["all"] for row in estimates if row["machines"] == "GPUs"}
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    _, *rows = rows_below(page, "<!-- on paper: GPUs -->")
    shown = {
        (int(row[0]), step): float(cell)
        for row in rows
        for step, cell in zip(("one draw", "a draw each", "full softmax"), row[1:], strict=True)
    }
    assert {key: round(1000 * value, 1) for key, value in seconds.items()} == shown


@pytest.mark.parametrize("table", LAPTOP)
def test_tables_of_the_page_are_those_that_were_written(table: str) -> None:
    rows = rows_below((RESULTS / f"{table}_laptop.md").read_text(encoding="utf-8"), "| row")
    written = {row[0]: row[2:] for row in rows[1:]}
    shown = rows_below(PAGE, f"<!-- measured: {table} -->")[1:]
    assert len(shown) >= 5
    for name, *cells in shown:
        assert cells == written[name], name


@pytest.mark.parametrize(
    "table", [*(f"{name}_laptop" for name in LAPTOP), *BASE_NOVEL, *MINI_PROMPT, "scenes", "scenes_seg", "coco_seg"]
)
def test_written_tables_are_means_of_the_result_files(table: str) -> None:
    results = documents(table)
    text = (RESULTS / f"{table}.md").read_text(encoding="utf-8")
    headings, *rows = rows_below(text, f"| {'row' if 'laptop' in table else ''}")
    checked = 0
    for name, count, *cells in rows:
        runs = [document for key, document in results.items() if key.partition("/seed ")[0] == name]
        assert len(runs) == int(count), name
        for heading, cell in zip(headings[2:], cells, strict=True):
            values = [value for run in runs if (value := number_of(run, heading)) is not None]
            digits = 3 if heading.endswith(("alignment", "uniformity")) else 1
            expected = f"{sum(values) / len(values):.{digits}f}" if values else ""
            if " ± " in cell:
                expected += f" ± {(max(values) - min(values)) / 2:.{digits}f}"
            assert cell.replace("−", "-") == expected, (name, heading)
            checked += bool(values)
    assert checked >= 15


def test_detectors_of_the_scenes_are_shown_as_they_were_written() -> None:
    page = (ROOT / "docs/detection.md").read_text(encoding="utf-8")
    written = {row[0]: row[2:] for row in rows_below((RESULTS / "scenes.md").read_text(encoding="utf-8"), "| ")[1:]}
    shown: list[str] = []
    for start in ("## What words, prompt and image labels bring", "**ViLD-ensemble, DetPro, PromptDet, and regions"):
        headings, *rows = rows_below(page, start)
        for name, *cells in rows:
            assert len(cells) == len(headings) - 1, name
            assert cells == written[name], name
            shown.append(name)
    assert sorted(shown) == sorted(written)


def test_the_prompt_of_the_package_is_shown_as_it_was_measured() -> None:
    page = (ROOT / "docs/learned_prompts.md").read_text(encoding="utf-8")
    shown = rows_below(page, "<!-- measured: mini_prompt -->")
    assert shown == rows_below((RESULTS / "mini_prompt.md").read_text(encoding="utf-8"), "| ")
    assert len(shown) == 6


def test_own_shares_are_those_that_were_measured() -> None:
    measured = json.loads((RESULTS / "own_share.json").read_text(encoding="utf-8"))
    numbers = {(row["photos"], row["words"], row["score"]): row for row in measured["rows"]}
    assert CALIBRATED_SCALES["mini"] == measured["scale"]["chosen"]
    shown = 0
    for photos in measured["sets"]:
        headings, *rows = rows_below(PAGE, f"<!-- measured: own_share {photos} -->")
        for score, *cells in rows:
            for heading, cell in zip(headings[1:], cells, strict=True):
                row = numbers[photos, int(heading.split()[0]), score]
                assert cell == f"{row['precision']['mean']:.1f} / {row['coverage']['mean']:.1f}"
                shown += 1
    assert shown == len(measured["rows"])
    headings, right, count = rows_below(PAGE, "**Are shares probabilities?**")
    bins = measured["reliability"]["imagenet_samples"]["own share"]["bins"]
    assert right[1:] == [f"{part['right']:.1f}" for part in bins]
    assert count[1:] == [f"{part['photos']:,}" for part in bins]
    assert len(headings) == len(right)
