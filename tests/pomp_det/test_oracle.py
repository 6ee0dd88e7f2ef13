"""Oracles: exactly what each one is given changes, and the scorer takes their detections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from torch import nn

from pomp_det import load_config, set_classifier
from pomp_det.data.evaluation_mapper import build_test_mapper
from pomp_det.data.registration import register_dataset
from pomp_det.heads.inference import StageScores, reference_detections
from pomp_det.oracle import ORACLES, OracleDetector, matched_classes, restricted_scores
from prompt_core.errors import UserError

from ..support.detector import TINY

# The same detector with a C4 backbone, RPN and a single stage, whose proposal scores are not mixed in.
C4: dict[str, Any] = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32, 64]],
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.NMS_THRESH": 0.95,  # leaves proposals that overlap, as CenterNet does
    "MODEL.RPN.POST_NMS_TOPK_TEST": 40,
    "MODEL.ROI_HEADS.NAME": "CustomRes5ROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
    "MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE": False,
    "MODEL.ROI_BOX_HEAD.NORM_TEMP": 5.0,  # at 50 many scores round to 1, and their order says nothing
}
KINDS: dict[str, dict[str, Any]] = {
    "cascade": {},
    "cascade, logits": {"MODEL.ROI_BOX_HEAD.FAST_INFERENCE": False},
    "cascade, class scores alone": {"MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE": False},
    "c4": C4,
    "c4, logits": C4 | {"MODEL.ROI_BOX_HEAD.FAST_INFERENCE": False},
}
SIZES = ((96, 128), (80, 100))

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="session")
def make(make_tiny: Callable[..., Any]) -> Callable[..., Any]:
    def build(kind: str, **changed: Any) -> Any:
        model = make_tiny(KINDS[kind] | changed).eval()
        if kind.startswith("c4"):
            # Its features are large; shifts of this size would put every box onto the image's border.
            with torch.no_grad():
                model.roi_heads.box_predictor.bbox_pred[2].weight.mul_(0.0025)
        return model

    return build


def truth(boxes: Any, classes: list[int], size: tuple[int, int]) -> Instances:
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return instances


def photos() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, 256, (3, *size), generator=generator).float() for size in SIZES]


def batch(*given: Instances) -> list[dict[str, Any]]:
    """Examples of as many photos as there is ground truth for; the first is asked for in twice its size."""
    examples = [{"image": photo, "instances": truth} for photo, truth in zip(photos(), given, strict=False)]
    examples[0] |= {"height": 2 * SIZES[0][0], "width": 2 * SIZES[0][1]}
    return examples


def two_images() -> list[dict[str, Any]]:
    first = truth([[10, 10, 60, 70], [30, 5, 120, 90], [70, 40, 100, 64]], [3, 17, 3], SIZES[0])
    return batch(first, truth([[5, 5, 50, 60]], [8], SIZES[1]))


@torch.no_grad()
def insides(model: Any, examples: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], list[Instances]]:
    """Pyramid and proposals of the detector."""
    images: ImageList = model.preprocess_image(examples)
    features = model.features(images.tensor)
    return features, model.proposal_generator(images, features, None)[0]


def probabilities(stages: list[Any]) -> torch.Tensor:
    """Mean sigmoid over stages, (R, C + 1), of logits or of what they are the product of."""
    logits = [stage.projected @ stage.weight if isinstance(stage, StageScores) else stage for stage in stages]
    return torch.stack([part.sigmoid() for part in logits]).mean(dim=0)


@torch.no_grad()
def scored_by_hand(model: Any, features: dict[str, torch.Tensor], boxes: Boxes) -> torch.Tensor:
    """Class probabilities (R, C + 1) of boxes of the first image, stage by stage from its region features."""
    heads = model.roi_heads
    if hasattr(heads, "res5"):
        maps = heads.res5(heads.pooler([features["res4"]], [boxes, boxes[:0]]))
        return heads.box_predictor(maps.mean(dim=(2, 3)))[0].sigmoid()
    pooled = heads.box_pooler([features[name] for name in ("p3", "p4", "p5")], [boxes, boxes[:0]])
    stages = zip(heads.box_head, heads.box_predictor, strict=True)
    return torch.stack([predictor(head(pooled))[0].sigmoid() for head, predictor in stages]).mean(dim=0)


def assert_same(detections: Instances, expected: Instances) -> None:
    assert len(detections) == len(expected)
    assert detections.pred_classes.tolist() == expected.pred_classes.tolist()
    torch.testing.assert_close(detections.scores, expected.scores)
    torch.testing.assert_close(detections.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(detections.pred_masks, expected.pred_masks)


@each_kind
def test_unrefined_regions_are_scored_where_they_are(make: Callable[..., Any], kind: str) -> None:
    model, examples = make(kind), two_images()
    features, proposals = insides(model, examples)
    with torch.no_grad():
        refined_stages, refined = model.roi_heads.region_scores(features, proposals)
        stages, boxes = model.roi_heads.region_scores(features, proposals, refine=False)
    for given, same, other in zip(proposals, boxes, refined, strict=True):
        assert torch.equal(same, given.proposal_boxes.tensor)
        assert (other - same).abs().max() > 1
    expected = scored_by_hand(model, features, proposals[0].proposal_boxes)
    torch.testing.assert_close(probabilities(stages)[: len(proposals[0])], expected)
    if len(stages) > 1:
        assert (probabilities(refined_stages)[: len(proposals[0])] - expected).abs().max() > 0.01


@each_kind
def test_true_boxes_with_the_detectors_classes(make: Callable[..., Any], kind: str) -> None:
    model, examples = make(kind), two_images()
    detections = OracleDetector(model, "boxes")(examples)[0]["instances"]
    boxes = examples[0]["instances"].gt_boxes
    scores = scored_by_hand(model, insides(model, examples)[0], boxes)[:, :-1]
    if model.roi_heads.last_predictor.scoring.multiply_proposal_score:
        scores = scores.sqrt()  # the proposal score is 1
    expected, order = scores[scores > 0.02].sort(descending=True)
    expected, order = expected[:30], (scores > 0.02).nonzero()[order[:30]]
    assert len(detections) == len(expected) > 3
    assert detections.image_size == (192, 256)
    torch.testing.assert_close(detections.scores, expected)
    assert detections.pred_classes.tolist() == order[:, 1].tolist()
    assert torch.equal(detections.pred_boxes.tensor, 2 * boxes.tensor[order[:, 0]])
    assert detections.pred_masks.shape == (len(detections), 192, 256)


@each_kind
def test_equal_true_boxes_both_stay(make: Callable[..., Any], kind: str) -> None:
    model = make(kind, **{"TEST.DETECTIONS_PER_IMAGE": -1})
    box = [10.3, 10.7, 60.1, 70.9]
    once = OracleDetector(model, "boxes")(batch(truth([box], [3], SIZES[0])))[0]["instances"]
    twice = OracleDetector(model, "boxes")(batch(truth([box, box, [10.3, 10.7, 60.1, 70]], [3, 3, 5], SIZES[0])))
    detections = twice[0]["instances"]
    assert len(once) > 0
    same = (detections.pred_boxes.tensor == once.pred_boxes.tensor[0]).all(dim=1)
    assert sorted(detections.pred_classes[same].tolist()) == sorted([*once.pred_classes.tolist()] * 2)
    assert not same.all()  # the box that overlaps them by more than the threshold stays too
    assert model.roi_heads.last_predictor.test_nms_thresh == 0.5


def test_matching_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10.1], [20, 20, 30, 30], [50, 50, 60, 60]])
    gt_boxes = torch.tensor([[0.0, 0, 10, 5], [20, 20, 30, 30], [20, 20, 30, 30], [21, 20, 30, 30]])
    gt_classes = torch.tensor([7, 4, 2, 9])
    # An overlap of exactly 0.5 counts, a little less does not; of two equal boxes the first gives the class.
    assert matched_classes(boxes, gt_boxes, gt_classes).tolist() == [7, -1, 4, -1]
    assert matched_classes(boxes, gt_boxes[:0], gt_classes[:0]).tolist() == [-1] * 4
    assert matched_classes(boxes[:0], gt_boxes, gt_classes).tolist() == []


@each_kind
def test_the_detectors_boxes_with_true_classes(make: Callable[..., Any], kind: str) -> None:
    """Against the plain way: a table of probabilities that are 0 or 1, then scored as always."""
    model = make(kind)
    features, proposals = insides(model, two_images())
    with torch.no_grad():
        _, boxes = model.roi_heads.region_scores(features, proposals)
    height, width = SIZES[0]
    clipped = boxes[0].clone()
    clipped[:, ::2], clipped[:, 1::2] = clipped[:, ::2].clamp(0, width), clipped[:, 1::2].clamp(0, height)
    similar = (pairwise_iou(Boxes(clipped), Boxes(clipped)) > 0.6).sum(dim=1)
    chosen = similar.sort(descending=True, stable=True).indices[:8]
    given = truth(clipped[chosen] + 0.5, [6, 2, 6, 11, 6, 6, 6, 6], SIZES[0]), truth([], [], SIZES[1])

    table = torch.zeros(len(clipped), 31)
    classes = matched_classes(clipped, given[0].gt_boxes.tensor, given[0].gt_classes)
    rows = (classes >= 0).nonzero()[:, 0]
    table[rows, classes[rows]] = 1
    predictor = model.roi_heads.last_predictor
    if predictor.scoring.multiply_proposal_score:
        table = (table * proposals[0].objectness_logits[:, None]).sqrt()
    expected, regions = reference_detections(table, boxes[0], SIZES[0], 0.02, 0.5, 30)

    detections = OracleDetector(model, "classes")(batch(*given))[0]["instances"]
    assert 1 < len(detections) == len(expected) < len(rows)  # some are suppressed
    assert (detections.scores.diff() <= 0).all()
    # Without proposal scores all are equal, and the plain way orders equal scores by class.
    detections = detections[detections.pred_classes.argsort(stable=True)]
    detections = detections[detections.scores.argsort(stable=True, descending=True)]
    assert detections.pred_classes.tolist() == classes[regions].tolist()
    torch.testing.assert_close(detections.scores, expected.scores)
    torch.testing.assert_close(detections.pred_boxes.tensor, 2 * clipped[regions])
    assert detections.pred_masks.shape == (len(detections), 192, 256)


def test_true_classes_keep_threshold_and_limit(make: Callable[..., Any]) -> None:
    examples = batch(truth([[0, 0, 128, 96]], [4], SIZES[0]))
    model = make("cascade", **{"MODEL.ROI_HEADS.NMS_THRESH_TEST": 1.0})
    features, proposals = insides(model, examples)
    with torch.no_grad():
        boxes = model.roi_heads.region_scores(features, proposals)[1][0]
    examples[0]["instances"].gt_boxes = Boxes(boxes[:1].clone())
    every = OracleDetector(model, "classes")(examples)[0]["instances"]
    assert len(every) > 2
    predictor = model.roi_heads.last_predictor
    predictor.test_topk_per_image = 2
    assert torch.equal(OracleDetector(model, "classes")(examples)[0]["instances"].scores, every.scores[:2])
    predictor.test_topk_per_image, predictor.test_score_thresh = -1, float(every.scores[1])
    assert torch.equal(OracleDetector(model, "classes")(examples)[0]["instances"].scores, every.scores[:1])


@each_kind
def test_true_vocabulary_is_a_classifier_of_those_rows(make: Callable[..., Any], kind: str) -> None:
    model, examples = make(kind), two_images()
    rows = torch.randn(30, 24, generator=torch.Generator().manual_seed(3))
    set_classifier(model, rows)
    outputs = OracleDetector(model, "vocabulary")(examples)
    for number, classes in enumerate(([3, 17], [8])):
        set_classifier(model, rows[classes])
        with torch.no_grad():
            expected = model(examples)[number]["instances"]
        assert set(expected.pred_classes.tolist()) == set(range(len(classes)))
        expected.pred_classes = torch.tensor(classes)[expected.pred_classes]
        assert_same(outputs[number]["instances"], expected)


@pytest.mark.parametrize(
    "changed",
    [{}, {"MODEL.ROI_BOX_HEAD.FAST_INFERENCE": False}, {"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False}],
    ids=["fast", "logits", "softmax"],
)
def test_true_vocabulary_leaves_scores_as_they_are(make: Callable[..., Any], changed: dict[str, Any]) -> None:
    """Without a limit, the other classes' detections are all that is missing."""
    model, examples = make("cascade", **changed, **{"TEST.DETECTIONS_PER_IMAGE": -1}), two_images()
    with torch.no_grad():
        expected = model(examples)[0]["instances"]
    in_vocabulary = (expected.pred_classes == 3) | (expected.pred_classes == 17)
    assert 0 < in_vocabulary.sum() < len(expected)
    assert_same(OracleDetector(model, "vocabulary")(examples)[0]["instances"], expected[in_vocabulary])


