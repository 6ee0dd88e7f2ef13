"""Prompts learned on embeddings of regions: DetPro's loss and grades, the mean of several prompts, descriptions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2")

from detectron2.structures import BoxMode

from pomp_det.data.region_cache import CachedRegions
from pomp_det.region_prompts.descriptions import described, read_descriptions
from pomp_det.region_prompts.labelled_regions import LabelledRegions, label_boxes, read_labelled_regions
from pomp_det.region_prompts.region_loss import class_weights, region_loss
from pomp_det.region_prompts.regional_prompt import (
    GRADES,
    REGIONAL,
    RegionPromptOptions,
    check_learned_so,
    ensemble_classifier,
    graded,
    learn_region_prompt,
)
from prompt_core import SoftPrompt, UserError
from prompt_core.text.encoder import PromptedTextEncoder

NAMES = ["red star", "blue disc", "green ring"]


def test_loss_is_the_published_one() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 2, 3, 2, 3, 1])
    everything = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 3, 3])
    weights = class_weights(everything, 3)
    # run.py: freq = count / R * C of a class, 2 n / R of the background; weight = 1 / freq
    expected_weights = [1 / (3 / 10 * 3), 1 / (1 / 10 * 3), 1 / (2 / 10 * 3), 1 / (2 * 4 / 10)]
    assert weights.tolist() == pytest.approx(expected_weights, rel=1e-12)
    total = weight_sum = 0.0
    for row, label in zip(logits.numpy(), labels.tolist(), strict=True):
        log_p = row - math.log(np.exp(row).sum())
        loss = -log_p[label] if label < 3 else -sum(log_p / 3)
        total += weights[label].item() * loss
        weight_sum += weights[label].item()
    assert region_loss(logits, labels, weights).item() == pytest.approx(total / weight_sum, rel=1e-12)
    plain = F.cross_entropy(logits[labels < 3], labels[labels < 3])
    assert region_loss(logits[labels < 3], labels[labels < 3]).item() == pytest.approx(plain.item(), rel=1e-12)
    assert torch.autograd.gradcheck(lambda given: region_loss(given, labels, weights), logits.requires_grad_())
    # the background is content where all classes are alike
    flat = region_loss(torch.zeros(2, 3, dtype=torch.float64), torch.tensor([3, 3]), weights)
    assert flat.item() == pytest.approx(math.log(3))


def test_regions_get_the_class_they_overlap_most() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5.0, 0, 15, 10], [40.0, 40, 50, 50], [0.0, 0, 10, 20]])
    truth = torch.tensor([[0.0, 0, 10, 10], [6.0, 0, 16, 10]])
    labels, ious = label_boxes(boxes, truth, torch.tensor([4, 1]), 7)
    assert labels.tolist() == [4, 1, 7, 4]
    assert ious.tolist() == pytest.approx([1, 9 / 11, 0, 0.5])
    labels, ious = label_boxes(boxes, truth[:0], torch.zeros(0, dtype=torch.int64), 7)
    assert labels.tolist() == [7] * 4
    assert not ious.any()


class Cache:
    """Two photos of two regions each."""

    def regions(self, image_id: int) -> CachedRegions | None:
        boxes = torch.tensor([[0.0, 0, 10, 10], [30.0, 30, 40, 40]])
        return CachedRegions(boxes, torch.ones(2), torch.full((2, 4), float(image_id))) if image_id < 3 else None


def test_only_annotated_classes_are_learned_on() -> None:
    def shape(box: list[int], category: int, **more: Any) -> dict[str, Any]:
        return {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": category, **more}

    records = [
        {"image_id": 1, "annotations": [shape([0, 0, 10, 10], 3), shape([30, 30, 10, 10], 0, iscrowd=1)]},
        {"image_id": 2, "annotations": [shape([30, 30, 10, 5], 1)]},
        {"image_id": 3, "annotations": [shape([0, 0, 10, 10], 3)]},
    ]
    regions, names = read_labelled_regions(Cache(), records, ["a", "b", "c", "d"])  # type: ignore[arg-type]
    assert names == ["a", "b", "d"]
    assert regions.labels.tolist() == [2, 1]
    assert regions.ious.tolist() == pytest.approx([1, 0.5])
    assert regions.features[:, 0].tolist() == [1, 2]
    everything, _ = read_labelled_regions(Cache(), records, ["a", "b", "c", "d"], least=0)  # type: ignore[arg-type]
    assert everything.labels.tolist() == [2, 3, 3, 1]
    assert everything.ious.tolist() == pytest.approx([1, 0, 0, 0.5])
    with pytest.raises(UserError, match="no region of this data set has an embedding"):
        read_labelled_regions(Cache(), records[2:], ["a", "b", "c", "d"])  # type: ignore[arg-type]


def test_a_grade_takes_its_own_regions_and_a_share_of_the_background() -> None:
    ious = torch.cat((torch.linspace(0, 1, 101), torch.linspace(0, 1, 101)))
    labels = torch.cat((torch.zeros(101), torch.full((101,), 3.0))).long()
    regions = LabelledRegions(torch.arange(202.0)[:, None], labels, ious)
    options = RegionPromptOptions(background_share=0.25)
    for low, high in GRADES:
        chosen = graded(regions, 3, (low, high), options, torch.Generator().manual_seed(1))
        foreground = chosen.labels < 3
        assert ((chosen.ious[foreground] >= low) & (chosen.ious[foreground] < high)).all()
        assert int(foreground.sum()) == (11 if high > 1 else 10)
        background = chosen.ious[~foreground]
        assert len(background) == 20  # of 40 of each half: what is hardly of a class is background too
        assert ((background >= 0.1) & (background < 0.5)).all()
        assert len(set(chosen.features[~foreground, 0].tolist())) == 20
    assert (graded(regions, 3, (0.5, 1.1), REGIONAL, torch.Generator()).labels < 3).all()


@pytest.fixture
def regions(tiny_clip: Any) -> LabelledRegions:
    """Embeddings near the text features of a prompt that is not known, and background between them."""
    generator = torch.Generator().manual_seed(5)
    hidden = SoftPrompt.random(tiny_clip.model.ln_final.weight.shape[0], 4, std=1.0, seed=9)
    with torch.no_grad():
        classes = PromptedTextEncoder(tiny_clip)(hidden, NAMES)
    labels = torch.arange(48) % 4
    targets = torch.cat((classes, classes.mean(dim=0, keepdim=True)))[labels]
    features = F.normalize(targets + 0.02 * torch.randn(48, classes.shape[1], generator=generator), dim=1)
    return LabelledRegions(features, labels, torch.where(labels < 3, 0.75, 0.3))


def test_a_prompt_is_learned_and_is_an_ordinary_file(tiny_clip: Any, regions: LabelledRegions, tmp_path: Path) -> None:
    options = RegionPromptOptions(n_ctx=4, epochs=8, batch=16, rate=0.5, logit_scale=20.0, background_share=1.0)

    def loss(prompt: SoftPrompt) -> float:
        with torch.no_grad():
            classes = PromptedTextEncoder(tiny_clip)(prompt, NAMES)
        logits = options.logit_scale * regions.features @ classes.T
        return region_loss(logits, regions.labels, class_weights(regions.labels, 3)).item()

    start = SoftPrompt.random(tiny_clip.model.ln_final.weight.shape[0], 4, seed=0)
    prompt = learn_region_prompt(tiny_clip, NAMES, regions, (0.7, 0.8), options)
    assert loss(prompt) < 0.9 * loss(start)
    again = learn_region_prompt(tiny_clip, NAMES, regions, (0.7, 0.8), options)
    assert torch.equal(again.context, prompt.context)
    prompt.save(tmp_path / "prompt.safetensors", method="detpro")
    read = SoftPrompt.load(tmp_path / "prompt.safetensors")
    assert torch.equal(read.context, prompt.context)
    assert (read.metadata["grade"], read.metadata["method"]) == ([0.7, 0.8], "detpro")
    assert read.metadata["clip_sha256"] == tiny_clip.fingerprint
    check_learned_so(read, "prompt", {"method": "detpro", "grade": [0.7, 0.8], "written later": 1})
    for key, other in {"method": "promptdet", "grade": [0.7, 1.1], "clip_sha256": "0"}.items():
        with pytest.raises(UserError, match=f"prompt was learned with {key} .*; choose another --output"):
            check_learned_so(read, "prompt", {key: other})
    with pytest.raises(UserError, match=r"no region of a class has an IoU of 0\.9 to 1\.1"):
        learn_region_prompt(tiny_clip, NAMES, regions, (0.9, 1.1), options)
    with pytest.raises(UserError, match="embeddings of regions have width 3"):
        learn_region_prompt(tiny_clip, NAMES, regions._replace(features=torch.ones(48, 3)))


def test_prompts_are_averaged_as_unit_norm_features(tiny_clip: Any) -> None:
    width = tiny_clip.model.ln_final.weight.shape[0]
    prompts = [SoftPrompt.random(width, 4, std=1.0, seed=seed) for seed in range(3)]
    classifier = ensemble_classifier(tiny_clip, NAMES, prompts)
    with torch.no_grad():
        parts = [F.normalize(PromptedTextEncoder(tiny_clip)(prompt, NAMES), dim=1) for prompt in prompts]
    torch.testing.assert_close(classifier.weight, F.normalize(sum(parts), dim=1))
    assert classifier.names == NAMES
    assert len(set(classifier.metadata["prompts_sha256"])) == 3


def test_published_prompts_are_bare_tensors(tmp_path: Path) -> None:
    context = torch.randn(8, 32)
    torch.save(context.half(), tmp_path / "fg_bg_5_5_6_endepoch6_prompt.pth")
    prompt = SoftPrompt.load(tmp_path / "fg_bg_5_5_6_endepoch6_prompt.pth")
    torch.testing.assert_close(prompt.context, context.half().float())
    torch.save(torch.randn(1, 1203, 32), tmp_path / "fg_bg_5_5_6_endepoch6.pth")
    with pytest.raises(UserError, match="0 context tensors"):
        SoftPrompt.load(tmp_path / "fg_bg_5_5_6_endepoch6.pth")


def test_published_class_features_are_class_matrices(tmp_path: Path) -> None:
    from pomp_det.class_matrix import read_class_matrix, rows_of

    rows = torch.randn(1203, 16)
    for name, tensor in (("a.pth", rows[None].half()), ("fg_bg_5_10_end_ens.pth", rows), ("c.pt", rows.double())):
        torch.save(tensor, tmp_path / name)
        classifier = read_class_matrix(tmp_path / name)
        torch.testing.assert_close(rows_of(classifier), tensor.reshape(1203, 16).float())
        assert len(classifier.names) == 1203
    torch.save({"model": {}}, tmp_path / "d.pth")
    with pytest.raises(UserError, match="a class matrix as a bare tensor"):
        read_class_matrix(tmp_path / "d.pth")


# --- descriptions


def test_descriptions_of_both_formats(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('name,description\nalarm_clock,"a clock, that wakes people."\nbat,\n')
    (tmp_path / "a.txt").write_text("1 alarm_clock_which_is_a_clock,_that_wakes_people\n2 bat_which_is_\n")
    for file in ("a.csv", "a.txt"):
        known = read_descriptions(tmp_path / file)
        texts = described(["alarm clock", "bat"], known)
        assert texts == ["alarm clock, which is a clock, that wakes people", "bat"]
    with pytest.raises(UserError, match=r"class 'bats' has no description; nearest: 'bat'"):
        described(["bats"], known)
    (tmp_path / "b.csv").write_text("name,description\na,x\na,y\n")
    with pytest.raises(UserError, match="describes 'a' twice"):
        read_descriptions(tmp_path / "b.csv")
    (tmp_path / "c.txt").write_text("alarm clock: it wakes\n")
    with pytest.raises(UserError, match="name_which_is_description"):
        read_descriptions(tmp_path / "c.txt")
