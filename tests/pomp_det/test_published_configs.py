"""Every published detection file builds a model; only files that are not at hand are overridden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from pomp_det import build_detector, load_config
from prompt_core import UserError

FILES = [
    "Base-C2_L_R5021k_640b64_4x",
    "Base_OVCOCO_C4_1x",
    "BoxSup-C2_L_CLIP_R5021k_640b64_4x",
    "BoxSup-C2_L_CLIP_R5021k_640b64_4x_pomp",
    "BoxSup-C2_Lbase_CLIP_R5021k_640b64_4x",
    "BoxSup-C2_Lbase_CLIP_R5021k_640b64_4x_pomp",
    "BoxSup_OVCOCO_CLIP_R50_1x",
    "BoxSup_OVCOCO_CLIP_R50_1x_pomp",
    "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size",
    "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp",
    "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp_cross_datasets",
    "Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_max-size",
    "Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp",
    "Detic_OVCOCO_CLIP_R50_1x_max-size_caption_pomp",
]
CPU = {"MODEL.DEVICE": "cpu"}
# A narrow version, for tests that run the model.
SLIM = CPU | {"MODEL.RESNETS.WIDTH_PER_GROUP": 8, "MODEL.RESNETS.RES2_OUT_CHANNELS": 32}


@pytest.fixture
def _no_initial_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the weights of full-size models takes most of the time, and building tests do not look at them."""
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, *arguments, **options: self)
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, *arguments, **options: self)


def overrides_for(shared: Path, name: str) -> dict[str, Any]:
    text, at_hand = shared / "data/clip_text", load_config(shared / f"data/published_configs/detic/{name}.yaml")
    matrix = text / Path(at_hand.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH).name
    return {
        "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(matrix) if matrix.is_file() else "rand",
        "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(text / Path(at_hand.MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH).name),
    }


def test_the_list_is_complete(published: Path) -> None:
    assert sorted(path.stem for path in published.glob("*.yaml")) == sorted(FILES)


@pytest.mark.usefixtures("_no_initial_values")
@pytest.mark.parametrize("name", FILES)
def test_builds(shared: Path, published: Path, name: str) -> None:
    model = build_detector(load_config(published / f"{name}.yaml", CPU | overrides_for(shared, name)))
    coco, cascade = "OVCOCO" in name, 3
    heads = model.roi_heads
    assert type(model).__name__ == "CustomRCNN"
    assert heads.num_classes == (80 if coco else 1203)
    predictors = [heads.box_predictor] if coco else list(heads.box_predictor)
    assert len(predictors) == (1 if coco else cascade)
    for predictor in predictors:
        assert predictor.num_classes == heads.num_classes
        if not name.startswith("Base-C2"):  # a base without zero-shot classifier
            assert predictor.cls_score.zs_weight.shape == (512, heads.num_classes + 1)
            torch.testing.assert_close(predictor.cls_score.zs_weight[:, :-1].norm(dim=0), torch.ones(heads.num_classes))
    assert hasattr(heads, "mask_head") != coco


def test_a_missing_matrix_is_named(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POMP_DATA", raising=False)
    cfg = load_config(published / "BoxSup-C2_L_CLIP_R5021k_640b64_4x_pomp.yaml", SLIM)
    with pytest.raises(
        UserError, match=r"datasets/metadata/lvis_v1_clip_pomp\+cname.npy does not exist; .*ZEROSHOT_WEI"
    ):
        build_detector(cfg)


def test_matrix_under_the_data_root(
    shared: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metadata").symlink_to(shared / "data/clip_text")
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    model = build_detector(load_config(published / "BoxSup_OVCOCO_CLIP_R50_1x_pomp.yaml", SLIM))
    assert model.roi_heads.box_predictor.cls_score.source == "datasets/metadata/coco_clip_pomp+cname.npy"


@pytest.mark.parametrize("name", ["BoxSup_OVCOCO_CLIP_R50_1x_pomp", "Detic_OVCOCO_CLIP_R50_1x_max-size_caption_pomp"])
def test_c4_detector_trains_and_detects(
    shared: Path, published: Path, name: str, photo: torch.Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import json

    counts = tmp_path / "counts.json"
    counts.write_text(json.dumps([{"id": row, "image_count": row % 3} for row in range(80)]))
    small = {"MODEL.RPN.POST_NMS_TOPK_TRAIN": 20, "MODEL.RPN.POST_NMS_TOPK_TEST": 20}
    overrides = SLIM | overrides_for(shared, name) | small | {"MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(counts)}
    model = build_detector(load_config(published / f"{name}.yaml", overrides)).train()
    instances = Instances((96, 128))
    instances.gt_boxes, instances.gt_classes = Boxes(torch.tensor([[10.0, 10, 90, 80]])), torch.tensor([4])
    batch = [{"image": photo, "instances": instances, "ann_type": "box", "pos_category_ids": []}]
    with EventStorage(0):
        losses = model(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert model.roi_heads.box_predictor.cls_score.linear.weight.grad.abs().sum() > 0
    if "caption" in name:
        rows = torch.randn(2, 512, generator=torch.Generator().manual_seed(0))
        monkeypatch.setattr(model, "caption_encoder", lambda captions, device, absent: (rows, 1))
        batch[0].update(ann_type="captiontag", pos_category_ids=[3, 7], captions=["a cat on a mat"])
        with EventStorage(0):
            weak = model(batch)
        assert set(weak) == set(losses)
        assert weak["caption_loss"] > 0
        assert weak["image_loss"] > 0
        assert weak["loss_rpn_cls"] == 0
    with torch.no_grad():
        instances = model.eval()([{"image": photo}])[0]["instances"]
    assert len(instances) <= 100
    assert instances.pred_boxes.tensor.shape[1] == 4
