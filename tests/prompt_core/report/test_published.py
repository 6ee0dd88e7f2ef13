"""Published numbers: what the printed means say, what may stand beside a table, differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prompt_core.report.build import build_report
from prompt_core.report.published import disagreements, load_published
from prompt_core.report.runs import find_runs

Write = Callable[..., Path]
TABLES = {table.name: table for table in load_published()}
TOP1 = {"split": "test", "metric": "top-1 over all images (micro)"}
LVIS = {"split": "lvis_v1_val", "metric": "LVIS AP (federated)", "detections": "300 of an image, over all classes"}


def test_the_tables_are_whole() -> None:
    assert len(TABLES) == 12
    for table in TABLES.values():
        assert table.source
        assert table.protocol
        assert table.task in ("classification", "detection", "segmentation")
        assert any(table.reference.startswith(name) for name, _ in table.rows)
        for name, values in table.rows:
            assert len(values) == len(table.columns), (table.name, name)
            assert all(math.isnan(value) or 0 < value < 100 for value in values)
        for column in table.columns:
            assert bool(column.datasets) == bool(column.metric)


def test_printed_means_are_those_of_the_printed_numbers_but_for_these() -> None:
    found = {
        (name, row, column, printed, round(computed, 1))
        for name, table in TABLES.items()
        for row, column, printed, computed in disagreements(table)
    }
    # The averages over ten and over four sets agree in every row; three harmonic means of other authors do not.
    assert found == {
        ("Open-vocabulary segmentation", "SPNet", "VOC hIoU", 21.8, 24.9),
        ("Open-vocabulary segmentation", "CaGNet", "VOC hIoU", 39.7, 38.6),
        ("Open-vocabulary segmentation", "ZSSeg", "VOC hIoU", 77.5, 77.6),
    }
    averaged = [column.name for table in TABLES.values() for column in table.columns if column.means]
    assert averaged == ["Avg10", "Avg4"]


def test_a_wrong_mean_is_found() -> None:
    import dataclasses

    table = TABLES["Cross-dataset and cross-domain transfer"]
    name, values = table.rows[0]
    wrong = dataclasses.replace(table, rows=((name, (values[0] + 3, *values[1:])),))
    assert [(row, column) for row, column, _, _ in disagreements(wrong)] == [("CoOp", "Avg10")]


def test_some_figures_by_hand() -> None:
    def value(table: str, row: str, column: str) -> float:
        names = [each.heading for each in TABLES[table].columns]
        return dict(TABLES[table].rows)[row][names.index(column)]

    assert value("ImageNet-21K", "POMP", "top-1, ViT-B/16") == 25.3
    assert value("ImageNet-21K", "linear probe", "top-1, RN50") == 6.5
    assert math.isnan(value("ImageNet-21K", "VPT", "top-1, RN50"))
    assert value("Cross-dataset and cross-domain transfer", "POMP", "EuroSAT") == 52.1
    assert value("Number of classes K", "K = 1000, no correction", "Avg10") == 65.8
    assert value("Margin m", "K = 1000", "Avg10, m = -1") == 67.0
    assert value("Cost of tuning on ImageNet-1K", "POMP, K = 128", "memory, GB") == 5.3
    assert value("Open-vocabulary LVIS", "POMP", "mask APr") == 25.2
    assert value("Detection across data sets", "POMP", "COCO AP50") == 57.9
    assert value("Open-vocabulary segmentation", "POMP", "VOC unseen") == 76.8
    assert value("Segmentation across data sets", "ZSSeg", "PASCAL-Context pACC") == 75.7


def beside(folder: Path) -> dict[str, Any]:
    report = build_report(find_runs([folder]))
    return {block.published.name: block for blocks in report.beside.values() for block in blocks}


@pytest.mark.parametrize("name", ["caltech101", "Caltech101", "caltech-101"])
def test_differences_to_the_reference(write_run: Write, name: str) -> None:
    folder = write_run("run", {f"{name}/top1": 94.5, f"{name}/top5": 99.0}, {name: TOP1})
    blocks = beside(folder)
    assert list(blocks) == ["Cross-dataset and cross-domain transfer"]
    block = blocks["Cross-dataset and cross-domain transfer"]
    assert dict(block.rows)["CoOp"] == [93.7]
    assert block.reference == "POMP"
    assert block.gaps == [(0, [pytest.approx(94.5 - 95.0)])]


def test_every_backbone_has_a_row(write_run: Write) -> None:
    block = beside(write_run("run", {"imagenet21k/top1": 25.0}, {"imagenet21k": TOP1}))["ImageNet-21K"]
    assert dict(block.rows)["POMP, RN50"] == [20.2]
    assert "MaPLe, RN50" not in dict(block.rows)
    assert block.reference == "POMP, ViT-B/16"
    assert block.gaps[0][1] == [pytest.approx(-0.3)]


def test_only_the_same_data_set_and_metric(write_run: Write) -> None:
    numbers = {"coco_small_val/box_AP": 6.9, "lvis_v1_minival/box_AP": 40.0, "caltech101/per_class": 90.0}
    protocol = {"coco_small_val": {"metric": "COCO AP"}, "lvis_v1_minival": LVIS, "caltech101": TOP1}
    assert beside(write_run("run", numbers, protocol)) == {}


def test_fixed_ap_is_another_metric(write_run: Write) -> None:
    plain = beside(write_run("plain", {"lvis_v1_val/box_AP": 36.0}, {"lvis_v1_val": LVIS}))
    assert list(plain) == ["Open-vocabulary LVIS", "Detection across data sets"]
    assert plain["Detection across data sets"].gaps[0][1] == [pytest.approx(-1.2)]
    fixed = {**LVIS, "metric": "LVIS Fixed AP"}
    assert beside(write_run("fixed", {"lvis_v1_val/box_AP": 36.0}, {"lvis_v1_val": fixed})) == {}


def test_undefined_numbers_have_no_difference(write_run: Write) -> None:
    numbers = {"lvis_v1_val/box_AP": math.nan, "lvis_v1_val/mask_AP": 30.0, "lvis_v1_val/mask_APr": None}
    block = beside(write_run("run", numbers, {"lvis_v1_val": LVIS}))["Open-vocabulary LVIS"]
    gaps = block.gaps[0][1]
    assert [math.isnan(gap) for gap in gaps] == [True, False, True]
    assert gaps[1] == pytest.approx(30.0 - 32.7)
    # PromptDet has mask numbers alone.
    assert math.isnan(dict(block.rows)["PromptDet"][0])


def test_two_protocols_of_a_data_set_each_have_the_published_number(write_run: Write, tmp_path: Path) -> None:
    words = {"split": "ade20k_sem_seg_val", "metric": "mIoU"}
    for denominator in ("union", "ground_truth"):
        protocol = {"ade20k_sem_seg_val": {**words, "miou_denominator": denominator}}
        write_run(denominator, {"ade20k_sem_seg_val/mIoU": 20.0}, protocol)
    block = beside(tmp_path)["Segmentation across data sets"]
    assert dict(block.rows)["POMP"] == [20.7, 20.7]
    assert "mIoU divides by" in block.published.protocol
    assert [sum(math.isfinite(gap) for gap in gaps) for _, gaps in block.gaps] == [1, 1]


def test_averages_of_runs_with_every_data_set(write_run: Write, tmp_path: Path) -> None:
    table = TABLES["Cross-dataset and cross-domain transfer"]
    names = [column.name for column in table.columns[:10]]
    pomp = dict(table.rows)["POMP"]
    numbers = {f"{name}/top1": value for name, value in zip(names, pomp[:10], strict=True)}
    write_run("whole", numbers, dict.fromkeys(names, TOP1))
    write_run("other", numbers, {**dict.fromkeys(names, TOP1), "EuroSAT": {**TOP1, "split": "val"}})
    write_run(
        "part", {key: value for key, value in numbers.items() if "EuroSAT" not in key}, dict.fromkeys(names, TOP1)
    )
    report = build_report(find_runs([tmp_path]))
    averages = [column for column in report.columns if column.dataset == "Avg10"]
    # One other protocol among ten makes another average, in words that tell them apart.
    assert len(averages) == len({column.words for column in averages}) == 2
    held = [[part.numbers["top1"] for run in row.runs if (part := averages[0].part(run))] for row in report.rows]
    assert sorted(held) == [[], [], [pytest.approx(67.01)]]
    block = next(each for blocks in report.beside.values() for each in blocks if each.published is table)
    place = next(place for place, column in enumerate(report.tables[0].columns) if column.dataset == "Avg10")
    assert dict(block.rows)["POMP"][place] == 67.0
    assert "Number of classes K" in {each.published.name for blocks in report.beside.values() for each in blocks}
    assert report.tables[0].title == "top-1, 10 data sets"


def test_an_average_with_an_undefined_number_is_undefined(write_run: Write) -> None:
    names = ["imagenetv2", "imagenet-sketch", "imagenet_a", "imagenet-rendition"]
    numbers = {f"{name}/top1": 50.0 for name in names} | {"imagenet_a/top1": math.nan}
    report = build_report(find_runs([write_run("run", numbers, dict.fromkeys(names, TOP1))]))
    (column,) = [column for column in report.columns if column.dataset == "Avg4"]
    part = column.part(report.rows[0].runs[0])
    assert part is not None
    assert math.isnan(part.numbers["top1"])
