"""Heads on two frozen networks: what is pooled for a box, and a whole tiny detector that learns masks only."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from pomp_det import build_detector, load_config, load_weights
from pomp_det.classifier import set_classifier
from pomp_det.heads.region_words import RegionWordsHead, RegionWordsPooler, cell_logits
from pomp_det.heads.seen_words import SeenWordsClassifier
from pomp_det.predictor import OpenVocabularyPredictor
from pomp_det.proposals.cells import cell_boxes
from pomp_det.task import detection_task
from pomp_engine import run
from pomp_engine.backbones.nanodet import LEVELS
from prompt_core import TextClassifier, UserError

from ..support.detector_run import make_data
from ..support.region_words import SEEN, WIDTH, cell_width, region_words_settings

SIDE = 96  # of the maps' photo


def bilinear(values: list[list[float]], y: float, x: float, outside: float | None) -> float:
    """At a place in cells, whose centres are whole numbers; ``outside`` is what is more than a cell away from all.

    None for the nearest cell.
    """
    height, width = len(values), len(values[0])
    if outside is not None and not (-1 <= y <= height and -1 <= x <= width):
        return outside
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = y - top, x - left
    upper = (1 - along) * values[top][left] + along * values[top][right]
    lower = (1 - along) * values[below][left] + along * values[below][right]
    return (1 - down) * upper + down * lower


def plain_cells(cells: list[Tensor]) -> list[tuple[list[float], tuple[float, float], list[float]]]:
    """Box, centre and logits of each cell, by levels and rows."""
    found = []
    for level, maps in zip(LEVELS, cells, strict=True):
        stride, (height, width) = 2**level, maps.shape[-2:]
        for row in range(height):
            for column in range(width):
                logits = maps[:, row, column].tolist()
                sides = []
                for side in range(4):
                    weights = [math.exp(value) for value in logits[SEEN + 11 * side : SEEN + 11 * side + 11]]
                    mean = sum(number * weight for number, weight in enumerate(weights)) / sum(weights)
                    sides.append(mean * stride)
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                box = [x - sides[0], y - sides[1], x + sides[2], y + sides[3]]
                limits = [width * stride, height * stride] * 2
                box = [min(max(value, 0.0), limit) for value, limit in zip(box, limits, strict=True)]
                found.append((box, (x, y), logits[:SEEN]))
    return found


def plain_overlap(first: list[float], second: list[float]) -> float:
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def plain_logits(cells: list[Tensor], box: list[float]) -> list[list[float]]:
    """Those of the cells whose boxes overlap most, equally but for rounding; the nearest cells' where none does."""
    known = plain_cells(cells)
    overlaps = [plain_overlap(box, other) for other, _, _ in known]
    if (best := max(overlaps)) > 0:
        return [cell[2] for cell, overlap in zip(known, overlaps, strict=True) if overlap > best - 1e-9]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    distances = [math.dist((x, y), centre) for _, centre, _ in known]
    return [cell[2] for cell, far in zip(known, distances, strict=True) if far < min(distances) + 1e-6]


def plain_embedding(words: Tensor, box: list[float], scale: float) -> list[float]:
    """The mean over 4 x 4 places in the box."""
    total = [0.0] * len(words)
    for row in range(4):
        for column in range(4):
            y = box[1] * scale - 0.5 + (row + 0.5) * (box[3] - box[1]) * scale / 4
            x = box[0] * scale - 0.5 + (column + 0.5) * (box[2] - box[0]) * scale / 4
            total = [
                old + bilinear(channel.tolist(), y, x, 0.0) / 16 for old, channel in zip(total, words, strict=True)
            ]
    return total


place = st.floats(-1.5 * SIDE, 2.5 * SIDE, width=32)
length = st.floats(0, 3 * SIDE, width=32)


