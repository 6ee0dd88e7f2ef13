"""The comparison of what is rejected, and of general words answered by their kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pomp_lab.comparisons import hierarchy
from pomp_lab.comparisons.hierarchy import ALONE, BEST, POOLED, SUM, general_accuracy, near_names, rejecting_rows
from pomp_lab.comparisons.none_of_these import LabelledPhotos
from prompt_core import Vocabulary
from prompt_core.background.hypernyms import Hypernyms, imagenet21k_hypernyms
from prompt_core.hierarchy import not_negatives

CallTool = Callable[..., tuple[int, str, str]]
CONFIG = Path(__file__).resolve().parents[3] / "configs/prompt/mini_tiny_imagenet.yaml"
NAMES = ["beagle", "Chihuahua", "pug", "banana", "cliff", "dog"]


def test_near_names_hold_all_that_is_above() -> None:
    tree = imagenet21k_hypernyms()
    names = near_names(["n02088364", "unknown"], tree, 40)
    assert len(names) == 40
    assert {"beagle", "dog", "animal"} <= set(names.names)
    own = tree.row["n02088364"]
    assert {str(identity) for identity in names.ids or ()} >= {
        identity for identity, row in tree.row.items() if row in tree.above([own])
    }


def test_both_losses_have_each_rule() -> None:
    rows, exact = rejecting_rows("x.yaml", 1000, 16)
    settings = [dict(row.settings) for row in rows[1:]]
    assert [(one["LOSS.NUM_CLASSES"], one["LOSS.REJECT"]) for one in settings] == [
        (count, rule) for count in ("1000", "0") for rule in ("name", "ancestors")
    ]
    assert exact == [row.name for row in rows if dict(row.settings).get("LOSS.NUM_CLASSES") == "0"]


def test_a_dog_is_found_by_its_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchy, "GENERAL_SIZES", (2,))
    features = torch.eye(6)
    photos = LabelledPhotos("photos", features[[0, 1, 2, 4]], torch.tensor([0, 1, 2, 4]), Vocabulary(NAMES), features)
    below = {"dog": frozenset({0, 1, 2}), "banana": frozenset({3})}

    def encode(words: Vocabulary) -> torch.Tensor:
        # the photos of dogs are nearer to the banana than to the word dog
        rows = {
            "dog": features[5],
            "banana": torch.nn.functional.normalize(features[3] + 0.1 * features[:3].sum(0), dim=0),
        }
        return torch.stack([rows[name] for name in words.names])

    both = {"template": features, "bare": features}
    rows = general_accuracy(photos, below, Vocabulary(NAMES), encode, both, 20.0, seeds=(0, 1), draws=1)
    top1 = {row["answer"]: row["top1"] for row in rows}
    assert top1 == {ALONE: 0, POOLED: 100, BEST: pytest.approx(100), SUM: 100}
    assert rows[0]["seeds"] == [0, 0]


@pytest.mark.slow
def test_one_command_writes_both_tables(
    call_tool: CallTool, tiny_root: Path, tiny_model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = Vocabulary.load(tiny_root / "wide.json")
    # the cat is above the dog and the hare, the oak above the car
    tree = Hypernyms.of(wide, [[], [0], [], [2], [0], [], [], [], []])
    for module in (hierarchy, not_negatives):
        monkeypatch.setattr(module, "imagenet21k_hypernyms", lambda: tree)
    monkeypatch.setattr(hierarchy, "WIDE", str(tiny_root / "wide.json"))
    data = ["--tiny-imagenet", tiny_root / "tiny-imagenet-200", "--photos", tiny_root / "imagenet_samples"]
    options = ["--output", "out", "--shots", "2", "--seeds", "0", "--updates", "2", "--sampled", "4", "--near", "6"]
    model = ["MODEL.NAME", tiny_model[0], "MODEL.PRETRAINED", tiny_model[1], "PROMPT.N_CTX", "2"]
    budget = ["--draws", "1", "DATA.CACHE", "cache", "OPTIM.EPOCHS", "1", "OPTIM.WARMUP_EPOCHS", "0", "OPTIM.LR", "1.0"]
    code, _, error = call_tool("compare_hierarchy", "--config", CONFIG, *data, *options, *model, *budget)
    assert code == 0, error
    written = json.loads(Path("out/hierarchy.json").read_text())
    assert len(written["runs"]) == 1 + 4
    assert written["about"]["near_names"] == 6
    rows = [f"full softmax, near names, rejected: {words}/seed 0" for words in hierarchy.REJECTED.values()]
    losses = {row: written["runs"][row]["_run"]["history"][0]["loss"] for row in rows}
    assert losses[rows[0]] > losses[rows[1]], "fewer classes are wrong"
    assert "General words answered by their kinds" in Path("out/hierarchy.md").read_text()
