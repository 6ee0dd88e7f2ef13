"""The table of own shares: draws, counts and the choice of a scale by hand, and a whole run on tiny photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pomp_lab.comparisons.none_of_these import (
    BLIND,
    COSINE,
    OWN,
    SOFTMAX,
    Judge,
    LabelledPhotos,
    Reliability,
    Tally,
    answers_by_scale,
    chosen_scale,
    cosine_threshold,
)
from prompt_core import UserError, Vocabulary
from prompt_core.files import read_sealed_json

CallTool = Callable[..., tuple[int, str, str]]

NAMES = ["cat", "crane", "violin", "Crane", "banana"]


def photos() -> LabelledPhotos:
    """One photo of each of five classes, two of one name, at a cosine of 0.2 to its class and 0 to all others."""
    features = F.normalize(0.2 * torch.eye(8)[[0, 1, 2, 1, 4]] + torch.eye(8)[3], dim=1)
    return LabelledPhotos("five", features, torch.arange(5), Vocabulary(NAMES), torch.eye(8)[[0, 1, 2, 1, 4]])


def judge() -> Judge:
    """A background of all five names and three others."""
    wide = Vocabulary([*NAMES, "zebra crossing", "anvil", "tripod"])
    return Judge(wide, torch.eye(8)[[0, 1, 2, 1, 4, 5, 6, 7]], "by hand", 3.0)


def test_draws_are_of_different_names_and_leave_some_out() -> None:
    sets = photos().draws(3, 0, 50)
    assert len(sets) == 50
    assert {len({NAMES[row].lower() for row in rows}) for rows in sets} == {3}
    assert photos().draws(4, 0, 2) == []
    assert all(np.array_equal(a, b) for a, b in zip(sets, photos().draws(3, 0, 50), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(sets, photos().draws(3, 1, 50), strict=True))
    assert photos().targets(np.array([1, 2])).tolist() == [-1, 0, 1, 0, -1]  # of one name, of one class


def test_counts_by_hand() -> None:
    tally = Tally()
    scores = torch.tensor([[0.95, 0.05], [0.1, 0.85], [0.45, 0.3], [0.75, 0.1]])
    tally.add(scores, torch.tensor([0, 0, 1, -1]), 0.5)
    assert tally.percent() == {"precision": pytest.approx(100 / 3), "coverage": pytest.approx(200 / 3), "refused": 0.0}
    tally.add(torch.tensor([[0.1, 0.2]]), torch.tensor([-1]), 0.5)
    assert tally.percent()["refused"] == 50.0
    curve = Reliability()
    curve.add(scores, torch.tensor([0, 0, 1, -1]))
    assert [row["photos"] for row in curve.rows()] == [1, 1, 1, 1]
    assert curve.error == pytest.approx(100 * (0.05 + 0.85 + 0.45 + 0.75) / 4)
    curve.merge(curve)
    assert sum(row["photos"] for row in curve.rows()) == 8


def test_ways_to_score() -> None:
    rows = np.array([0, 2])  # cat, violin
    scores = judge().scores(photos(), rows, 50.0)
    own, blind, softmax, cosine = scores[OWN], scores[BLIND], scores[SOFTMAX], scores[COSINE]
    assert own[0, 0] > 0.99
    assert own[1].sum() < 0.01, "crane is in the background"
    assert blind[1].sum() > own[1].sum(), "and there it is not"
    assert softmax[1].tolist() == [0.5, 0.5]
    torch.testing.assert_close(softmax, (3 * cosine).softmax(dim=1))


def test_the_scale_whose_answers_are_as_right_as_they_say() -> None:
    answers = answers_by_scale(judge(), photos(), [np.array([0, 2])], 0.5)
    assert all(numbers["precision"] == 100 for numbers in answers.values())
    assert chosen_scale([answers]) > 60  # where every answer is right, the sure are true
    unsure = {20: {"share": 60.0, "precision": 60.0}, 25: {"share": 70.0, "precision": 60.0}}
    assert chosen_scale([unsure]) == 20
    with pytest.raises(UserError, match="no photo was answered"):
        chosen_scale([])
    assert cosine_threshold(torch.tensor([0.1, 0.9, 0.5, 0.3]), 0.5) == pytest.approx(0.3)


def test_a_whole_run(
    call_tool: CallTool, tiny_root: Path, tiny_model: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tmp_path / "names.json"
    Vocabulary(["anvil", "tripod"]).save(names)
    monkeypatch.setattr("pomp_lab.comparisons.own_share_table.WIDE", str(names))
    monkeypatch.setattr("pomp_lab.comparisons.own_share_table.THRESHOLD", 0.1)
    arguments = ["--photos", tiny_root / "imagenet_samples", "--words", "1,2", "--seeds", "0,1", "--draws", "2"]
    model = ["--clip", tiny_model[0], "--pretrained", tiny_model[1], "--template", "a {}", "DATA.CACHE", "cache"]
    code, out, error = call_tool("measure_own_share", *arguments, *model, "--output", "out.json")
    assert code == 0, error
    assert "of a photo's time" in " ".join(out.split())
    document = read_sealed_json("out.json")
    ways = [OWN, BLIND, SOFTMAX, COSINE]
    assert [(row["words"], row["score"]) for row in document["rows"]] == [(n, way) for n in (1, 2) for way in ways]
    for row in document["rows"]:
        assert all(len(row[metric]["seeds"]) == 2 for metric in ("precision", "coverage", "refused"))
    assert document["scale"]["half"] == "tune"
    assert document["cost"]["milliseconds"]["photo"]["median"] > 0
    assert len(Path("out.md").read_text().splitlines()) == 2 + len(document["rows"]) + len(document["general_words"])
    code, _, error = call_tool("measure_own_share", *arguments, *model, "--output", "out.txt")
    assert code == 2
    assert "a file ending in .json is expected" in error
