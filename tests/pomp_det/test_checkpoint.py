"""Files that detectors are loaded from and saved to, and the class matrix that stays."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from safetensors.torch import save_file

from pomp_det import DetectorCheckpointer, build_detector, load_config, load_weights, set_classifier

from ..support.detector import TINY


@pytest.fixture
def matrices(tmp_path: Path) -> list[str]:
    """Files of two matrices of 30 classes and of one of 12."""
    generator = np.random.default_rng(0)
    paths = []
    for name, count in (("first", 30), ("second", 30), ("dozen", 12)):
        np.save(tmp_path / f"{name}.npy", generator.normal(size=(count, 24)).astype(np.float32))
        paths.append(str(tmp_path / f"{name}.npy"))
    return paths


def with_matrix(path: str, **changed: Any) -> dict[str, Any]:
    return {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": path, **changed}


def saved(model: Any, folder: Path, name: str = "model") -> str:
    DetectorCheckpointer(model, str(folder)).save(name)
    return str(folder / f"{name}.pth")


def zs_weight(model: Any) -> torch.Tensor:
    return model.roi_heads.box_predictor[1].cls_score.zs_weight


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("class matrix")]


def test_saved_and_loaded_detector_gives_the_same_output(
    make_tiny: Callable[..., Any], tmp_path: Path, photo: torch.Tensor
) -> None:
    first, second = make_tiny(seed=1), make_tiny(seed=2)
    path = saved(first, tmp_path)
    load_weights(second, path)
    with torch.no_grad():
        detections = [model.eval()([{"image": photo}])[0]["instances"] for model in (first, second)]
    assert len(detections[0]) > 0
    for key in ("scores", "pred_classes", "pred_masks"):
        assert torch.equal(detections[0].get(key), detections[1].get(key))
    assert torch.equal(detections[0].pred_boxes.tensor, detections[1].pred_boxes.tensor)


@pytest.mark.parametrize("kind", ["safetensors", "bare", "module", "text_encoder"])
def test_other_forms_of_a_checkpoint(make_tiny: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    first, second = make_tiny(seed=1), make_tiny(seed=2)
    state, path = dict(first.state_dict()), tmp_path / "weights.pth"
    if kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    elif kind == "bare":
        torch.save(state, path)
    elif kind == "module":
        torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        torch.save({"model": state | {"text_encoder.positional_embedding": torch.ones(3)}, "iteration": 7}, path)
    load_weights(second, path)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in state.items())


def test_the_configured_matrix_stays(
    make_tiny: Callable[..., Any], matrices: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(make_tiny(with_matrix(matrices[0]), seed=1), tmp_path)
    model = make_tiny(with_matrix(matrices[1]), seed=2)
    configured, linear = zs_weight(model).clone(), model.roi_heads.box_predictor[1].cls_score.linear.weight.clone()
    with caplog.at_level(logging.INFO, "pomp_det"):
        load_weights(model, path)
    assert torch.equal(zs_weight(model), configured)
    assert not torch.equal(model.roi_heads.box_predictor[1].cls_score.linear.weight, linear)  # the rest was loaded
    (line,) = messages(caplog)
    assert "the configured one is used" in line
    assert matrices[1] in line
    assert not [record for record in caplog.records if "not found in the checkpoint" in record.getMessage()]


def test_an_equal_matrix_needs_no_word(
    make_tiny: Callable[..., Any], matrices: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(make_tiny(with_matrix(matrices[0]), seed=1), tmp_path)
    model = make_tiny(with_matrix(matrices[0]), seed=2)
    with caplog.at_level(logging.INFO, "pomp_det"):
        load_weights(model, path)
    assert messages(caplog) == []


@pytest.mark.parametrize("by", ["option", "configuration"])
def test_the_checkpoint_may_decide(
    make_tiny: Callable[..., Any], matrices: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    source = make_tiny(with_matrix(matrices[2], **{"MODEL.ROI_HEADS.NUM_CLASSES": 12}), seed=1)
    path = saved(source, tmp_path)
    option = {"MODEL.ROI_BOX_HEAD.CLASSIFIER_FROM_CHECKPOINT": by == "configuration"}
    model = make_tiny(with_matrix(matrices[1], **option), seed=2)
    with caplog.at_level(logging.INFO, "pomp_det"):
        load_weights(model, path, classes_from_checkpoint=True if by == "option" else None)
    assert torch.equal(zs_weight(model), zs_weight(source))
    assert model.roi_heads.num_classes == 12
    assert [predictor.num_classes for predictor in model.roi_heads.box_predictor] == [12] * 3
    (line,) = messages(caplog)
    assert "the 12 classes of the checkpoint are used (CLASSIFIER_FROM_CHECKPOINT)" in line


def test_an_absent_matrix_that_the_checkpoint_replaces_does_not_matter(
    make_tiny: Callable[..., Any], matrices: list[str], tmp_path: Path
) -> None:
    source = make_tiny(with_matrix(matrices[0]), seed=1)
    option = {"MODEL.ROI_BOX_HEAD.CLASSIFIER_FROM_CHECKPOINT": True}
    model = make_tiny(with_matrix(str(tmp_path / "absent.npy"), **option), seed=2)
    load_weights(model, saved(source, tmp_path))
    assert torch.equal(zs_weight(model), zs_weight(source))


def test_names_are_not_those_of_other_classes(
    make_tiny: Callable[..., Any], matrices: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_tiny(with_matrix(matrices[0]), seed=1)
    model = make_tiny(with_matrix(matrices[1]), seed=2)
    set_classifier(model, matrices[1], names=[f"thing {row}" for row in range(30)])
    with caplog.at_level(logging.INFO, "pomp_det"):
        load_weights(model, saved(source, tmp_path), classes_from_checkpoint=True)
    assert torch.equal(zs_weight(model), zs_weight(source))
    assert model.roi_heads.class_names[3] == "class 3"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_wrapped_checkpoint_is_guarded_too(
    make_tiny: Callable[..., Any], matrices: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, model = make_tiny(with_matrix(matrices[0]), seed=1), make_tiny(with_matrix(matrices[1]), seed=2)
    configured = zs_weight(model).clone()
    state = source.state_dict() | {"text_encoder.positional_embedding": torch.ones(3)}
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "weights.pth")
    with caplog.at_level(logging.INFO):
        load_weights(model, tmp_path / "weights.pth")
    assert torch.equal(zs_weight(model), configured)
    assert torch.equal(model.roi_heads.box_head[0].fc1.weight, source.roi_heads.box_head[0].fc1.weight)
    assert not [record for record in caplog.records if "not found" in record.getMessage()]
    assert not [record for record in caplog.records if "text_encoder" in record.getMessage()]


def test_configured_class_counts_stay(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    def changed(count: int, frequencies: str = "") -> dict[str, Any]:
        path = tmp_path / f"{count}.json"
        if count:
            path.write_text(json.dumps([{"id": row, "image_count": count, "frequency": "f"} for row in range(30)]))
        np.save(tmp_path / "matrix.npy", np.random.default_rng(0).normal(size=(30, 24)).astype(np.float32))
        head = {"USE_FED_LOSS": True, "CAT_FREQ_PATH": str(path), "HELD_OUT_FREQUENCIES": frequencies}
        return with_matrix(str(tmp_path / "matrix.npy"), **{f"MODEL.ROI_BOX_HEAD.{key}": head[key] for key in head})

    def first_stage(model: Any) -> Any:
        return model.roi_heads.box_predictor[0]

    nine, four, without = (saved(make_tiny(changed(count)), tmp_path, f"of_{count}") for count in (9, 4, 0))
    model = make_tiny(changed(4))
    load_weights(model, nine)
    assert torch.equal(first_stage(model).freq_weight, torch.full((30,), 2.0))
    model.load_state_dict(torch.load(without, weights_only=True)["model"])  # zeros of a detector without counts
    assert torch.equal(first_stage(model).freq_weight, torch.full((30,), 2.0))
    absent = make_tiny(changed(0))
    load_weights(absent, without)
    assert first_stage(absent).missing_counts
    load_weights(absent, four)
    assert torch.equal(first_stage(absent).freq_weight, torch.full((30,), 2.0))
    assert not first_stage(absent).missing_counts
    held_out = make_tiny(changed(0, "r"))
    load_weights(held_out, four)
    assert first_stage(held_out).missing_counts  # a checkpoint does not say which classes are rare


def test_without_a_configured_matrix_the_checkpoint_decides(
    make_tiny: Callable[..., Any], matrices: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_tiny(with_matrix(matrices[0]), seed=1)
    model = make_tiny(seed=2)
    with caplog.at_level(logging.INFO, "pomp_det"):
        load_weights(model, saved(source, tmp_path))
    assert torch.equal(zs_weight(model), zs_weight(source))
    assert "no class matrix was configured" in messages(caplog)[0]


def test_a_matrix_of_another_size_is_no_obstacle(
    make_tiny: Callable[..., Any], matrices: list[str], tmp_path: Path, photo: torch.Tensor
) -> None:
    path = saved(make_tiny(with_matrix(matrices[0]), seed=1), tmp_path)
    model = make_tiny(with_matrix(matrices[2], **{"MODEL.VOCABULARY": matrices[2]}), seed=2)
    load_weights(model, path)
    assert zs_weight(model).shape == (24, 13)
    with torch.no_grad():
        assert model.eval()([{"image": photo}])[0]["instances"].pred_classes.max() < 12


def test_plain_loading_takes_what_it_is_given_and_says_so(
    make_tiny: Callable[..., Any], matrices: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    source, model = make_tiny(with_matrix(matrices[0]), seed=1), make_tiny(with_matrix(matrices[1]), seed=2)
    model.roi_heads.class_names = [f"thing {row}" for row in range(30)]
    with caplog.at_level(logging.WARNING, "pomp_det"):
        model.load_state_dict(source.state_dict(), strict=True)
        model.load_state_dict(source.state_dict(), strict=True)  # nothing changes the second time
    assert torch.equal(zs_weight(model), zs_weight(source))
    (record,) = caplog.records
    assert "replaces the configured one" in record.getMessage()
    assert matrices[1] in record.getMessage()
    assert model.roi_heads.class_names[3] == "class 3"  # the configured names are of other classes


def test_swapped_classes_survive_saving(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    first, second = make_tiny(seed=1), make_tiny(seed=2)
    set_classifier(first, torch.randn(5, 24))
    load_weights(second, saved(first, tmp_path))
    assert second.roi_heads.num_classes == 5
    assert torch.equal(zs_weight(second), zs_weight(first))


def test_backbone_weights_of_a_classifier(tmp_path: Path) -> None:
    import timm

    changed = {
        "MODEL.DEVICE": "cpu",
        "MODEL.BACKBONE.NAME": "build_p67_efficientnet_lite_fpn_backbone",
        "MODEL.FPN.IN_FEATURES": ["layer3", "layer4", "layer5"],
    }
    source = timm.create_model("tf_efficientnet_lite0")
    state = source.state_dict()
    renamed = {f"_other.{number}": value for number, value in enumerate(state.values())}
    for number, names in enumerate((state, renamed, {"state_dict": state, "epoch": 3})):
        path = tmp_path / f"{number}.pth"
        torch.save(dict(names), path)
        model = build_detector(load_config(None, TINY | changed))
        load_weights(model, path)
        base = model.backbone.bottom_up.base
        assert torch.equal(base.conv_stem.weight, source.conv_stem.weight)
        assert torch.equal(base.blocks[6][0].conv_pwl.weight, source.blocks[6][0].conv_pwl.weight)
        assert torch.equal(base.bn1.running_var, source.bn1.running_var)


def test_backbone_weights_of_a_pickle(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    """As published backbones travel: arrays under the names of the backbone alone, matched by their endings."""
    source, model = make_tiny(seed=1), make_tiny(seed=2)
    prefix = "backbone.bottom_up."
    arrays = {
        key.removeprefix(prefix): value.numpy() for key, value in source.state_dict().items() if key.startswith(prefix)
    }
    path = tmp_path / "backbone.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party", "matching_heuristics": True}))
    load_weights(model, path)
    loaded, expected = model.backbone.bottom_up.state_dict(), source.backbone.bottom_up.state_dict()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
