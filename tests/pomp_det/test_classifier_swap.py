"""Other classes on the same weights: matrices, classifier files, class names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from pomp_det import build_detector, configured_classifier, load_config, set_classifier
from pomp_det.class_matrix import read_class_matrix
from pomp_det.classifier import temporary_classes
from pomp_det.heads.inference import SharedClasses
from prompt_core import TextClassifier, UserError

from ..support.detector import TINY

NAMES = ["cat", "dog", "toy_car", "dining table"]


def rows(count: int, seed: int = 1, width: int = 24) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def classifier_file(tmp_path: Path) -> Path:
    path = tmp_path / "classifier.safetensors"
    TextClassifier(rows(4), NAMES, {"vocabulary": "four things"}).save(path)
    return path


def config(changed: dict[str, Any]) -> Any:
    return load_config(None, TINY | {"MODEL.DEVICE": "cpu"} | changed)


def stage_counts(model: Any) -> list[int]:
    return [predictor.num_classes for predictor in model.roi_heads.box_predictor]


@pytest.mark.parametrize("count", [1, 7, 80, 21_843])
def test_any_number_of_classes(make_tiny: Callable[..., Any], photo: torch.Tensor, count: int) -> None:
    model = make_tiny().eval()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    set_classifier(model, 3 * rows(count))
    assert stage_counts(model) == [count] * 3
    assert model.roi_heads.num_classes == count
    assert len(model.roi_heads.class_names) == count
    with torch.no_grad():
        instances = model([{"image": photo}])[0]["instances"]
    assert 0 < len(instances) <= 30
    assert instances.pred_classes.max() < count
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_scores_follow_the_class_whatever_its_row(make_tiny: Callable[..., Any], photo: torch.Tensor) -> None:
    model, matrix = make_tiny().eval(), rows(6)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    detections = []
    for weight, back in ((matrix, torch.arange(6)), (matrix[order], order)):
        set_classifier(model, weight)
        with torch.no_grad():
            instances = model([{"image": photo}])[0]["instances"]
        detections.append((instances.scores, back[instances.pred_classes], instances.pred_boxes.tensor))
    for first, second in zip(*detections, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_every_kind_of_source(make_tiny: Callable[..., Any], classifier_file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "matrix.npy", rows(4).numpy().astype(np.float16))
    model = make_tiny()
    sources = [
        TextClassifier.load(classifier_file),
        rows(4),
        rows(4).numpy(),
        classifier_file,
        str(tmp_path / "matrix.npy"),
    ]
    for source in sources:
        set_classifier(model, rows(9, seed=5))
        set_classifier(model, source)
        for predictor in model.roi_heads.box_predictor:
            weight = predictor.cls_score.zs_weight
            expected = torch.nn.functional.normalize(rows(4), dim=1).T
            torch.testing.assert_close(weight[:, :-1], expected, atol=1e-3, rtol=0)
            assert not weight[:, -1].any()
    set_classifier(model, classifier_file)
    assert model.roi_heads.class_names == NAMES


def test_mistakes(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    model = make_tiny()
    with pytest.raises(UserError, match=r"class matrix \(4, 25\).*needs \(classes, 24\)"):
        set_classifier(model, rows(4, width=25))
    with pytest.raises(UserError, match="not finite"):
        set_classifier(model, rows(4) / 0)
    with pytest.raises(UserError, match=r"\(0, 24\)"):
        set_classifier(model, rows(0))
    with pytest.raises(UserError, match="2 class names were given for 4 classes"):
        set_classifier(model, rows(4), names=["a", "b"])
    with pytest.raises(UserError, match=r"absent.npy does not exist"):
        set_classifier(model, tmp_path / "absent.npy")
    np.save(tmp_path / "named.npy", rows(4).numpy())
    (tmp_path / "named.names.json").write_text('{"names": ["a", "b"]}')
    with pytest.raises(UserError, match=r"named.npy has 4 rows, its .names.json 2 names"):
        set_classifier(model, tmp_path / "named.npy")
    plain = make_tiny({"MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS": False})
    with pytest.raises(UserError, match="no zero-shot classifier"):
        set_classifier(plain, rows(4))
    assert stage_counts(model) == [30] * 3


def test_published_stage_counts_and_their_effect(make_tiny: Callable[..., Any], photo: torch.Tensor) -> None:
    """With the old count a class beyond it has no box loss, as in the published code."""
    instances = Instances((96, 128))
    instances.gt_boxes, instances.gt_classes = Boxes(torch.tensor([[10.0, 10, 90, 80]])), torch.tensor([35])
    losses = []
    for update in (True, False):
        model = make_tiny({"MODEL.MASK_ON": False}).train()
        set_classifier(model, rows(40), update_stage_counts=update)
        assert stage_counts(model) == [40 if update else 30] * 3
        with EventStorage(0):
            losses.append(model([{"image": photo, "instances": instances}]))
    assert losses[0]["loss_box_reg_stage0"] > 0
    assert losses[1]["loss_box_reg_stage0"] == 0


def test_counts_of_other_classes_stop_training_not_detecting(
    make_tiny: Callable[..., Any], photo: torch.Tensor, tmp_path: Path
) -> None:
    import json

    counts = tmp_path / "counts.json"
    counts.write_text(json.dumps([{"id": row, "image_count": 5} for row in range(30)]))
    changed = {"MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True, "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(counts)}
    model = make_tiny(changed | {"MODEL.MASK_ON": False})
    set_classifier(model, rows(12))
    with torch.no_grad():
        assert len(model.eval()([{"image": photo}])[0]["instances"])
    instances = Instances((96, 128))
    instances.gt_boxes, instances.gt_classes = Boxes(torch.tensor([[10.0, 10, 90, 80]])), torch.tensor([3])
    with EventStorage(0), pytest.raises(UserError, match="they are of 30 classes, the detector has 12 now"):
        model.train()([{"image": photo, "instances": instances}])


def test_classifier_file_in_the_configuration(classifier_file: Path) -> None:
    changed = {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(classifier_file)}
    with pytest.raises(UserError, match=r"has 4 classes, MODEL.ROI_HEADS.NUM_CLASSES is 30"):
        build_detector(config(changed))
    model = build_detector(config(changed | {"MODEL.ROI_HEADS.NUM_CLASSES": 4}))
    assert model.roi_heads.class_names == NAMES
    for vocabulary in (str(classifier_file), "cat,dog,toy_car,dining table"):  # the vocabulary counts the classes
        model = build_detector(config(changed | {"MODEL.VOCABULARY": vocabulary}))
        assert stage_counts(model) == [4] * 3


def test_vocabulary_picks_rows_by_name(classifier_file: Path) -> None:
    changed = {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(classifier_file)}
    classifier = configured_classifier(config(changed | {"MODEL.VOCABULARY": "Toy car, cat"}))
    assert classifier is not None
    assert classifier.names == ["Toy car", "cat"]
    torch.testing.assert_close(classifier.weight, TextClassifier.load(classifier_file).weight[[2, 0]])
    with pytest.raises(UserError, match=r"has no class 'dgo'; nearest: 'dog'; set MODEL.PROMPT"):
        configured_classifier(config(changed | {"MODEL.VOCABULARY": "cat,dgo"}))
    with pytest.raises(UserError, match=r"the class matrix is random; set MODEL.PROMPT"):
        build_detector(config({"MODEL.VOCABULARY": "cat,dog"}))
    with pytest.raises(UserError, match=r"class 2 of 3 is blank"):
        configured_classifier(config(changed | {"MODEL.VOCABULARY": "cat,,dog"}))


def test_vocabulary_behind_a_prompt(tiny_clip: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prompt_core import SoftPrompt

    asked: list[Any] = []
    monkeypatch.setattr("prompt_core.clip.load_clip", lambda *arguments: asked.append(arguments) or tiny_clip)
    names = tmp_path / "names.txt"
    names.write_text("zebra\nfire hydrant\n")
    prompt = tmp_path / "prompt.safetensors"
    SoftPrompt.random(32, 4).save(prompt, clip="tiny")
    model = build_detector(config({"MODEL.VOCABULARY": str(names), "MODEL.PROMPT": str(prompt)}))
    assert asked[-1][0] == "tiny"  # what the prompt was learned with
    expected = TextClassifier.build(tiny_clip, ["zebra", "fire hydrant"], SoftPrompt.load(prompt)).weight
    weight = model.roi_heads.box_predictor[2].cls_score.zs_weight
    torch.testing.assert_close(weight[:, :-1], expected.T)
    assert model.roi_heads.class_names == ["zebra", "fire hydrant"]

    classifier = configured_classifier(config({"MODEL.VOCABULARY": "zebra", "MODEL.PROMPT": "a {}.|the {}."}))
    assert classifier is not None
    torch.testing.assert_close(
        classifier.weight, TextClassifier.build(tiny_clip, ["zebra"], ["a {}.", "the {}."]).weight
    )
    with pytest.raises(UserError, match=r"learned with CLIP tiny; MODEL.CLIP.NAME is 'ViT-B-32'"):
        configured_classifier(
            config({"MODEL.VOCABULARY": "zebra", "MODEL.PROMPT": str(prompt), "MODEL.CLIP.NAME": "ViT-B-32"})
        )
    with pytest.raises(UserError, match=r"MODEL.PROMPT is set without MODEL.VOCABULARY"):
        configured_classifier(config({"MODEL.PROMPT": str(prompt)}))


def test_real_matrix_swaps_to_another_vocabulary(shared: Path, published: Path) -> None:
    from pomp_det.class_matrix import read_class_matrix

    matrix = read_class_matrix(shared / "data/clip_text/coco_clip_pomp+cname.npy")
    assert matrix.weight.shape == (80, 512)
    model = build_detector(config({"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 512, "MODEL.ROI_HEADS.NUM_CLASSES": 3}))
    set_classifier(model, matrix)
    assert stage_counts(model) == [80] * 3


def test_everything_comes_back_after_temporary_classes(make_tiny: Any, tmp_path: Path) -> None:
    """A federated loss goes on with the counts of its own classes."""
    counts = [{"id": row, "name": str(row), "image_count": row + 1} for row in range(30)]
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    changed = {"MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True}
    model = make_tiny(changed | {"MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(tmp_path / "counts.json")})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = list(model.roi_heads.class_names)
    with temporary_classes(model, torch.randn(4, 24)):
        assert [stage.num_classes for stage in model.roi_heads.box_predictor] == [4, 4, 4]
        assert model.roi_heads.box_predictor[0].missing_counts
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.roi_heads.class_names == names
    for predictor in model.roi_heads.box_predictor:
        assert predictor.num_classes == 30
        assert int((predictor.class_counts.federated_weights() > 0).sum()) == 30


def test_equal_matrices_are_multiplied_once(make_tiny: Any, photo: torch.Tensor) -> None:
    """One product for all stages, with the detections of three; another matrix in one stage is noticed."""
    model = make_tiny().eval()
    set_classifier(model, torch.randn(40, 24, generator=torch.Generator().manual_seed(3)))
    classifiers = [predictor.cls_score for predictor in model.roi_heads.box_predictor]
    (shared,) = model([{"image": photo}])
    assert model.roi_heads.shared_classes.same
    model.roi_heads.shared_classes = list
    (apart,) = model([{"image": photo}])
    assert len(shared["instances"]) == len(apart["instances"]) > 0
    torch.testing.assert_close(shared["instances"].scores, apart["instances"].scores)
    model.roi_heads.shared_classes = SharedClasses()
    model([{"image": photo}])
    with torch.no_grad():
        classifiers[1].zs_weight.copy_(classifiers[1].zs_weight.roll(1, dims=1))
    (changed,) = model([{"image": photo}])
    assert not model.roi_heads.shared_classes.same
    assert not torch.equal(changed["instances"].scores, shared["instances"].scores)


def test_published_matrices_get_the_names_of_their_vocabulary(tmp_path: Path) -> None:
    for file, count, last in (
        ("coco_clip_pomp+cname.npy", 80, "toothbrush"),
        ("o365_fixname_clip_pomp+cname.npy", 365, "Table Tennis"),
        ("lvis_v1_clip_a+cname.npy", 1203, "zucchini"),
    ):
        np.save(tmp_path / file, np.ones((count, 4), np.float32))
        assert read_class_matrix(tmp_path / file).names[-1].strip() == last
    np.save(tmp_path / "coco_mine.npy", np.ones((79, 4), np.float32))
    assert read_class_matrix(tmp_path / "coco_mine.npy").names[-1] == "class 78"
    (tmp_path / "coco_clip_pomp+cname.names.json").write_text(json.dumps({"names": [str(row) for row in range(80)]}))
    assert read_class_matrix(tmp_path / "coco_clip_pomp+cname.npy").names[-1] == "79"
