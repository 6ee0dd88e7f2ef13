"""Our numbers next to the published ones: differences, refusals, averages, the mark of selection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pomp_lab.tables.command import find_table
from pomp_lab.tables.show import Block, table_blocks, write_blocks
from prompt_core.data.catalog.lookup import CROSS_DATASET, classification_entry
from prompt_core.evaluation.protocol import ON_REPORTED

VIT = "ViT-B-16-quickgelu"


def result(
    dataset: str,
    value: float,
    seed: int = 42,
    pretrained: str = "openai",
    clip: str = VIT,
    command: str = "reproduce.py cross_dataset --output out",
    **words: Any,
) -> dict[str, Any]:
    """What a run would have written."""
    entry = classification_entry(dataset)
    protocol = {
        "split": "test",
        "metric": "top-1 over all images (micro)",
        "images": entry.test.number,
        "candidates": entry.classes.number,
        "unreadable": [],
        "source": f"{dataset}, published split",
        **words,
    }
    return {
        f"{dataset}/top1": value,
        "_run": {
            "row": "whatever it was made for",
            "seed": seed,
            "id": f"hash {seed}",
            "settings": {"method": "pomp", "K": 1000},
            "pretrained": pretrained,
            "clip": clip,
            "command": command,
        },
        "_protocol": {dataset: protocol},
    }


def blocks_of(table: str, row: str, documents: Sequence[dict[str, Any]]) -> dict[str, Block]:
    plan = find_table(table, "paper")
    (chosen,) = plan.chosen(row)
    by_seed: dict[Any, dict[str, Any]] = {}
    for document in documents:
        whole = by_seed.setdefault(document["_run"]["seed"], {"_protocol": {}})
        whole |= {**document, "_protocol": {**whole["_protocol"], **document["_protocol"]}}
    return {block.title: block for block in table_blocks(plan, {chosen: list(by_seed.values())})}


def compared(blocks: dict[str, Block]) -> dict[tuple[str, str], tuple[str, ...]]:
    block = blocks["Beside the published numbers"]
    return {(row[0], row[1]): row[2:] for row in block.rows}


def test_the_difference_to_the_published_number() -> None:
    blocks = blocks_of("cross_dataset", "CoCoOp", [result("oxford_pets", 91.3), result("eurosat", 44.0)])
    assert compared(blocks) == {
        ("CoCoOp", "oxford_pets"): ("91.3", "90.1", "+1.2"),
        ("CoCoOp", "eurosat"): ("44.0", "45.4", "−1.4"),
    }


def test_the_mean_over_seeds_is_compared() -> None:
    documents = [result("eurosat", 50.0, seed=1), result("eurosat", 53.0, seed=2)]
    shown = compared(blocks_of("cross_dataset", "POMP", documents))
    assert shown == {("POMP", "eurosat"): ("51.5 ± 1.5", "52.1", "−0.6")}


def test_each_backbone_has_its_own_number() -> None:
    for model, clip, published in (
        ("RN50", "RN50-quickgelu", "20.2"),
        ("ViT-B/32", "ViT-B-32-quickgelu", "22.2"),
        ("ViT-B/16", VIT, "25.3"),
    ):
        row = f"POMP, {model}"
        shown = compared(blocks_of("imagenet21k", row, [result("imagenet21k", 20.0, clip=clip)]))
        assert shown[row, "imagenet21k"][1] == published
        other = blocks_of("imagenet21k", row, [result("imagenet21k", 20.0, clip="ViT-L-14-quickgelu")])
        assert compared(other) == {}


def test_sets_that_an_average_is_not_of_do_not_matter_to_it() -> None:
    documents = [result(name, 60.0) for name in CROSS_DATASET]
    documents.append(result("imagenet_a", 50.0, images=6_500))
    shown = compared(blocks_of("ablation_k", "K = 500", documents))
    assert set(shown) == {("K = 500", "Avg10")}
    changed = [*documents[:-2], result(CROSS_DATASET[-1], 60.0, images=50)]
    block = blocks_of("ablation_k", "K = 500", changed)["Beside the published numbers"]
    assert block.rows == ()
    assert block.notes == (
        "Avg10 (K = 500): not compared, one of its data sets differs (ucf101: 50 test images, "
        "the published number has 3,783)",
    )


def test_averages_come_of_all_ten_sets() -> None:
    values = {name: 60.0 + place for place, name in enumerate(CROSS_DATASET)}
    documents = [result(name, value) for name, value in values.items()]
    shown = compared(blocks_of("ablation_k", "K = 500", documents))
    assert shown["K = 500", "Avg10"] == ("64.5", "66.5", "−2.0")
    margin = compared(blocks_of("ablation_margin", "K = 319, m = 1.5", documents))
    assert margin["K = 319, m = 1.5", "Avg10"] == ("64.5", "66.5", "−2.0")
    assert not any(dataset == "Avg10" for _, dataset in compared(blocks_of("cross_dataset", "POMP", documents[:9])))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": 100}, "100 test images, the published number has 8,100"),
        ({"candidates": 21_843}, "21,843 classes, the published number has 10"),
        ({"source": "eurosat, generated split"}, "its generated split has other test images"),
        ({"source": "eurosat"}, "its division into splits is not stated"),
        ({"split": "val"}, "its split is val, the published one is test"),
        ({"images_of": "base classes"}, "it covers only part of the images (base classes)"),
        ({"metric": "mean of classes"}, "its metric is mean of classes"),
        ({"pretrained": "my.pt"}, f"its model is {VIT} with my.pt weights, the published one is OpenAI's ViT-B/16"),
        (
            {"clip": "mini", "pretrained": "mini.safetensors"},
            "its model is mini, the published one is OpenAI's ViT-B/16",
        ),
        ({"clip": "RN50-quickgelu"}, "its model is RN50-quickgelu with OpenAI weights"),
        (
            {"command": "reproduce.py cross_dataset --rows POMP OPTIM.EPOCHS 1 DATA.SHOTS=1 DATA.CACHE cache"},
            "it was run with OPTIM.EPOCHS 1 DATA.SHOTS 1, the published one was not",
        ),
    ],
)
def test_other_protocols_are_not_compared(changes: dict[str, Any], reason: str) -> None:
    blocks = blocks_of("cross_dataset", "POMP", [result("eurosat", 50.0, **changes)])
    block = blocks["Beside the published numbers"]
    assert block.rows == ()
    assert any(reason in note for note in block.notes)
    # The number itself is still reported.
    assert blocks["Ten other data sets"].rows[0][2] == "50.0"


def test_other_places_choices_and_speeds_are_no_other_budget() -> None:
    command = "reproduce.py cross_dataset --output out DATA.CACHE cache SELECT_ON_TEST True LOSS.CHUNK 100 LOG.EVERY 1"
    command += " METHOD.COCOOP.REDUCTION 8"
    assert compared(blocks_of("cross_dataset", "POMP", [result("eurosat", 50.0, command=command)]))


def test_two_protocols_never_share_a_column() -> None:
    documents = [result("eurosat", 50.0, seed=1), result("eurosat", 60.0, seed=2, split="val")]
    block = blocks_of("cross_dataset", "POMP", documents)["Ten other data sets"]
    assert len(block.headings) == 4
    assert {cell.split(" ")[0] for cell in block.rows[0][2:]} == {"50.0", "60.0"}


def test_selection_on_the_reported_images_is_marked() -> None:
    document = result("eurosat", 50.0)
    document["_run"]["select_on_test"] = True
    block = blocks_of("cross_dataset", "POMP", [document])["Ten other data sets"]
    assert block.rows[0][0] == "POMP †"
    assert any("chosen on the reported images" in note for note in block.notes)
    assert compared(blocks_of("cross_dataset", "POMP", [document])) == {("POMP †", "eurosat"): ("50.0", "52.1", "−2.1")}
    documents = [result(name, 60.0) for name in CROSS_DATASET]
    documents[3]["_protocol"][CROSS_DATASET[3]]["selection"] = ON_REPORTED
    assert set(compared(blocks_of("ablation_k", "K = 500", documents))) == {("K = 500 †", "Avg10")}
    plain = blocks_of("cross_dataset", "POMP", [result("eurosat", 50.0)])["Ten other data sets"]
    assert plain.rows[0][0] == "POMP"


def test_what_a_method_cannot_answer_is_reported() -> None:
    document = result("eurosat", 50.0)
    document["_run"]["skipped"] = {"dtd": "it knows the 10 classes it learned"}
    notes = blocks_of("cross_dataset", "POMP", [document])["Ten other data sets"].notes
    assert "POMP: nothing for dtd: it knows the 10 classes it learned" in notes


def test_a_file_of_all_blocks(tmp_path: Path) -> None:
    blocks = list(blocks_of("cross_dataset", "POMP", [result("eurosat", 50.0)]).values())
    write_blocks(blocks, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert text.startswith("# Ten other data sets\n")
    assert "| POMP | eurosat | 50.0 | 52.1 | −2.1 |" in text
    assert "## Published: Cross-dataset and cross-domain transfer" in text