@settings(max_examples=15, deadline=None)
@given(boxes=st.lists(st.tuples(place, place, length, length), min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_pooling_is_that_of_a_plain_loop(boxes: list[tuple[float, ...]], seed: int) -> None:
    """For boxes anywhere: outside the photo, without area, larger than it."""
    generator = torch.Generator().manual_seed(seed)
    maps = [
        torch.randn(1, cell_width(), SIDE // 2**level, SIDE // 2**level, generator=generator).double()
        for level in LEVELS
    ]
    words = torch.randn(1, 6, 2, 2, generator=generator).double()
    scale = 2 / SIDE
    corners = [[x, y, x + width, y + height] for x, y, width, height in boxes]
    tensor = torch.tensor(corners, dtype=torch.float64)
    pooled = RegionWordsPooler(SEEN, scale)([*maps, words], [_double_boxes(tensor)])
    assert pooled.shape == (len(boxes), 6 + SEEN)
    for row, box in zip(pooled, corners, strict=True):
        expected = torch.tensor(plain_embedding(words[0], box, scale), dtype=torch.float64)
        torch.testing.assert_close(row[:6], expected, atol=1e-6, rtol=1e-6)
        assert row[6:].tolist() in plain_logits([level[0] for level in maps], box)


def _double_boxes(tensor: Tensor) -> Boxes:
    boxes = Boxes(torch.zeros(0, 4))
    boxes.tensor = tensor  # the constructor would round them
    return boxes


def test_boxes_of_several_images_and_of_none() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(3, cell_width(), SIDE // 2**level, SIDE // 2**level, generator=generator) for level in LEVELS]
    maps.append(torch.randn(3, 6, 3, 3, generator=generator))
    boxes = [Boxes(torch.tensor([[4.0, 4, 40, 50], [0, 0, 96, 96]])), Boxes(torch.zeros(0, 4))]
    boxes.append(Boxes(torch.tensor([[30.0, 30, 60, 90]])))
    pooler = RegionWordsPooler(SEEN, 1 / 32)
    together = pooler(maps, boxes)
    assert together.shape == (3, 6 + SEEN)
    for number, rows in ((0, together[:2]), (2, together[2:])):
        alone = pooler([level[number : number + 1] for level in maps], [boxes[number]])
        torch.testing.assert_close(rows, alone)
    assert pooler(maps, [Boxes(torch.zeros(0, 4))] * 3).shape == (0, 6 + SEEN)
    assert cell_logits([level[0] for level in maps[:3]], torch.zeros(0, 4), SEEN).shape == (0, SEEN)


def test_a_proposal_is_answered_by_its_own_cell() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = [3 * torch.randn(cell_width(), SIDE // 2**level, SIDE // 2**level, generator=generator) for level in LEVELS]
    boxes = torch.cat([cell_boxes(maps, level, SEEN) for level, maps in zip(LEVELS, cells, strict=True)])
    whole = (boxes > 0).all(dim=1) & (boxes < SIDE).all(dim=1)  # those at the border may be equal
    logits = torch.cat([maps[:SEEN].flatten(1).T for maps in cells])
    torch.testing.assert_close(cell_logits(cells, boxes[whole], SEEN), logits[whole])


def test_the_head_gives_unit_embeddings_and_evidence() -> None:
    head = RegionWordsHead(width=WIDTH, num_seen=SEEN)
    pooled = torch.randn(5, WIDTH + SEEN, generator=torch.Generator().manual_seed(0))
    pooled[0, :WIDTH] = 0
    features = head(pooled)
    assert head.output_shape.channels == features.shape[1] == WIDTH + SEEN
    torch.testing.assert_close(features[1:, :WIDTH].norm(dim=1), torch.ones(4))
    assert torch.isfinite(features).all()
    assert not list(head.parameters())


@pytest.fixture
def data(tmp_path: Path) -> Any:
    make_data(tmp_path, count=4)
    yield tmp_path
    DatasetCatalog.pop("tiny", None)
    MetadataCatalog.pop("tiny", None)


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    folder = tmp_path_factory.mktemp("settings")

    def built(**changed: Any) -> Any:
        torch.manual_seed(0)
        return build_detector(load_config(None, region_words_settings(folder, **changed)))

    return built


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Any]) -> Any:
    return make_model().eval()


def test_only_masks_learn(data: Path) -> None:
    cfg = load_config(None, region_words_settings(data))
    torch.manual_seed(4)
    start = build_detector(cfg)
    learning = {name for name, parameter in start.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in start.named_parameters() if name.startswith("roi_heads.mask_head.")}
    torch.save({"model": start.state_dict()}, data / "start.pth")
    cfg = load_config(None, region_words_settings(data, **{"MODEL.WEIGHTS": str(data / "start.pth")}))
    results = run.train(detection_task(), cfg)
    assert 0 <= results["tiny"]["bbox"]["AP50"] <= 100
    assert 0 <= results["tiny"]["segm"]["AP50"] <= 100
    trained = build_detector(cfg)
    load_weights(trained, data / "run/model_final.pth")
    before = start.state_dict()
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert {name for name in learning if name.endswith("weight")} <= changed <= learning


def test_detections_keep_the_proposals_boxes(model: Any, photo: Tensor) -> None:
    with torch.no_grad():
        (found,) = model.inference([{"image": photo}], do_postprocess=False)
        images = model.preprocess_image([{"image": photo}])
        (proposals,), _ = model.proposal_generator(images, model.features(images.tensor))
    assert len(found) > 0
    boxes = proposals.proposal_boxes.tensor
    for box in found.pred_boxes.tensor:
        assert float((boxes - box).abs().amax(dim=1).min()) < 1e-3
    assert found.pred_masks.shape[0] == len(found)


def test_fast_and_plain_inference_of_a_whole_detector(make_model: Any, model: Any, photo: Tensor) -> None:
    plain = make_model(**{"MODEL.ROI_BOX_HEAD.FAST_INFERENCE": False}).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        fast, expected = (detector([{"image": photo}])[0]["instances"] for detector in (model, plain))
    assert len(fast) == len(expected) > 0
    assert fast.pred_classes.tolist() == expected.pred_classes.tolist()
    torch.testing.assert_close(fast.scores, expected.scores)
    torch.testing.assert_close(fast.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_words_are_swapped_saved_and_loaded(make_model: Any, model: Any, photo: Tensor, tmp_path: Path) -> None:
    model = copy.deepcopy(model)
    classifier: SeenWordsClassifier = model.roi_heads.box_predictor[0].cls_score
    classifier.seen_words.copy_(F.normalize(torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(3)), dim=1))

    def seen(detector: Any) -> Any:
        with torch.inference_mode():
            return detector([{"image": photo}])[0]["instances"]

    first = seen(model)
    names = ["cat", "dog", "tree", "cup", "kite"]
    words = TextClassifier(torch.cat((classifier.seen_words[:4], -classifier.seen_words[:1])), names, {})
    set_classifier(model, words)
    swapped = seen(model)
    assert model.roi_heads.class_names == names
    # Each of the detection network's classes has a word of its own, so its best class names a box with its own score.
    with torch.no_grad():
        images = model.preprocess_image([{"image": photo}])
        (proposals,), _ = model.proposal_generator(images, model.features(images.tensor))
    best = proposals.objectness_logits.max()
    assert float(swapped.scores.max()) == pytest.approx(
        float(best), rel=0.1
    )  # the box's centre is not quite its cell's
    assert swapped.scores.tolist() != first.scores.tolist()
    torch.save({"model": model.state_dict()}, tmp_path / "five.pth")
    again = make_model(**{"MODEL.ROI_HEADS.NUM_CLASSES": 5}).eval()
    load_weights(again, tmp_path / "five.pth")
    torch.testing.assert_close(seen(again).scores, swapped.scores)
    set_classifier(model, torch.randn(1203, WIDTH))
    assert len(seen(model)) > 0


def test_photos_of_any_shape(tmp_path: Path) -> None:
    """Among them one without anything likely, and one of a single pixel's height."""
    settings_of_model = region_words_settings(tmp_path, **{"MODEL.RANDOM_WEIGHTS": True})
    predictor = OpenVocabularyPredictor.load(load_config(None, settings_of_model))
    for shape in ((200, 31), (1, 90), (64, 64), (33, 500)):
        found = predictor(np.full((*shape, 3), 128, dtype=np.uint8))
        assert found.image_size == shape
    predictor.model.proposal_generator.score_threshold = 1.0  # type: ignore[union-attr]
    assert len(predictor(np.zeros((50, 60, 3), dtype=np.uint8))) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 30}, "ZEROSHOT_WEIGHT_DIM is 30; the image tower of MODEL.WORDS"),
        ({"MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead"}, "needs MODEL.BACKBONE.NAME build_detection_and_words"),
        ({"MODEL.BACKBONE.NAME": "build_p67_resnet_fpn_backbone"}, "MODEL.BACKBONE.NAME build_detection_and_words"),
        ({"MODEL.PROPOSAL_GENERATOR.NAME": "CenterNet"}, "MODEL.CENTERNET.IN_FEATURES"),
        (
            {
                "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6],
                "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [[10.0, 10.0, 5.0, 5.0]] * 2,
            },
            "one entry of MODEL.ROI_BOX_CASCADE_HEAD.IOUS",
        ),
        ({"MODEL.WORDS.SEEN_FROM": 0.9}, "MODEL.WORDS.SEEN_FROM is 0.9, SEEN_WHOLLY is 0.85; the first has to be"),
        ({"MODEL.WORDS.SEEN_NAMES": 0}, "MODEL.WORDS.SEEN_NAMES is 0; expected 1 or more"),
        ({"MODEL.WORDS.CHANNELS": [4, 8]}, "MODEL.WORDS.CHANNELS is"),
        ({"MODEL.WORDS.STD": [0.5, 0.5, 0.0]}, "MODEL.WORDS.STD is"),
        ({"MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS": False}, "needs MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS, USE_SIGMOID_CE"),
        ({"MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE": False}, "and MULT_PROPOSAL_SCORE True"),
    ],
)
def test_configurations_that_do_not_fit(make_model: Any, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_model(**changed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_detector(make_model: Any, model: Any, tmp_path: Path) -> None:
    torch.save({"model": model.state_dict()}, tmp_path / "six.pth")
    learned = {name: value for name, value in model.state_dict().items() if "mask_head" in name}
    torch.save({"model": learned}, tmp_path / "masks.pth")

    def refusal(file: str, **changed: Any) -> str:
        changed["MODEL.WEIGHTS"] = str(tmp_path / file)
        with pytest.raises(UserError) as caught:
            OpenVocabularyPredictor.load(load_config(None, region_words_settings(tmp_path, **changed)))
        return str(caught.value)

    expected = "the weights have 6 names of seen classes, MODEL.WORDS.SEEN_NAMES is 7; set it alike"
    assert refusal("six.pth", **{"MODEL.WORDS.SEEN_NAMES": 7}) == expected
    # Nothing learns there, and yet it may not stay random.
    assert "learned weights, the first is backbone.detection.cells.0.weight" in refusal(
        "six.pth", **{"MODEL.WORDS.SEEN_CLASSES": SEEN + 1}
    )
    assert "the first is backbone.detection.stem.0.weight" in refusal("masks.pth")