def test_restricted_softmax_keeps_its_probabilities() -> None:
    logits = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = torch.tensor([6, 1])
    scores, none = restricted_scores(logits, classes), restricted_scores(logits, classes[:0])
    assert isinstance(scores, torch.Tensor)
    assert isinstance(none, torch.Tensor)
    torch.testing.assert_close(scores.softmax(dim=1)[:, :2], logits.softmax(dim=1)[:, classes])
    assert none.shape == (5, 1)


@each_kind
@pytest.mark.parametrize("oracle", ORACLES)
def test_images_without_ground_truth(make: Callable[..., Any], kind: str, oracle: str) -> None:
    """Alone and in a batch with an image that has some, which is not affected."""
    model, images = make(kind), two_images()
    nothing = truth([], [], SIZES[1])
    alone = OracleDetector(model, oracle)(batch(truth([], [], SIZES[0]), nothing))
    for output, size in zip(alone, ((192, 256), SIZES[1]), strict=True):
        instances = output["instances"]
        assert len(instances) == 0
        assert instances.pred_boxes.tensor.shape == (0, 4)
        assert instances.pred_masks.shape == (0, *size)
    expected = OracleDetector(model, oracle)(images)[0]["instances"]
    images[1]["instances"] = nothing
    outputs = OracleDetector(model, oracle)(images)
    assert_same(outputs[0]["instances"], expected)
    assert len(outputs[1]["instances"]) == 0


