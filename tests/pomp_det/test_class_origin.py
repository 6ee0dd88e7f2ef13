"""Class features of another CLIP than the detector learned with are caught, published matrices by their content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from pomp_det import build_detector, load_config, load_weights, set_classifier
from pomp_det.class_matrix import classifier_of_names
from pomp_det.classifier import check_learned_clip
from pomp_det.predictor import OpenVocabularyPredictor
from prompt_core import SoftPrompt, TextClassifier, UserError

from ..support.detector import TINY

MATRIX = "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH"
WIDE = {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 512, "MODEL.DEVICE": "cpu"}
B32, B16 = "ViT-B-32-quickgelu", "ViT-B-16-quickgelu"


@pytest.fixture
def matrices(shared: Path, tmp_path: Path) -> Path:
    """Detic's and POMP's matrices of COCO, saved again under names that say nothing: single precision, unit norm."""
    for name, file in (("detic", "coco_clip_a+cname"), ("pomp", "coco_clip_pomp+cname")):
        rows = np.load(shared / "data/clip_text" / f"{file}.npy").astype(np.float32)
        np.save(tmp_path / f"{name}.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    SoftPrompt(torch.randn(4, 512), metadata={"clip": B16, "pretrained": "openai"}).save(tmp_path / "b16.safetensors")
    torch.save({"state_dict": {"ctx": torch.randn(16, 512)}}, tmp_path / "vit_b16_ep20_randaug2_seed42.pth.tar")
    torch.save({"state_dict": {"ctx": torch.randn(16, 512)}}, tmp_path / "unknown.pth.tar")
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, make_tiny_clip: Callable[..., Any]) -> list[str]:
    """The architectures that were loaded; all are a tiny one."""
    names: list[str] = []
    clip = make_tiny_clip(width=512, heads=8, layers=1)
    monkeypatch.setattr("prompt_core.clip.load_clip", lambda name, *_: names.append(name) or clip)
    return names


def classifier(matrices: Path, matrix: str, words: str, prompt: str, **changed: Any) -> TextClassifier:
    cfg = load_config(None, TINY | WIDE | {MATRIX: str(matrices / matrix)} | changed)
    return classifier_of_names(cfg, words, str(matrices / prompt) if prompt.endswith(("tar", "tensors")) else prompt)


@pytest.mark.parametrize("prompt", ["b16.safetensors", "vit_b16_ep20_randaug2_seed42.pth.tar", "unknown.pth.tar"])
def test_a_prompt_meets_a_matrix_of_another_clip(matrices: Path, asked: list[str], prompt: str) -> None:
    with pytest.raises(UserError) as caught:
        classifier(matrices, "detic.npy", "cat,dog", prompt)
    assert str(caught.value) == (
        f"class matrix {matrices / 'detic.npy'} was made with CLIP {B32} (openai, told by its content), names are "
        f"encoded by '{matrices / prompt}' with CLIP {B16} (openai): their features have nothing in common; encode "
        f"names with {B32} (MODEL.CLIP.NAME, tools/build_classifier.py --clip), a prompt of it or a template, or take "
        f"a detector that learned with {B16}"
    )
    assert asked == [], "refused before a model is loaded"
    classifier(matrices, "pomp.npy", "cat,dog", prompt)
    assert asked == [B16]


def test_templates_are_encoded_by_the_clip_of_the_matrix(matrices: Path, asked: list[str]) -> None:
    for matrix in ("detic.npy", "pomp.npy"):
        classifier(matrices, matrix, "cat,dog", "a {}.")
    assert asked == [B32, B16]
    with pytest.raises(UserError, match=f"names are encoded by 'a {{}}' with CLIP {B16}"):
        classifier(matrices, "detic.npy", "cat", "a {}", **{"MODEL.CLIP.NAME": B16})
    other = {"MODEL.CLIP.NAME": "ViT-B-32", "MODEL.CLIP.PRETRAINED": "laion2b_e16"}
    with pytest.raises(UserError, match=r"with CLIP ViT-B-32 \(laion2b_e16\): their features"):
        classifier(matrices, "detic.npy", "cat", "a {}", **other)
    # In training, the words and their prompt are the classes; the path is a published configuration's.
    words = {"MODEL.VOCABULARY": "cat"}
    assert classifier(matrices, "detic.npy", "cat", "b16.safetensors", **words).names == ["cat"]


@pytest.fixture
def detector(matrices: Path) -> Path:
    """A checkpoint whose class matrix is Detic's, as published ones have it: on its side, with a background."""
    count = {"MODEL.ROI_HEADS.NUM_CLASSES": 80}
    model = build_detector(load_config(None, TINY | WIDE | count | {MATRIX: str(matrices / "detic.npy")}))
    torch.save({"model": model.state_dict()}, matrices / "detic.pth")
    return matrices


def test_a_matrix_meets_a_detector_of_another_clip(detector: Path, asked: list[str]) -> None:
    settings = TINY | WIDE | {"MODEL.WEIGHTS": str(detector / "detic.pth"), MATRIX: str(detector / "absent.npy")}
    predictor = OpenVocabularyPredictor.load(load_config(None, settings), str(detector / "detic.npy"))
    before = predictor.model.roi_heads.box_predictor[0].cls_score.zs_weight.clone()
    refused = f"in the detector's weights was made with CLIP {B32} .*told by its content"
    with pytest.raises(UserError, match=f"{refused}.*class matrix .*pomp.npy with CLIP {B16} .*nothing in common"):
        predictor.set_vocabulary(str(detector / "pomp.npy"))
    with pytest.raises(UserError, match=f"{refused}.*names are encoded by .*b16.* with CLIP {B16}"):
        predictor.set_vocabulary("cat,dog", str(detector / "b16.safetensors"))
    assert torch.equal(predictor.model.roi_heads.box_predictor[0].cls_score.zs_weight, before)
    with pytest.raises(UserError, match=r"the detector needs \(classes, 512\)"):
        predictor.set_vocabulary("cat", "a {}")  # the tiny model's features are narrower than those that it stands for
    assert asked == [B32]
    configured = settings | {MATRIX: str(detector / "pomp.npy"), "MODEL.ROI_HEADS.NUM_CLASSES": 80}
    with pytest.raises(UserError, match=f"{refused}.*class matrix .*pomp.npy with CLIP {B16}"):
        OpenVocabularyPredictor.load(load_config(None, configured))


def test_training_may_go_on_with_another_clips_classes(detector: Path) -> None:
    """As POMP does it from Detic's weights: only prediction and evaluation look."""
    settings = TINY | WIDE | {MATRIX: str(detector / "pomp.npy"), "MODEL.ROI_HEADS.NUM_CLASSES": 80}
    model = build_detector(load_config(None, settings))
    load_weights(model, detector / "detic.pth")
    set_classifier(model, detector / "pomp.npy")
    with pytest.raises(UserError, match="their features have nothing in common"):
        check_learned_clip(model)
    set_classifier(model, detector / "detic.npy")
    check_learned_clip(model)
