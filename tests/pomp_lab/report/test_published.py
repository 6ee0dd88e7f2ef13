"""Published numbers: the printed means, comparisons with a table, differences."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pomp_lab.report.build import build_report, report_page
from pomp_lab.report.comparable import ARCHITECTURES
from pomp_lab.report.find import find_runs
from pomp_lab.report.page import render_html, render_markdown
from pomp_lab.report.published import PublishedTable, load_published
from prompt_core.data.catalog.lookup import classification_entry
from prompt_core.metrics import harmonic_mean

Write = Callable[..., Path]
TABLES = {table.name: table for table in load_published()}
LVIS = {
    "split": "lvis_v1_val",
    "metric": "LVIS AP (federated)",
    "detections": "300 of an image, over all classes",
    "images": 19_809,
}
RESNET = "MODEL:\n  TIMM:\n    BASE_NAME: resnet50_in21k\n"


def model(name: str, pretrained: str = "openai") -> str:
    """The configuration that a run wrote down."""
    return f"MODEL:\n  NAME: {name}\n  PRETRAINED: '{pretrained}'\n"


VIT = model("ViT-B-16-quickgelu")


def as_published(name: str, **words: Any) -> dict[str, Any]:
    """The protocol of all test images of a catalogued set."""
    entry = classification_entry(name)
    return {
        "split": "test",
        "metric": "top-1 over all images (micro)",
        "images": entry.test.number,
        "candidates": entry.classes.number,
        "namesakes": "separate",
        "unreadable": [],
        "source": f"{entry.name}:test (published split split_zhou.json)",
        **words,
    }


def test_the_tables_are_whole() -> None:
    assert len(TABLES) == 12
    for table in TABLES.values():
        assert table.source
        assert table.protocol
        assert table.task in ("classification", "detection", "segmentation")
        assert table.reference in dict(table.rows)
        assert not (table.model and any(column.model for column in table.columns))
        assert set(filter(None, [table.model, *(column.model for column in table.columns)])) <= set(ARCHITECTURES)
        for name, values in table.rows:
            assert len(values) == len(table.columns), (table.name, name)
            assert all(math.isnan(value) or 0 < value < 100 for value in values)
        for column in table.columns:
            assert bool(column.datasets) == bool(column.metric)


def disagreements(table: PublishedTable) -> set[tuple[str, str, float, float]]:
    """Printed means that the printed numbers do not give: row, column, printed, computed.

    Every number is rounded, so a mean of them is off by up to half a unit of the last digit, and so is the printed one.
    """
    wrong = set()
    for name, values in table.rows:
        for column, printed in zip(table.columns, values, strict=True):
            if column.means:
                members = [values[place] for place in column.means]
                computed, slack = sum(members) / len(members), 0.05
            elif column.harmonic:
                first, second = (values[place] for place in column.harmonic)
                computed = harmonic_mean(first, second)
                # The derivatives are 2b²/(a+b)² and 2a²/(a+b)².
                slack = 0.05 * 2 * (first**2 + second**2) / (first + second) ** 2
            else:
                continue
            if abs(computed - printed) > slack + 0.05 + 1e-9:
                wrong.add((name, column.name, printed, round(computed, 1)))
    return wrong


def test_printed_means_are_those_of_the_printed_numbers_but_for_these() -> None:
    # The averages over ten and over four sets agree in every row; three harmonic means of other authors do not.
    assert {name: wrong for name, table in TABLES.items() if (wrong := disagreements(table))} == {
        "Open-vocabulary segmentation": {
            ("SPNet", "VOC hIoU", 21.8, 24.9),
            ("CaGNet", "VOC hIoU", 39.7, 38.6),
            ("ZSSeg", "VOC hIoU", 77.5, 77.6),
        }
    }
    averaged = [column.name for table in TABLES.values() for column in table.columns if column.means]
    assert averaged == ["Avg10", "Avg4"]


def test_some_figures_by_hand() -> None:
    def value(table: str, row: str, column: str) -> float:
        names = [heading_column.heading for heading_column in TABLES[table].columns]
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


def comparisons_of(folder: Path) -> dict[str, Any]:
    report = build_report(find_runs([folder]))
    return {block.published.name: block for table in report.tables for block in table.comparisons}


@pytest.mark.parametrize("name", ["caltech101", "Caltech101", "caltech-101"])
def test_differences_to_the_reference(write_run: Write, name: str) -> None:
    numbers = {f"{name}/top1": 94.5, f"{name}/top5": 99.0}
    blocks = comparisons_of(write_run("run", numbers, {name: as_published(name)}, config=VIT))
    assert list(blocks) == ["Cross-dataset and cross-domain transfer"]
    block = blocks["Cross-dataset and cross-domain transfer"]
    assert dict(block.rows)["CoOp"] == [93.7]
    assert [(row.label, reference) for row, reference, _ in block.gaps] == [("run", "POMP")]
    assert block.gaps[0][2] == [pytest.approx(94.5 - 95.0)]
    assert block.refused == []


@pytest.mark.parametrize(
    ("name", "published", "gap"), [("RN50", 20.2, 4.8), ("ViT-B/32", 22.2, 2.8), ("ViT-B/16", 25.3, -0.3)]
)
def test_each_run_is_set_against_the_row_of_its_own_backbone(
    write_run: Write, name: str, published: float, gap: float
) -> None:
    words = as_published("imagenet21k")
    folder = write_run("run", {"imagenet21k/top1": 25.0}, {"imagenet21k": words}, config=model(ARCHITECTURES[name]))
    block = comparisons_of(folder)["ImageNet-21K"]
    assert dict(block.rows)[f"POMP, {name}"] == [published]
    assert all(label.endswith(f", {name}") for label, _ in block.rows)
    assert [(reference, numbers) for _, reference, numbers in block.gaps] == [(f"POMP, {name}", [pytest.approx(gap)])]
    assert ("MaPLe, RN50" in dict(block.rows)) is False


def test_several_backbones_share_a_column_with_a_reference_each(write_run: Write, tmp_path: Path) -> None:
    for number, name in enumerate(["RN50", "ViT-B/16"]):
        protocol = {"imagenet21k": as_published("imagenet21k")}
        config = model(ARCHITECTURES[name])
        write_run(f"run{number}", {"imagenet21k/top1": 20.0}, protocol, config=config)
    write_run("small", {"imagenet21k/top1": 3.0}, {"imagenet21k": as_published("imagenet21k")}, config=model("mini"))
    block = comparisons_of(tmp_path)["ImageNet-21K"]
    assert [(row.label, reference) for row, reference, _ in block.gaps] == [
        ("run0", "POMP, RN50"),
        ("run1", "POMP, ViT-B/16"),
    ]
    assert "POMP, ViT-B/32" not in dict(block.rows)
    assert block.refused == [
        "imagenet21k (row 3): its model is mini, the published ones are OpenAI's RN50, ViT-B/32 and ViT-B/16"
    ]


def test_what_cannot_be_compared_stands_in_no_column(write_run: Write, tmp_path: Path) -> None:
    """50 images among 21,843 names, and a small model: neither shares a column with the published 52.1."""
    part = as_published("eurosat", split="val", candidates=21_843, images=50)
    write_run("part", {"eurosat/top1": 40.0}, {"eurosat": part}, config=VIT)
    write_run("small", {"eurosat/top1": 30.0}, {"eurosat": as_published("eurosat")}, config=model("mini", ""))
    block = comparisons_of(tmp_path)["Cross-dataset and cross-domain transfer"]
    assert (block.rows, block.gaps) == ([], [])
    assert block.refused == [
        "eurosat (row 1): its split is val, the published one is test",
        "eurosat (row 2): its model is mini, the published one is OpenAI's ViT-B/16",
    ]
    report = build_report(find_runs([tmp_path]))
    page = report_page(report)
    for text in (render_markdown(page, "report.html"), html.unescape(render_html(page))):
        assert "Not comparable with “Cross-dataset and cross-domain transfer”" in text
        assert "its split is val, the published one is test" in text
        assert "− POMP" not in text


def test_only_the_same_data_set_and_metric(write_run: Write) -> None:
    numbers = {"coco_small_val/box_AP": 6.9, "lvis_v1_minival/box_AP": 40.0, "caltech101/per_class": 90.0}
    protocol = {"coco_small_val": {"metric": "COCO AP"}, "lvis_v1_minival": LVIS}
    protocol["caltech101"] = as_published("caltech101")
    assert comparisons_of(write_run("run", numbers, protocol, config=VIT + RESNET.removeprefix("MODEL:\n"))) == {}


def test_fixed_ap_is_another_metric(write_run: Write) -> None:
    plain = comparisons_of(write_run("plain", {"lvis_v1_val/box_AP": 36.0}, {"lvis_v1_val": LVIS}, config=RESNET))
    assert list(plain) == ["Open-vocabulary LVIS", "Detection across data sets"]
    assert plain["Detection across data sets"].gaps[0][2] == [pytest.approx(-1.2)]
    words = {**LVIS, "metric": "LVIS Fixed AP"}
    fixed = comparisons_of(write_run("fixed", {"lvis_v1_val/box_AP": 36.0}, {"lvis_v1_val": words}, config=RESNET))
    assert [block.rows for block in fixed.values()] == [[], []]
    assert fixed["Open-vocabulary LVIS"].refused == [
        "lvis_v1_val (row 1): its metric is LVIS Fixed AP, not LVIS AP (federated)"
    ]


def test_undefined_numbers_have_no_difference(write_run: Write) -> None:
    numbers = {"lvis_v1_val/box_AP": math.nan, "lvis_v1_val/mask_AP": 30.0, "lvis_v1_val/mask_APr": None}
    block = comparisons_of(write_run("run", numbers, {"lvis_v1_val": LVIS}, config=RESNET))["Open-vocabulary LVIS"]
    gaps = block.gaps[0][2]
    assert [math.isnan(gap) for gap in gaps] == [True, False, True]
    assert gaps[1] == pytest.approx(30.0 - 32.7)
    # PromptDet has mask numbers alone.
    assert math.isnan(dict(block.rows)["PromptDet"][0])


def test_the_published_number_stands_under_its_own_protocol_alone(write_run: Write, tmp_path: Path) -> None:
    words = {"split": "ade20k_sem_seg_val", "metric": "mIoU", "images": 2_000}
    config = "MODEL:\n  RESNETS:\n    DEPTH: 101\n  CLIP_ADAPTER:\n    CLIP_MODEL_NAME: ViT-B/16\n"
    for denominator in ("union", "ground_truth"):
        protocol = {"ade20k_sem_seg_val": {**words, "miou_denominator": denominator}}
        write_run(denominator, {"ade20k_sem_seg_val/mIoU": 20.0}, protocol, config=config)
    report = build_report(find_runs([tmp_path]))
    (block,) = [block for table in report.tables for block in table.comparisons]
    union = [column.protocol["miou_denominator"] for column in report.tables[0].columns].index("union")
    values = dict(block.rows)["POMP"]
    assert values[union] == 20.7
    assert math.isnan(values[1 - union])
    assert [[math.isfinite(gap) for gap in gaps].count(True) for _, _, gaps in block.gaps] == [1]
    (reason,) = block.refused
    assert reason.endswith(
        "its mIoU averages over classes with ground truth, the published one with ground truth or predictions"
    )


def test_averages_of_runs_with_every_data_set(write_run: Write, tmp_path: Path) -> None:
    table = TABLES["Cross-dataset and cross-domain transfer"]
    names = [column.name for column in table.columns[:10]]
    pomp = dict(table.rows)["POMP"]
    numbers = {f"{name}/top1": value for name, value in zip(names, pomp[:10], strict=True)}
    # A set beyond the ten, of another protocol, is none of the average's business.
    words = {**{name: as_published(name) for name in names}, "imagenet_a": as_published("imagenet_a", images=6_500)}
    write_run("whole", {**numbers, "imagenet_a/top1": 50.0}, words, config=VIT)
    write_run("other", numbers, {**words, "EuroSAT": as_published("EuroSAT", images=50)}, config=VIT)
    part = {key: value for key, value in numbers.items() if "EuroSAT" not in key}
    write_run("part", part, words, config=VIT)
    report = build_report(find_runs([tmp_path]))
    averages = [column for column in report.columns if column.dataset == "Avg10"]
    # One other protocol among ten makes another average, in words that tell them apart.
    assert len(averages) == len({column.difference for column in averages}) == 2
    held = [[row.means[averages[0]].value] if averages[0] in row.means else [] for row in report.rows]
    assert sorted(held) == [[], [], [pytest.approx(67.01)]]
    block = next(comparison for comparison in report.tables[0].comparisons if comparison.published is table)
    shown = [
        values
        for values, column in zip(dict(block.rows)["POMP"], report.tables[0].columns, strict=True)
        if column.dataset == "Avg10"
    ]
    assert sorted(map(math.isnan, shown)) == [False, True]
    assert 67.0 in shown
    reason = "one of its data sets differs (EuroSAT: 50 test images, the published number has 8,100)"
    assert any(text.startswith("Avg10 (row ") and text.endswith(reason) for text in block.refused)
    assert "Number of classes K" in {
        comparison.published.name for ours in report.tables for comparison in ours.comparisons
    }
    assert report.tables[0].title == "top-1, 11 data sets"


def test_an_average_with_an_undefined_number_is_undefined(write_run: Write) -> None:
    names = ["imagenetv2", "imagenet-sketch", "imagenet_a", "imagenet-rendition"]
    numbers = {f"{name}/top1": 50.0 for name in names} | {"imagenet_a/top1": math.nan}
    report = build_report(find_runs([write_run("run", numbers, {name: as_published(name) for name in names})]))
    (column,) = [column for column in report.columns if column.dataset == "Avg4"]
    assert math.isnan(report.rows[0].means[column].value)
