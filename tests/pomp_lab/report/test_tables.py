"""Rows, columns and tables: means over seeds, labels, order, best numbers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pomp_lab.report.build import Report, build_report, report_page
from pomp_lab.report.columns import columns_of, ordered_columns
from pomp_lab.report.find import FoundRuns, find_runs
from pomp_lab.report.results import Run
from pomp_lab.report.rows import group_rows, number_text
from pomp_lab.report.tables import build_tables

Write = Callable[..., Path]
VAL = {"split": "val"}


def run_of(name: str, label: str | None = None, hand: bool = False, seed: int | None = None, **numbers: float) -> Run:
    settings = {} if seed is None else {"seed": seed}
    return Run(name, Path(name), label or name, columns_of("set", VAL, numbers), settings=settings, hand=hand)


def tables_of(*runs: Run) -> Any:
    rows = group_rows(runs)
    return rows, build_tables(rows, ordered_columns(column for run in runs for column in run.numbers))


def test_seeds_share_a_row_as_mean_and_half_the_range() -> None:
    runs = [run_of(f"r{seed}", "POMP", seed=seed, top1=value) for seed, value in enumerate((40.0, 41.0, 44.0))]
    rows, (table,) = tables_of(*runs)
    numbers = rows[0].means[table.columns[0]]
    assert (numbers.value, numbers.spread, numbers.count, rows[0].seeds) == (125 / 3, 2.0, 3, 3)
    assert numbers.text("top1", rows[0].seeds) == "41.7 ± 2.0"


def test_undefined_numbers_stay_out_of_means_and_are_reported() -> None:
    runs = [run_of("r0", "POMP", seed=0, top1=40.0), run_of("r1", "POMP", seed=1, top1=math.nan)]
    rows, tables = tables_of(*runs, run_of("none", top1=math.nan), run_of("other", top5=1.0))
    table = next(table for table in tables if table.columns[0].metric == "top1")
    means = [row.means.get(table.columns[0]) for row in rows]
    texts = [mean.text("top1", 1) if mean else "" for mean in means]
    assert texts == ["40.0 (1 of 2 runs defined)", "–", ""]
    assert table.best(table.columns[0]) is None


def test_a_metric_that_some_seeds_lack_is_reported() -> None:
    rows, (table, _) = tables_of(
        run_of("r0", "POMP", seed=0, top1=40.0, top5=70.0), run_of("r1", "POMP", seed=1, top5=72.0)
    )
    numbers = rows[0].means[table.columns[0]]
    assert numbers.text("top1", rows[0].seeds) == "40.0 (n=1)"


def test_rows_of_one_label_are_distinguished_by_what_differs(write_run: Write) -> None:
    how = {rate: {"row": "POMP", "settings": {"learning_rate": rate}} for rate in (0.0005, 0.02)}
    rows = group_rows(find_runs([write_run(str(rate), {"set/top1": 1.0}, **how[rate]) for rate in how]).runs)
    assert [row.label for row in rows] == ["POMP (learning_rate 0.0005)", "POMP (learning_rate 0.02)"]


def test_labels_say_what_a_row_has_and_not_what_it_lacks() -> None:
    last = {"K": 0, "SELECT.ON": "last", "SELECT_ON_TEST": False}
    held_out = {**last, "SELECT.ON": "held_out"}
    chosen = {**last, "SELECT_ON_TEST": True, "EVAL.SPLIT": "val", "EVAL.VOCABULARY": ""}
    small = {**last, "K": 100}
    runs = [
        Run(f"r{number}", Path("f"), "CoOp", {}, settings={**settings, "seed": 0})
        for number, settings in enumerate((last, held_out, chosen, small))
    ]
    assert [row.label for row in group_rows(runs)] == [
        "CoOp (K 0, SELECT.ON last)",
        "CoOp (K 0, SELECT.ON held_out)",
        "CoOp (K 0, SELECT.ON last, SELECT_ON_TEST True)",
        "CoOp (K 100, SELECT.ON last)",
    ]


def test_a_row_that_only_lacks_what_another_has_keeps_its_plain_label(tmp_path: Path) -> None:
    plain = Run("a", tmp_path / "a", "ensemble", {}, settings={"K": 100})
    changed = Run("b", tmp_path / "b", "ensemble", {}, settings={"K": 100, "clip": "mini"})
    assert [row.label for row in group_rows([plain, changed])] == ["ensemble", "ensemble (clip mini)"]


def test_rows_that_words_do_not_tell_apart_are_called_by_their_runs() -> None:
    settings = [{"clip": "ab" * 32}, {"clip": "cd" * 32}]
    runs = [Run(f"r{number}", Path("f"), "CoOp", {}, settings=stated) for number, stated in enumerate(settings)]
    assert [row.label for row in group_rows(runs)] == ["CoOp (r0)", "CoOp (r1)"]


def write_prompt(folder: Path, seed: int, rate: float = 0.1, **changes: Any) -> Path:
    """A learned prompt and the other files of its training; returns the prompt."""
    import torch

    from prompt_core import SoftPrompt

    folder.mkdir(parents=True)
    metrics = {"train/loss": 1.0 + seed}
    training = {"seed": seed, "epochs": 3}
    path = folder / "prompt.safetensors"
    SoftPrompt(torch.zeros(2, 4)).save(path, K=100, correction="ln", training=training, metrics=metrics)
    config = f"SEED: {seed}\nOUTPUT: {folder}\nOPTIM:\n  LR: {rate}\nLOSS:\n  NUM_CLASSES: 100\n  CORRECTION: ln\n"
    document = {**metrics, "_run": {"config": config}, "_protocol": {}, **changes}
    (folder / "metrics.json").write_text(json.dumps(document))
    return path


def test_scored_prompts_that_differ_in_the_seed_alone_share_a_row(write_run: Write, tmp_path: Path) -> None:
    folders = []
    for number, value in enumerate((40.0, 42.0, 47.0)):
        prompt = write_prompt(tmp_path / f"learned{number}", number)
        folders.append(write_run(f"s{number}", {"set/top1": value}, {"set": VAL}, prompt=str(prompt)))
    (row,) = group_rows(find_runs(folders).runs)
    assert (row.label, row.seeds) == ("s0, s1, s2", 3)
    (numbers,) = row.means.values()
    assert numbers.text("top1", row.seeds) == "43.0 ± 3.5"
    # Another rate, another training next to the prompt, or the same seed again: rows of their own.
    for name, seed, rate, changes in (
        ("rate", 3, 0.2, {}),
        ("stranger", 4, 0.1, {"train/loss": 9.0}),
    ):
        prompt = write_prompt(tmp_path / f"learned_{name}", seed, rate, **changes)
        folders.append(write_run(name, {"set/top1": 50.0}, {"set": VAL}, prompt=str(prompt)))
    assert [row.label for row in group_rows(find_runs(folders).runs)] == ["s0, s1, s2", "rate", "stranger"]
    again = write_run("again", {"set/top1": 40.0}, {"set": VAL}, prompt=str(tmp_path / "learned0/prompt.safetensors"))
    assert [row.label for row in group_rows(find_runs([*folders[:2], again]).runs)] == ["s0", "s1", "again"]


def test_runs_with_a_metrics_file_each_have_a_row_of_their_own(write_run: Write) -> None:
    folders = [write_run(name, {"set/top1": 1.0}, {"set": VAL}) for name in ("a", "b")]
    assert [row.label for row in group_rows(find_runs(folders).runs)] == ["a", "b"]


def test_halves_of_the_photos_are_two_columns_of_one_table(write_run: Write) -> None:
    folders = []
    for half, value in (("report", 41.0), ("tune", 42.0)):
        numbers, protocol = {}, {}
        for among, count in (("own classes", 160), ("base and novel", 200)):
            numbers[f"base of {among}/top1"] = value
            protocol[f"base of {among}"] = {"candidate_names": among, "candidates": count, "half": half}
        folders.append(write_run(half, numbers, protocol, row="POMP", settings={"K": 100}))
    report = build_report(find_runs(folders))
    table = report.tables[0]
    assert [column.difference for column in table.columns] == ["report half", "tune half"] * 2
    assert len(report.rows) == 1
    assert any(
        "Several protocols were used on base of own classes, base of base and novel" in note for note in report.notes
    )


def test_the_best_mean_is_the_highest_but_for_losses() -> None:
    rows, tables = tables_of(run_of("a", top1=40.04, uniformity=-3.0), run_of("b", top1=40.01, uniformity=-2.0))
    by_metric = {table.columns[0].metric: table for table in tables}
    # Both read 40.0: neither is better to a reader.
    assert by_metric["top1"].best(by_metric["top1"].columns[0]) == "40.0"
    assert by_metric["uniformity"].best(by_metric["uniformity"].columns[0]) == "−3.000"
    shown = [number_text(value, "top1", signed=True) for value in (-0.04, 0.04, -0.06, 2, math.inf)]
    assert shown == ["0.0", "0.0", "−0.1", "+2.0", "–"]
    assert len(rows) == 2


def test_tables_of_all_tasks(all_kinds_report: Report) -> None:
    report = all_kinds_report
    assert [(table.task, table.title) for table in report.tables if table.main] == [
        ("classification", "top-1, 4 data sets"),
        ("classification", "top-1, caltech-101"),
        ("detection", "lvis_v1_val"),
        ("segmentation", "voc_sem_seg_test"),
    ]
    segmentation = next(table for table in report.tables if table.task == "segmentation")
    # mIoU-base is mIoU-seen by another name; training is in no table.
    assert [column.metric for column in segmentation.columns] == ["mIoU-seen", "mIoU-unseen", "mIoU"]
    assert not any(column.dataset == "train" for table in report.tables for column in table.columns)


def test_numbers_of_training_are_in_no_table_but_those_of_folders_called_so_are(write_run: Write) -> None:
    numbers = {
        "train/loss": 1.0,
        "train/accuracy": 0.5,
        "validation/C": 3.0,
        "train/top1": 50.0,
        "validation/top1": 6.0,
    }
    report = build_report(find_runs([write_run("run", numbers, {"train": VAL, "validation": VAL})]))
    shown = [(column.dataset, column.metric) for table in report.tables for column in table.columns]
    assert shown == [("train", "top1"), ("validation", "top1")]


def test_boxes_and_masks_stand_together_where_that_is_narrow(write_run: Write) -> None:
    few = {f"small/{task}_AP{size}": 1.0 for task in ("box", "mask") for size in ("", "50", "75")}
    many = {f"large/{task}_AP{size}": 1.0 for task in ("box", "mask") for size in ("", "r", "c", "f", "s", "m", "l")}
    report = build_report(find_runs([write_run("run", {**few, **many}, {"small": VAL, "large": VAL})]))
    assert [table.title for table in report.tables] == ["small", "large, boxes", "large, masks"]
    assert report.tables[0].columns[0].metric == "box_AP"


def test_headings_say_what_varies_only() -> None:
    single = [Run("a", Path("a"), "a", columns_of("set", VAL, {"top1": 1.0}))]
    splits = [*single, Run("b", Path("b"), "b", columns_of("set", {"split": "test"}, {"top1": 2.0}))]
    both = {**columns_of("other", VAL, {"top1": 2.0}), **columns_of("set", VAL, {"top1": 2.0})}
    sets = [*single, Run("b", Path("b"), "b", both)]
    assert tables_of(*single)[1][0].headings == ["top-1"]
    assert tables_of(*splits)[1][0].headings == ["top-1: split val", "top-1: split test"]
    assert tables_of(*sets)[1][0].headings == ["set", "other"]
    detector = Run("d", Path("d"), "d", columns_of("set", VAL, {"box_AP": 1.0, "box_APr": 2.0}))
    other = Run("e", Path("e"), "e", columns_of("set", {"split": "test"}, {"box_AP": 1.0, "box_APr": 2.0}))
    assert tables_of(detector, other)[1][0].headings == [
        *("box AP: split val", "box APr: split val"),
        *("box AP: split test", "box APr: split test"),
    ]


def test_ten_times_the_runs_take_about_ten_times_as_long() -> None:
    """Of one protocol each, so that every run has a table of its own: what looks through all others takes 100 times."""

    def seconds(count: int) -> float:
        runs = []
        for number in range(count):
            numbers = {"top1": float(number), "top5": 1.0, "per_class": 2.0}
            runs.append(Run(f"r{number}", Path("f"), f"r{number}", columns_of("base", {"split": number}, numbers)))
        started = time.process_time()
        report = build_report(FoundRuns(runs, []))
        page = report_page(report)
        assert len(report.tables) == 3 * count
        assert len(page.sections) > count
        return time.process_time() - started

    seconds(20)
    assert seconds(600) < 40 * seconds(60)