def test_detectron2s_own_model_class(make: Callable[..., Any]) -> None:
    plain, custom = (make("cascade", **{"MODEL.META_ARCHITECTURE": name}) for name in ("GeneralizedRCNN", "CustomRCNN"))
    plain.load_state_dict(custom.state_dict())
    for oracle in ORACLES:
        detections = [OracleDetector(model, oracle)(two_images())[0]["instances"] for model in (plain, custom)]
        assert_same(*detections)


def test_the_mode_is_the_detectors(make: Callable[..., Any]) -> None:
    model = make("cascade")
    assert not OracleDetector(model, "boxes").training
    oracle = OracleDetector(model.train(), "boxes")
    assert oracle.training
    assert not oracle.eval().detector.training


def test_mistakes(make: Callable[..., Any]) -> None:
    model = make("cascade")
    with pytest.raises(UserError, match="oracle 'class' is unknown; expected boxes, classes, vocabulary; nearest: 'cl"):
        OracleDetector(model, "class")
    with pytest.raises(UserError, match="cannot look into NoneType"):
        OracleDetector(nn.Identity(), "boxes")
    oracle, examples = OracleDetector(model, "boxes"), two_images()
    with pytest.raises(UserError, match=r"image a\.jpg has no ground truth"):
        oracle([{"image": examples[0]["image"], "file_name": "a.jpg"}])
    with pytest.raises(UserError, match=r"for height and width \(80, 100\), the detector sees \(96, 128\)"):
        oracle([examples[0] | {"instances": examples[1]["instances"]}])
    examples[0]["instances"].gt_classes[1] = 30
    with pytest.raises(UserError, match=r"image 7 has ground truth of classes 3 to 30, the detector has 30"):
        oracle([examples[0] | {"image_id": 7}])


