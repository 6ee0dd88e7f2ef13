"""A hierarchy of classes in the box loss: what a label says of the classes above it and of those below."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("detectron2")

from pomp_det.checks import check_class_facts
from pomp_det.data.openimages_classes import read_hierarchy
from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from pomp_det.heads.class_hierarchy import ClassHierarchy
from pomp_det.heads.class_losses import sigmoid_loss
from prompt_core import UserError

HEAD = "MODEL.ROI_BOX_HEAD."
# 0 above 1 and 2, 1 above 3; 4 alone
ANCESTORS = [frozenset[int](), frozenset({0}), frozenset({0}), frozenset({0, 1}), frozenset[int]()]


def reference(
    logits: torch.Tensor, labels: list[int], ancestors: list[frozenset[int]], positive: bool, classes: list[int]
) -> float:
    """UniDet's rule, a region and a class at a time."""
    total = 0.0
    for row, label in enumerate(labels):
        for column in classes:
            background = label == len(ancestors)
            above = not background and column in ancestors[label]
            below = not background and label in ancestors[column]
            if below or (above and not positive):
                continue
            target = torch.tensor(float(column == label or above), dtype=torch.float64)
            total += float(F.binary_cross_entropy_with_logits(logits[row, column], target))
    return total / len(labels)


@st.composite
def trees(draw: Any) -> list[frozenset[int]]:
    ancestors: list[frozenset[int]] = []
    for own in range(draw(st.integers(1, 7))):
        parents = draw(st.sets(st.integers(0, own - 1), max_size=2)) if own else set()
        ancestors.append(frozenset(parents).union(*(ancestors[parent] for parent in parents)))
    return ancestors


