"""ViLD-ensemble: two heads that learn apart, joined as published; embeddings of regions computed before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2")

from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from PIL import Image

from pomp_det import build_detector, load_config, set_classifier
from pomp_det.data.mapper import MixedDatasetMapper, moved_regions
from pomp_det.data.region_cache import CachedRegions, RegionCache, write_region_cache
from pomp_det.heads.distillation import distillation_loss
from pomp_det.heads.vild_ensemble import fused_probabilities
from pomp_engine.data.proposal_files import ProposalFile
from prompt_core import UserError
from prompt_core.files import write_json

from ..support.detector import TINY
from .test_vild import SOFTMAX, counts_file, record

HEAD = "MODEL.ROI_BOX_HEAD."
ENSEMBLE = SOFTMAX | {"MODEL.ROI_HEADS.NAME": "ViLDEnsembleROIHeads", f"{HEAD}DISTILLATION_WEIGHT": 0.5}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Of a ViLD-ensemble detector whose every third class is novel, distilled from a file."""
    held_out = {f"{HEAD}CAT_FREQ_PATH": counts_file(tmp_path, "fcr" * 10), f"{HEAD}HELD_OUT_FREQUENCIES": "r"}
    return ENSEMBLE | held_out | {f"{HEAD}DISTILLATION_FILE": str(tmp_path / "cache"), "MODEL.MASK_ON": False}


def with_regions(image: torch.Tensor, count: int, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=generator) * 40
    boxes = torch.cat((corners[:, :2], corners[:, :2] + 10 + corners[:, 2:]), dim=1)
    embeddings = F.normalize(torch.randn(count, 24, generator=generator), dim=1)
    return record(image, regions=Instances((96, 128), proposal_boxes=Boxes(boxes), embeddings=embeddings))


# --- formulas in float64


def test_fusion_is_the_papers() -> None:
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    image = 3 * torch.randn(5, 7, generator=generator, dtype=torch.float64)
    base = torch.tensor([True, False, True, True, False, False, True])
    fused = fused_probabilities(text, image, base)
    for row in range(5):
        of_text = np.exp(text[row].numpy()) / np.exp(text[row].numpy()).sum()  # with the background
        of_image = np.exp(image[row].numpy()) / np.exp(image[row].numpy()).sum()
        for column in range(7):
            more, less = (of_text, of_image) if base[column] else (of_image, of_text)
            by_hand = (more[column] * more[column] * less[column]) ** (1 / 3)  # the cube root of the published code
            assert fused[row, column].item() == pytest.approx(by_hand, rel=1e-12)
        assert fused[row, 7].item() == pytest.approx(of_text[7], rel=1e-12)
    novel = fused_probabilities(text, image, None)
    assert torch.equal(novel[:, :7][:, ~base], fused[:, :7][:, ~base])
    torch.testing.assert_close(novel[:, :7], fused_probabilities(text, image, torch.zeros(7).bool())[:, :7])


def test_distillation_is_the_published_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = F.normalize(torch.randn(6, 24, generator=generator, dtype=torch.float64), dim=1).requires_grad_()
    targets = F.normalize(torch.randn(6, 24, generator=generator, dtype=torch.float64), dim=1)
    loss = distillation_loss(embeddings, targets)
    # vild_model.py: the mean absolute difference of all numbers, times the width
    by_hand = 24 * np.abs(embeddings.detach().numpy() - targets.numpy()).mean()
    assert loss.item() == pytest.approx(by_hand, rel=1e-12)
    assert torch.autograd.gradcheck(lambda given: distillation_loss(given, targets), embeddings)


# --- the detector


