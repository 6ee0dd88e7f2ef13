"""Losses: the published options and the corrected ones, in addition to the golden numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2")

from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from pomp_det import load_config
from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from pomp_det.heads.class_counts import ClassCounts
from pomp_det.heads.class_losses import federated_classes, sigmoid_loss
from pomp_det.heads.image_labels import image_label_loss
from pomp_det.heads.weak_batches import WeakOptions, top_proposals
from pomp_det.proposals.decode import select_proposals
from pomp_det.proposals.losses import heatmap_focal_loss, side_distance_loss
from prompt_core import UserError


def example(mask: bool = True, classes: int = 2) -> Instances:
    instances = Instances((96, 128))
    instances.gt_boxes = Boxes(torch.tensor([[10.0, 10, 90, 80], [40.0, 20, 70, 60]])[:classes])
    instances.gt_classes = torch.arange(classes) + 3
    if mask:
        instances.gt_masks = BitMasks(torch.ones(classes, 96, 128, dtype=torch.bool))
    return instances


def counts_file(folder: Path, counts: list[int], frequencies: str = "") -> str:
    categories = [{"id": row, "image_count": count} for row, count in enumerate(counts)]
    for category, frequency in zip(categories, frequencies, strict=False):
        category["frequency"] = frequency  # type: ignore[assignment]
    path = folder / "counts.json"
    path.write_text(json.dumps(categories))
    return str(path)


def loss_classes(predictor: Any, gt_classes: torch.Tensor) -> torch.Tensor:
    return predictor.class_choice.classes(gt_classes, predictor.num_classes, predictor.class_counts)


def test_sigmoid_loss_over_all_classes_is_detectron2s() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 8, generator=generator)
    gt_classes = torch.randint(0, 8, (20,), generator=generator)
    theirs = FastRCNNOutputLayers(4, box2box_transform=plain_transform(), num_classes=7, use_sigmoid_ce=True)
    torch.testing.assert_close(sigmoid_loss(logits, gt_classes), theirs.sigmoid_cross_entropy_loss(logits, gt_classes))
    chosen = torch.tensor([0, 3, 6, 7])
    mask = torch.tensor([1.0, 0, 0, 1, 0, 0, 1])
    target = F.one_hot(gt_classes, 8)[:, :7].float()
    expected = (F.binary_cross_entropy_with_logits(logits[:, :7], target, reduction="none") * mask).sum() / 20
    torch.testing.assert_close(sigmoid_loss(logits, gt_classes, chosen), expected)
    assert sigmoid_loss(logits[:0], gt_classes[:0]) == 0


def plain_transform() -> Any:
    from detectron2.modeling.box_regression import Box2BoxTransform

    return Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))


def test_federated_classes_follow_the_weights() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([9.0, 0, 1, 1, 1, 1, 0, 1])
    present = torch.tensor([2, 2, 8, 5])  # 8 is the background
    drawn = torch.zeros(9)
    for _ in range(300):
        chosen = federated_classes(present, weights, 5)
        assert len(chosen) == len(chosen.unique()) == 5
        assert {2, 5, 8} <= set(chosen.tolist())
        drawn[chosen] += 1
    assert drawn[0] > 250  # nine times the weight of its rivals
    assert drawn[[1, 6]].sum() == 0
    assert drawn[[3, 4, 7]].min() > 20
    assert sorted(federated_classes(present, weights, 100).tolist()) == [0, 2, 3, 4, 5, 7, 8]  # no more to draw


def test_held_out_classes_are_no_negatives(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    """As published, held-out rare classes may be drawn as negatives; the option keeps them out."""
    path = counts_file(tmp_path, [5] * 29 + [0], "fcr" * 10)
    rare = torch.arange(2, 30, 3)
    common = {
        "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True,
        "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": path,
        "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CAT": 20,
    }
    gt_classes = torch.tensor([0, 30, 30])
    for option, expected in (("", True), ("r", False)):
        predictor = make_tiny(common | {"MODEL.ROI_BOX_HEAD.HELD_OUT_FREQUENCIES": option}).roi_heads.box_predictor[0]
        drawn = torch.cat([loss_classes(predictor, gt_classes) for _ in range(20)]).unique()
        assert bool(torch.isin(drawn, rare).any()) is expected
        assert 0 in drawn
        assert 30 not in drawn


def test_classes_without_images_can_be_ignored(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    path = counts_file(tmp_path, [0, 3] * 15)
    changed = {"MODEL.ROI_BOX_HEAD.IGNORE_ZERO_CATS": True, "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": path}
    predictor = make_tiny(changed).roi_heads.box_predictor[0]
    assert loss_classes(predictor, torch.tensor([1, 30])).tolist() == list(range(1, 30, 2))


def test_class_counts_are_checked(tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text('{"categories": []}')
    (tmp_path / "bare.json").write_text('[{"id": 1, "name": "cat"}]')
    for path, classes, reason in (
        (counts_file(tmp_path, [1, 2, 3]), 4, "of 3 classes; the detector has 4"),
        (tmp_path / "wrong.json", 4, "a JSON list of category objects"),
        (tmp_path / "bare.json", 1, r"bare.json: \[0\] has no 'image_count'"),
    ):
        counts = ClassCounts.read(path, classes)
        with pytest.raises(UserError, match=reason):
            counts.federated_weights()


def test_missing_counts_stop_training_only(make_tiny: Callable[..., Any], photo: torch.Tensor, tmp_path: Path) -> None:
    path = str(tmp_path / "absent.json")
    model = make_tiny({"MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True, "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": path})
    with torch.no_grad():
        model.eval()([{"image": photo}])
    with EventStorage(0), pytest.raises(UserError, match=r"absent.json.*CAT_FREQ_PATH"):
        model.train()([{"image": photo, "instances": example()}])
    state = model.state_dict()
    for stage in range(3):
        state[f"roi_heads.box_predictor.{stage}.freq_weight"] = torch.ones(30)
    model.load_state_dict(state)  # a checkpoint brings them
    with EventStorage(0):
        model.train()([{"image": photo, "instances": example()}])


def test_max_size_skips_the_last_proposal_as_published_or_not() -> None:
    logits, areas = [torch.zeros(4, 6)], [torch.tensor([1.0, 3, 2, 9])]
    for skip, expected in ((True, 1), (False, 3)):
        _, chosen = image_label_loss(logits, areas, [[2]], "max_size", skip)
        assert chosen[0].tolist() == [expected]
    _, chosen = image_label_loss([logits[0][:1]], [areas[0][:1]], [[2]], "max_size", True)
    assert chosen[0].tolist() == [0]  # the only one


@pytest.mark.parametrize(
    ("skips", "add_box", "expected"),
    [("last", False, True), ("image_box", False, False), ("image_box", True, True)],
)
def test_option_of_max_size(make_tiny: Callable[..., Any], skips: str, add_box: bool, expected: bool) -> None:
    changed = {"MODEL.ROI_BOX_HEAD.MAX_SIZE_SKIPS": skips, "MODEL.ROI_BOX_HEAD.ADD_IMAGE_BOX": add_box}
    changed |= {"MODEL.ROI_BOX_HEAD.IMAGE_LABEL_LOSS": "max_size"}
    assert make_tiny(changed).roi_heads.box_predictor[0].image_labels.skip_last is expected


def test_image_label_loss_of_a_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(3, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    areas = [torch.tensor([1.0, 3, 9]), torch.tensor([5.0, 3, 9])]
    loss, chosen = image_label_loss(logits, areas, [[2, 4], [5]], "max_size", softmax=True)
    assert [places.tolist() for places in chosen] == [[1, 1], [0]]
    of_labels = [F.cross_entropy(logits[0][1], torch.tensor(label)) for label in (2, 4)]
    expected = (sum(of_labels) / 2 + F.cross_entropy(logits[1][0], torch.tensor(5))) / 2
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_image_label_loss_without_labels_or_proposals() -> None:
    logits = [torch.randn(3, 5, requires_grad=True), torch.randn(0, 5, requires_grad=True)]
    loss, chosen = image_label_loss(logits, [torch.ones(3), torch.ones(0)], [[], [1]], "max_score")
    assert loss == 0
    assert [places.tolist() for places in chosen] == [[], []]
    loss.backward()
    assert logits[0].grad is not None


def test_whole_image_box_comes_last() -> None:
    proposals = Instances((40, 60))
    proposals.proposal_boxes = Boxes(torch.tensor([[-5.0, 2, 70, 20], [1.0, 1, 9, 9], [3.0, 3, 4, 4]]))
    proposals.objectness_logits = torch.tensor([0.9, 0.5, 0.1])
    (proposals_of_image,) = top_proposals(
        [proposals], WeakOptions(num_proposals=2, add_image_box=True, image_box_size=0.5)
    )
    assert proposals_of_image.proposal_boxes.tensor.tolist() == [[0, 2, 60, 20], [1, 1, 9, 9], [15, 10, 45, 30]]
    assert proposals.proposal_boxes.tensor[0, 0] == -5


def test_focal_loss_by_hand() -> None:
    logits, target = torch.tensor([0.0, 2.0, -1.0, 3.0]), torch.tensor([1.0, 0.5, 0.0, 0.0])
    positive, negative = heatmap_focal_loss(logits, target, torch.tensor([0, 0]), 0.25, 4, 2, 1e-4, 0.9)
    p = logits.sigmoid()
    torch.testing.assert_close(positive, -2 * 0.25 * p[0].log() * (1 - p[0]) ** 2)
    negatives = [1, 2]  # 3 is above 0.9, 0 is a positive
    expected = -0.75 * sum((1 - p[i]).log() * p[i] ** 2 * (1 - target[i]) ** 4 for i in negatives)
    torch.testing.assert_close(negative, expected)


@pytest.mark.parametrize("kind", ["giou", "iou", "linear_iou"])
def test_box_loss_is_least_for_the_right_box(kind: str) -> None:
    target = torch.tensor([[2.0, 3.0, 4.0, 1.0]])
    exact = side_distance_loss(target, target, kind)
    torch.testing.assert_close(exact, torch.zeros(1), atol=1e-6, rtol=0)
    assert (side_distance_loss(target * torch.tensor([1.2, 1, 0.8, 1]), target, kind) > 0.05).all()


def test_ties_at_the_limit() -> None:
    boxes = torch.tensor([[0.0, 0, 5, 5], [10, 10, 15, 15], [20, 20, 25, 25], [30, 30, 35, 35]])
    scores = torch.tensor([0.9, 0.5, 0.5, 0.5])
    assert len(select_proposals([boxes], [scores], (40, 40), 0.9, 2, keep_ties=True)) == 4
    assert len(select_proposals([boxes], [scores], (40, 40), 0.9, 2, keep_ties=False)) == 2


def test_batches_without_masks_or_objects(make_tiny: Callable[..., Any], photo: torch.Tensor) -> None:
    model = make_tiny().train()
    with EventStorage(0):
        losses = model([{"image": photo, "instances": example(mask=False)}])
        assert losses["loss_mask"] == 0
        empty = model([{"image": photo, "instances": example(classes=0)}])
    assert set(empty) == set(losses)
    sum(empty.values()).backward()
    assert all(torch.isfinite(loss) for loss in empty.values())
    assert all(p.grad is not None for p in model.roi_heads.mask_head.parameters())


def test_kinds_of_annotation_do_not_mix(make_tiny: Callable[..., Any], photo: torch.Tensor) -> None:
    changed = {"WITH_IMAGE_LABELS": True, "MODEL.ROI_BOX_HEAD.IMAGE_LABEL_LOSS": "max_size"}
    model = make_tiny(changed).train()
    batch = [{"image": photo, "instances": example(), "ann_type": kind} for kind in ("box", "image")]
    with pytest.raises(UserError, match=r"\['box', 'image'\].*MULTI_DATASET_GROUPING"):
        model(batch)


def test_scores_of_rpn_do_not_mix() -> None:
    """RPN's proposal scores are logits: their square root would not be a number, and nothing would be detected."""
    cfg = load_config(None, {"MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE": True})
    with pytest.raises(UserError, match="RPN gives logits"):
        DeticFastRCNNOutputLayers(cfg, ShapeSpec(channels=8))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MODEL.ROI_BOX_HEAD.IMAGE_LABEL_LOSS": "largest"}, "IMAGE_LABEL_LOSS is 'largest'; expected one of max_size"),
        ({"WITH_IMAGE_LABELS": True, "MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS": False}, "needs ROI_BOX_HEAD.USE_ZEROSHOT"),
        ({"MODEL.WITH_CAPTION": True}, "set ROI_BOX_HEAD.ADD_IMAGE_BOX"),
        ({"MODEL.ROI_BOX_HEAD.IMAGE_LABEL_LOSS": "image"}, "set ADD_IMAGE_BOX"),
        ({"MODEL.ROI_BOX_HEAD.MAX_SIZE_SKIPS": "none"}, "MAX_SIZE_SKIPS is 'none'"),
        (
            {"MODEL.ROI_BOX_HEAD.SOFTMAX_WEAK_LOSS": True, "MODEL.ROI_BOX_HEAD.IMAGE_LABEL_LOSS": "first"},
            "set IMAGE_LABEL_LOSS max_size",
        ),
        ({"MODEL.ROI_BOX_HEAD.USE_BIAS": 4.6}, "USE_BIAS is 4.6; 0 is no bias"),
        (
            {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False},
            "DeticCascadeROIHeads needs MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True",
        ),
        ({"MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6, 0.7]}, "must begin with ROI_HEADS.IOU_THRESHOLDS"),
        ({"MODEL.CENTERNET.ONLY_PROPOSAL": False}, "MODEL.CENTERNET.ONLY_PROPOSAL is False"),
        ({"MODEL.CENTERNET.LOC_LOSS_TYPE": "l1"}, "LOC_LOSS_TYPE is 'l1'"),
        ({"MODEL.CENTERNET.FPN_STRIDES": [4, 8, 16, 32, 64]}, "have strides"),
        ({"MODEL.FPN.OUT_CHANNELS": 48}, "needs a multiple of 32"),
        ({"MODEL.FPN.IN_FEATURES": ["res4", "res5"]}, "strides 8, 16, 32 are expected"),
        ({"MODEL.BACKBONE.NAME": "build_p67_tim_fpn_backbone"}, "nearest: 'build_p67_timm_fpn_backbone'"),
        ({"MODEL.META_ARCHITECTURE": "CustomRCN"}, "nearest: 'CustomRCNN'"),
    ],
)
def test_options_that_do_not_go_together(make_tiny: Callable[..., Any], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_tiny(changed)