@settings(max_examples=50, deadline=None)
@given(trees(), st.booleans(), st.data())
def test_the_loss_is_that_of_the_plain_rule(ancestors: list[frozenset[int]], positive: bool, data: Any) -> None:
    count = len(ancestors)
    labels = data.draw(st.lists(st.integers(0, count), min_size=1, max_size=6))
    classes = data.draw(st.lists(st.integers(0, count - 1), unique=True, min_size=1))
    logits = torch.randn(len(labels), count + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given_labels = torch.tensor(labels)
    loss = sigmoid_loss(logits, given_labels, torch.tensor(classes), ClassHierarchy(ancestors, positive))
    assert float(loss) == pytest.approx(reference(logits, labels, ancestors, positive, classes), rel=1e-12, abs=1e-12)


def test_without_relatives_nothing_changes() -> None:
    logits, labels = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 6
    alone = ClassHierarchy([frozenset()] * 5, True)
    torch.testing.assert_close(sigmoid_loss(logits, labels, None, alone), sigmoid_loss(logits, labels), rtol=0, atol=0)


def test_classes_above_a_label_are_in_the_batch() -> None:
    labels = torch.tensor([3, 5, 5])
    assert ClassHierarchy(ANCESTORS, True).positives(labels).tolist() == [0, 1, 3, 5]
    assert ClassHierarchy(ANCESTORS, False).positives(labels).tolist() == [3, 5]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Of 30 classes, the first above all others of the first ten."""
    children = [{"LabelName": str(number)} for number in range(2, 11)]
    document = {
        "hierarchy": {"LabelName": "root", "Subcategory": [{"LabelName": "1", "Subcategory": children}]},
        "categories": [{"id": number, "freebase_id": str(number)} for number in range(30, 0, -1)],
    }
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(document))
    return path


def learning(tree: Path, **more: Any) -> dict[str, Any]:
    flags = {f"{HEAD}HIERARCHY_IGNORE": True, f"{HEAD}HIERARCHY_POS_PARENTS": True}
    return flags | {f"{HEAD}HIERARCHY_PATH": str(tree), f"{HEAD}USE_FED_LOSS": False, **more}


def predictors(model: Any) -> list[DeticFastRCNNOutputLayers]:
    return [part for part in model.modules() if isinstance(part, DeticFastRCNNOutputLayers)]


def test_a_detector_learns_by_the_hierarchy_of_its_configuration(make_tiny: Callable[..., Any], tree: Path) -> None:
    model, plain = (
        make_tiny(learning(tree)),
        make_tiny(learning(tree) | {f"{HEAD}HIERARCHY_IGNORE": False} | {f"{HEAD}HIERARCHY_POS_PARENTS": False}),
    )
    check_class_facts(model)
    logits, labels = torch.randn(12, 31), torch.arange(12) * 3 % 31
    for stage, without in zip(predictors(model), predictors(plain), strict=True):
        found = stage.sigmoid_cross_entropy_loss(logits, labels)
        rows = [frozenset({0}) if 0 < row < 10 else frozenset[int]() for row in range(30)]
        expected = reference(logits.double(), labels.tolist(), rows, True, list(range(30)))
        assert float(found) == pytest.approx(expected, rel=1e-5)
        assert float(found) != pytest.approx(float(without.sigmoid_cross_entropy_loss(logits, labels)), rel=1e-3)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_federated_loss_keeps_the_classes_above_a_label(
    make_tiny: Callable[..., Any], tree: Path, tmp_path: Path
) -> None:
    counts = tmp_path / "counts.json"
    counts.write_text(json.dumps([{"id": number, "image_count": 1} for number in range(1, 31)]))
    federated = {f"{HEAD}USE_FED_LOSS": True, f"{HEAD}CAT_FREQ_PATH": str(counts), f"{HEAD}FED_LOSS_NUM_CAT": 1}
    stage = predictors(make_tiny(learning(tree, **federated)))[0]
    logits, labels = torch.randn(4, 31), torch.tensor([5, 5, 30, 12])
    rows = [frozenset({0}) if 0 < row < 10 else frozenset[int]() for row in range(30)]
    expected = reference(logits.double(), labels.tolist(), rows, True, [0, 5, 12])  # nothing is drawn besides
    assert float(stage.sigmoid_cross_entropy_loss(logits, labels)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match="of 30 classes, the detector has 33 now"):
        stage.sigmoid_cross_entropy_loss(torch.randn(4, 34), labels)


def test_a_missing_hierarchy_stops_training_only(
    make_tiny: Callable[..., Any], photo: torch.Tensor, tree: Path, tmp_path: Path
) -> None:
    model = make_tiny(learning(tmp_path / "none.json"))
    model.eval()
    assert model([{"image": photo}])[0]["instances"] is not None
    with pytest.raises(UserError, match=r"needs the hierarchy.*none\.json"):
        check_class_facts(model)
    document = json.loads(tree.read_text())
    document["categories"] = document["categories"][:20]
    tree.write_text(json.dumps(document | {"hierarchy": {"LabelName": "root"}}))
    with pytest.raises(UserError, match="of 20 classes, the detector has 30 now"):
        check_class_facts(make_tiny(learning(tree)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({f"{HEAD}HIERARCHY_IGNORE": False}, "HIERARCHY_POS_PARENTS says what HIERARCHY_IGNORE does"),
        ({f"{HEAD}USE_SIGMOID_CE": False}, "HIERARCHY_IGNORE applies to the sigmoid loss"),
        ({"MODEL.DYNAMIC_CLASSIFIER": True}, "MODEL.DYNAMIC_CLASSIFIER to False"),
    ],
)
def test_options_that_do_not_go_together(
    make_tiny: Callable[..., Any], tree: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_tiny(learning(tree, **more))


def test_a_list_counts_its_own_classes(tree: Path) -> None:
    assert read_hierarchy(tree)[:11] == [frozenset(), *[frozenset({0})] * 9, frozenset()]
    document = json.loads(tree.read_text())
    tree.write_text(json.dumps(document | {"categories": document["categories"][21:]}))  # only the first nine
    with pytest.raises(UserError, match="class '10' is none of the 9"):
        read_hierarchy(tree)