@pytest.fixture
def coco(tmp_path: Path) -> Iterator[Callable[[int], list[dict[str, Any]]]]:
    """Registers ``test_oracle``: four photos, the last without objects, and a crowd in the first."""

    def register(categories: int) -> list[dict[str, Any]]:
        generator = np.random.default_rng(5)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(4):
            width, height = ((160, 120), (90, 150))[number % 2]
            picture = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / f"{number}.png")
            images.append({"id": number, "width": width, "height": height, "file_name": f"{number}.png"})
            for place in range(4 if number < 3 else 0):
                corner = generator.uniform(0, 0.5, 2) * (width, height)
                side = generator.uniform(0.2, 0.5, 2) * (width, height)
                annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": 10 + place % categories}
                box = [float(value) for value in (*corner, *side)]
                crowd = int((number, place) == (0, 0))
                annotations.append(annotation | {"bbox": box, "area": box[2] * box[3], "iscrowd": crowd})
        names = [{"id": 10 + number, "name": f"thing {number}"} for number in range(categories)]
        document = {"images": images, "annotations": annotations, "categories": names}
        (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
        register_dataset("test_oracle", tmp_path / "a.json", tmp_path)
        records: list[dict[str, Any]] = DatasetCatalog.get("test_oracle")
        return records

    yield register
    DatasetCatalog.remove("test_oracle")
    MetadataCatalog.remove("test_oracle")


def loaded(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    mapper = build_test_mapper(load_config(None, TINY | {"INPUT.MIN_SIZE_TEST": 96}), with_ground_truth=True)
    return [mapper(record) for record in records]


def average_precision(model: Any, examples: list[dict[str, Any]], folder: Path) -> float:
    pytest.importorskip("hotcoco")
    from pomp_det.evaluation.evaluator import DetectionEvaluator

    evaluator = DetectionEvaluator("test_oracle", folder, tasks=["bbox"])
    evaluator.reset()
    for example in examples:
        with torch.no_grad():
            evaluator.process([example], model([example]))
    results = evaluator.evaluate()
    assert results is not None
    return results["bbox"]["AP"]


def detector_of(make: Callable[..., Any], classes: int) -> Any:
    """A detector that leaves nothing out: neither threshold nor limit."""
    settings = {"TEST.DETECTIONS_PER_IMAGE": -1, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0, "MODEL.MASK_ON": False}
    model = make("cascade", **settings)
    set_classifier(model, torch.randn(classes, 24, generator=torch.Generator().manual_seed(1)))
    return model


def test_crowds_are_no_true_boxes(make: Callable[..., Any], coco: Any) -> None:
    records = coco(1)
    detections = OracleDetector(detector_of(make, 1), "boxes")(loaded(records)[:1])[0]["instances"]
    expected = torch.tensor(
        [annotation["bbox"] for annotation in records[0]["annotations"] if not annotation["iscrowd"]]
    )
    expected[:, 2:] += expected[:, :2]
    assert len(detections) == len(expected) == 3
    order = [matched_classes(box[None], expected, torch.arange(3)).item() for box in detections.pred_boxes.tensor]
    torch.testing.assert_close(detections.pred_boxes.tensor, expected[order])


def test_true_boxes_of_one_class_are_perfect(make: Callable[..., Any], coco: Any, tmp_path: Path) -> None:
    """With a single class nothing can be confused."""
    examples, model = loaded(coco(1)), detector_of(make, 1)
    assert average_precision(OracleDetector(model, "boxes"), examples, tmp_path / "boxes") == pytest.approx(100)
    assert average_precision(model, examples, tmp_path / "plain") < 50


def test_true_classes_of_good_boxes_are_perfect(make: Callable[..., Any], coco: Any, tmp_path: Path) -> None:
    """Proposals that are the ground truth, and no refinement: only the classes are wrong without the oracle."""
    examples, model = loaded(coco(4)), detector_of(make, 4)
    for predictor in model.roi_heads.box_predictor:
        nn.init.zeros_(predictor.bbox_pred[2].weight)

    class KnownProposals(nn.Module):
        """The ground truth of the examples, one after the other."""

        def __init__(self) -> None:
            super().__init__()
            self.rest = [example["instances"] for example in examples]

        def forward(self, images: ImageList, features: Any, targets: Any) -> tuple[list[Instances], dict[str, Any]]:
            instances = self.rest.pop(0)
            proposals = Instances(instances.image_size)
            proposals.proposal_boxes = instances.gt_boxes.clone()
            proposals.objectness_logits = torch.linspace(0.9, 0.1, len(instances))
            return [proposals], {}

    model.proposal_generator = KnownProposals()
    assert average_precision(OracleDetector(model, "classes"), examples, tmp_path / "classes") == pytest.approx(100)
    model.proposal_generator = KnownProposals()
    assert average_precision(model, examples, tmp_path / "plain") < 90


def test_scores_of_a_random_detector(make: Callable[..., Any], coco: Any, tmp_path: Path) -> None:
    """All are defined; where nothing is cut off, taking false detections away cannot lower the score."""
    examples, model = loaded(coco(4)), detector_of(make, 4)
    scores = {oracle: average_precision(OracleDetector(model, oracle), examples, tmp_path) for oracle in ORACLES}
    plain = average_precision(model, examples, tmp_path)
    assert all(0 <= score <= 100 for score in scores.values())
    assert 0 <= plain <= scores["vocabulary"]
    assert scores["boxes"] > plain