def test_each_head_learns_its_own_loss(
    make_tiny: Callable[..., Any], settings: dict[str, Any], photo: torch.Tensor
) -> None:
    model = make_tiny(settings).train()
    batch = [with_regions(photo, 5), with_regions(photo, 0, seed=1)]
    with EventStorage(0):
        losses = model(batch)
    features = model.features(model.preprocess_image(batch).tensor)
    heads = model.roi_heads
    regions = [example["regions"] for example in batch]
    targets = regions[0].embeddings
    for stage, (ending, embeddings) in enumerate(heads.region_embeddings(features, regions).items()):
        assert ending == f"_stage{stage}"
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
        expected = 0.5 * (embeddings - targets).abs().sum() / 5
        torch.testing.assert_close(losses[f"loss_distillation{ending}"], expected, rtol=1e-3, atol=0)

    def touched(names: str) -> set[str]:
        model.zero_grad()
        sum(loss for name, loss in losses.items() if names in name).backward(retain_graph=True)
        return {
            name.split(".")[1]
            for name, parameter in model.named_parameters()
            if name.startswith("roi_heads.") and parameter.grad is not None and parameter.grad.any()
        }

    assert touched("loss_distillation") == {"image_heads", "image_projections"}
    assert touched("loss_cls") == {"box_head", "box_predictor"}


@torch.no_grad()
def test_scores_are_the_fusion_of_both_heads(
    make_tiny: Callable[..., Any], settings: dict[str, Any], photo: torch.Tensor
) -> None:
    everything = {"TEST.DETECTIONS_PER_IMAGE": 5000, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}
    model = make_tiny(settings | everything | {"MODEL.ROI_HEADS.NMS_THRESH_TEST": 1.0}).eval()
    heads, base = model.roi_heads, torch.arange(30) % 3 != 2

    def expected(base: torch.Tensor | None) -> torch.Tensor:
        features = model.features(model.preprocess_image([{"image": photo}]).tensor)
        images = model.preprocess_image([{"image": photo}])
        proposals, _ = model.proposal_generator(images, features, None)
        maps = [features[name] for name in heads.box_in_features]
        objectness, tables = proposals[0].objectness_logits, []
        for stage in range(3):
            pooled = heads.box_pooler(maps, [proposals[0].proposal_boxes])
            predictor = heads.box_predictor[stage]
            logits, shifts = predictor(heads.box_head[stage](pooled))
            image = F.normalize(heads.image_projections[stage](heads.image_heads[stage](pooled)), dim=1)
            cosine = image @ predictor.cls_score.zs_weight[:, :-1]
            tables.append(fused_probabilities(logits, 20 * cosine, base)[:, :-1])
            if stage < 2:
                boxes = predictor.predict_boxes((None, shifts), proposals)
                proposals = heads._create_proposals_from_boxes(boxes, [proposals[0].image_size])
        return (sum(tables) / 3 * objectness[:, None]).sqrt()

    for rows, flags in ((None, base), (torch.randn(7, 24), None)):
        if rows is not None:
            set_classifier(model, rows)  # of other classes nobody knows which are base
        wanted = expected(flags)
        found = model([{"image": photo}])[0]["instances"]
        assert len(found) > 40
        of_class = wanted.T[found.pred_classes]  # (n, R)
        assert (of_class - found.scores[:, None]).abs().min(dim=1).values.max() < 1e-6


def test_what_it_needs(make_tiny: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"ViLDEnsembleROIHeads has a softmax over classes and a learned background"):
        make_tiny({"MODEL.ROI_HEADS.NAME": "ViLDEnsembleROIHeads"})


# --- embeddings of regions before training


def fake_embed(images: Any, boxes: Any) -> torch.Tensor:
    """Embeddings that say which box they are of."""
    rows = torch.cat([torch.cat((image_boxes, image_boxes.flip(1)), dim=1) for image_boxes in boxes])
    return F.normalize(torch.cat((rows, torch.ones(len(rows), 1)), dim=1), dim=1)


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    for number in range(5):
        Image.new("RGB", (60, 40), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return [{"image_id": 10 + number, "file_name": str(tmp_path / f"{number}.png")} for number in range(5)]


@pytest.fixture
def proposals(tmp_path: Path) -> ProposalFile:
    items = [
        {"image_id": 10 + number, "bbox": [2 * number, 3, 20 + which, 15], "score": 0.2 + 0.1 * which}
        for number in (0, 1, 3)
        for which in range(number + 1)
    ]
    write_json(tmp_path / "proposals.json", items)
    return ProposalFile(tmp_path / "proposals.json")


def test_a_cache_holds_what_was_embedded(
    tmp_path: Path, records: list[Any], proposals: ProposalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pomp_det.data.region_cache.PHOTOS", 2)
    asked = []

    def embed(images: Any, boxes: Any) -> torch.Tensor:
        asked.append(int(images[0][0, 0, 0]))
        return fake_embed(images, boxes)

    folder, made = tmp_path / "cache", {"clip": "mini"}
    with pytest.raises(UserError, match=r"holds no regions\.json"):
        RegionCache(folder)
    assert write_region_cache(folder, records, proposals, embed, made) == 1 + 2 + 4
    assert asked == [0, 1, 2, 3, 4]
    (folder / "shard_00001.json").unlink()  # a command that was stopped
    assert write_region_cache(folder, records, proposals, embed, made) == 7
    assert asked[5:] == [2, 3]
    cache = RegionCache(folder)
    assert cache.made == made
    assert cache.image_ids == [10, 11, 12, 13, 14]
    assert cache.width == 9
    regions = cache.regions(13)
    assert regions is not None
    assert regions.boxes.tolist() == [[6, 3, 26 + which, 18] for which in (3, 2, 1, 0)]
    torch.testing.assert_close(regions.scores, torch.tensor([0.5, 0.4, 0.3, 0.2]))
    torch.testing.assert_close(regions.embeddings, fake_embed([], [regions.boxes]), atol=1e-3, rtol=0)
    assert [len(cache.regions(number).boxes) for number in (12, 14)] == [0, 0]
    assert cache.regions(99) is None
    with pytest.raises(UserError, match="holds embeddings of"):
        write_region_cache(folder, records, proposals, embed, {"clip": "other"})
    with pytest.raises(UserError, match=r"shard_00002\.json is of other photos: the data set has changed"):
        write_region_cache(folder, [*records, records[0]], proposals, embed, made)
    np.save(folder / "boxes_00000.npy", np.zeros((2, 5), np.float32))
    with pytest.raises(UserError, match=r"has arrays of shapes \(2, 5\)"):
        RegionCache(folder)


def test_regions_move_with_the_photo() -> None:
    boxes = torch.tensor([[10.0, 5, 30, 25], [40.0, 10, 60, 30], [0.0, 0, 9, 30], [12.0, 6, 16, 30]])
    cached = CachedRegions(boxes, torch.ones(4), torch.arange(8.0).view(4, 2))
    transforms = T.TransformList([T.HFlipTransform(60), T.CropTransform(0, 0, 54, 40)])
    regions = moved_regions(cached, transforms, (40, 54), 10)
    # flipped; the second keeps 14 of 20 columns, the third 3 of 9, the last is 4 pixels wide
    assert regions.proposal_boxes.tensor.tolist() == [[30, 5, 50, 25], [0, 10, 20, 30]]
    assert regions.embeddings.tolist() == [[0, 1], [2, 3]]
    assert len(moved_regions(cached, transforms, (40, 54), 1)) == 1
    narrow = T.TransformList([T.CropTransform(20, 0, 40, 40)])
    assert moved_regions(cached, narrow, (40, 40), 10).embeddings.tolist() == [[2, 3]]  # half of the first is gone


def test_examples_carry_their_regions(
    tmp_path: Path, records: list[Any], proposals: ProposalFile, settings: dict[str, Any]
) -> None:
    write_region_cache(tmp_path / "cache", records, proposals, fake_embed, {})
    changed = TINY | settings | {"MODEL.DEVICE": "cpu", "INPUT.FORMAT": "RGB", "DATASETS.TRAIN": ("any",)}
    with pytest.raises(UserError, match=r"embeddings of width 9, MODEL\.ROI_BOX_HEAD\.ZEROSHOT_WEIGHT_DIM is 24"):
        MixedDatasetMapper(load_config(None, changed))
    mapper = MixedDatasetMapper(load_config(None, changed | {f"{HEAD}ZEROSHOT_WEIGHT_DIM": 9}))
    example = mapper(records[3] | {"annotations": []})
    assert example["regions"].image_size == example["instances"].image_size
    assert example["regions"].embeddings.shape == (len(example["regions"]), 9)
    assert len(mapper(records[4] | {"annotations": []})["regions"]) == 0
    build_detector(load_config(None, changed))  # a trained detector needs no embeddings
