"""Every published detection file builds a model, with the names of its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from pomp_det import build_detector, load_config
from prompt_core import TextClassifier, UserError

from ..support.backbone_names import Shapes, convnext, resnet, swin

REFUSED = ["Base-DeformDETR_L_R50_4x", "BoxSup-DeformDETR_L_R50_2x", "BoxSup-DeformDETR_L_R50_4x",
           "Detic_DeformDETR_LI_R50_4x_ft4x"]  # fmt: skip
FILES = [
    "Base-C2_L_R5021k_640b64_4x",
    "Base_OVCOCO_C4_1x",
    "BoxSup-C2_LCOCO_CLIP_CXT21k_640b32_4x",
    "BoxSup-C2_LCOCO_CLIP_R18_640b32_4x",
    "BoxSup-C2_LCOCO_CLIP_R5021k_640b64_4x",
    "BoxSup-C2_LCOCO_CLIP_SwinB_896b32_4x",
    "BoxSup-C2_L_CLIP_R5021k_640b64_4x",
    "BoxSup-C2_L_CLIP_R5021k_640b64_4x_pomp",
    "BoxSup-C2_L_CLIP_SwinB_896b32_4x",
    "BoxSup-C2_Lbase_CLIP_R5021k_640b64_4x",
    "BoxSup-C2_Lbase_CLIP_R5021k_640b64_4x_pomp",
    "BoxSup-C2_Lbase_CLIP_SwinB_896b32_4x",
    "BoxSup_OVCOCO_CLIP_R50_1x",
    "BoxSup_OVCOCO_CLIP_R50_1x_pomp",
    "Detic_LCOCOI21k_CLIP_CXT21k_640b32_4x_ft4x_max-size",
    "Detic_LCOCOI21k_CLIP_R18_640b32_4x_ft4x_max-size",
    "Detic_LCOCOI21k_CLIP_R5021k_640b32_4x_ft4x_max-size",
    "Detic_LCOCOI21k_CLIP_SwinB_896b32_4x_ft4x_max-size",
    "Detic_LI21k_CLIP_SwinB_896b32_4x_ft4x_max-size",
    "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size",
    "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp",
    "Detic_LI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp_cross_datasets",
    "Detic_LI_CLIP_SwinB_896b32_4x_ft4x_max-size",
    "Detic_LbaseCCcapimg_CLIP_R5021k_640b64_4x_ft4x_max-size",
    "Detic_LbaseCCimg_CLIP_R5021k_640b64_4x_ft4x_max-size",
    "Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_max-size",
    "Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_max-size_pomp",
    "Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_predicted",
    "Detic_LbaseI_CLIP_SwinB_896b32_4x_ft4x_max-size",
    "Detic_OVCOCO_CLIP_R50_1x_caption",
    "Detic_OVCOCO_CLIP_R50_1x_max-size",
    "Detic_OVCOCO_CLIP_R50_1x_max-size_caption",
    "Detic_OVCOCO_CLIP_R50_1x_max-size_caption_pomp",
    "debug",
]
CPU = {"MODEL.DEVICE": "cpu"}
# A narrow version, for tests that run the model.
SLIM = CPU | {"MODEL.RESNETS.WIDTH_PER_GROUP": 8, "MODEL.RESNETS.RES2_OUT_CHANNELS": 32}


@pytest.fixture(scope="session")
def every_file(shared: Path) -> Path:
    """Folder of all detection files of Detic and POMP."""
    return shared / "data/published_configs/detic_all"


@pytest.fixture
def _no_initial_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the weights of full-size models takes most of the time, and building tests do not look at them."""
    drawn = ((torch.Tensor, "uniform_"), (torch.Tensor, "normal_"), (torch.nn.init, "trunc_normal_"))
    for place, name in (*drawn, (torch.Tensor, "erfinv_")):  # the last one is what timm makes a normal one of
        monkeypatch.setattr(place, name, lambda tensor, *arguments, **options: tensor)


@pytest.fixture
def _nothing_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder without data, as after the installation, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POMP_DATA", raising=False)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("building must not reach for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


def overrides_for(shared: Path, name: str) -> dict[str, Any]:
    text, at_hand = shared / "data/clip_text", load_config(shared / f"data/published_configs/detic/{name}.yaml")
    matrix = text / Path(at_hand.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH).name
    return {
        "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": str(matrix) if matrix.is_file() else "rand",
        "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(text / Path(at_hand.MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH).name),
    }


def test_the_list_is_complete(every_file: Path, published: Path) -> None:
    assert sorted(path.stem for path in every_file.glob("*.yaml")) == sorted(FILES + REFUSED)
    for path in published.glob("*.yaml"):
        assert path.read_text() == (every_file / path.name).read_text()


@pytest.mark.usefixtures("_no_initial_values", "_nothing_at_hand")
@pytest.mark.parametrize("name", FILES)
def test_builds_with_classes_that_are_given(every_file: Path, name: str) -> None:
    """Neither the class matrix that the file names, nor any other file or the network is needed."""
    cfg = load_config(every_file / f"{name}.yaml", CPU)
    coco, classes = "OVCOCO" in name, 22047 if "I21k" in name or "LI21k" in name else 1203
    zero_shot = not name.startswith("Base-C2")  # a base without zero-shot classifier
    given = TextClassifier(torch.eye(3, 512), ["cat", "remote", "sky"], {}) if zero_shot else None
    model = build_detector(cfg, given)
    heads = model.roi_heads
    assert type(model).__name__ == "CustomRCNN"
    assert (80 if coco else classes) == cfg.MODEL.ROI_HEADS.NUM_CLASSES
    assert heads.num_classes == (3 if zero_shot else 1203)
    predictors = [heads.box_predictor] if coco else list(heads.box_predictor)
    assert len(predictors) == (1 if coco else 3)
    for predictor in predictors:
        assert predictor.num_classes == heads.num_classes
        if zero_shot:
            assert torch.equal(predictor.cls_score.zs_weight, torch.eye(512, 4) * torch.tensor([1, 1, 1, 0]))
    assert hasattr(heads, "mask_head") != coco
    assert (model.caption_encoder is not None) == ("cap" in name)


@pytest.mark.parametrize("name", REFUSED)
def test_deformable_detr_is_refused_with_a_reason(every_file: Path, name: str) -> None:
    cfg = load_config(every_file / f"{name}.yaml", CPU)
    assert cfg.MODEL.DETR.NUM_OBJECT_QUERIES == 300
    with pytest.raises(UserError, match=r"Deformable DETR is not built here, because .*; use a CustomRCNN") as error:
        build_detector(cfg)
    assert "\n" not in str(error.value)


def test_parts_that_are_not_built_are_refused_when_they_are_set(published: Path) -> None:
    """A run's ``config.yaml`` of Detic or CenterNet2 holds their keys, mostly with the defaults."""
    cfg = load_config(published / "BoxSup-C2_L_CLIP_R5021k_640b64_4x_pomp.yaml", {"SOLVER.TRAIN_ITER": 5})
    with pytest.raises(UserError, match=r"SOLVER.TRAIN_ITER is 5, which is not built: .*; leave it at -1"):
        build_detector(cfg)
    with pytest.raises(UserError, match=r"MODEL.BIFPN.NUM_BIFPN is 3, which is not built: the feature pyramids are"):
        build_detector(load_config(None, {"MODEL.BIFPN.NUM_BIFPN": 3}))


def in_bottom_up(prefix: str, shapes: Shapes) -> Shapes:
    return {f"backbone.bottom_up.{prefix}{key}": shape for key, shape in shapes.items()}


def swin_b() -> Shapes:
    """Without the classifier, and with a norm for each feature in the place of the one at the end."""
    shapes = swin((2, 2, 18, 2), 128, (4, 8, 16, 32), classes=1)
    kept = {key: shape for key, shape in shapes.items() if not key.startswith(("norm.", "head."))}
    norms = {f"norm{stage}.{leaf}": (128 * 2**stage,) for stage in (1, 2, 3) for leaf in ("weight", "bias")}
    return {key: shape for key, shape in kept.items() if not key.endswith("attn_mask")} | norms


def convnext_tiny() -> Shapes:
    """timm's names for what the authors call otherwise."""
    renamed = {}
    for key, shape in convnext((3, 3, 9, 3), (96, 192, 384, 768), classes=1).items():
        place, _, rest = key.partition(".")
        stage, _, rest = rest.partition(".")
        rest = rest.replace("dwconv", "conv_dw").replace("pwconv", "mlp.fc")
        if place == "downsample_layers":
            renamed[f"stem_{rest}" if stage == "0" else f"stages_{stage}.downsample.{rest}"] = shape
        elif place == "stages":
            renamed[f"stages_{stage}.blocks.{rest}"] = shape
    return renamed


BACKBONES = {
    "BoxSup-C2_L_CLIP_R5021k_640b64_4x": in_bottom_up("base.", resnet((3, 4, 6, 3), bottleneck=True)),
    "BoxSup-C2_LCOCO_CLIP_R18_640b32_4x": in_bottom_up("base.", resnet((2, 2, 2, 2), bottleneck=False)),
    "BoxSup-C2_LCOCO_CLIP_CXT21k_640b32_4x": in_bottom_up("base.", convnext_tiny()),
    "BoxSup-C2_L_CLIP_SwinB_896b32_4x": in_bottom_up("", swin_b()),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_each_backbone_has_the_published_names_and_detects(
    shared: Path, every_file: Path, name: str, photo: torch.Tensor
) -> None:
    """Names and shapes are those of the checkpoints: the backbone's as its authors have them, the rest golden."""
    few = {"TEST.DETECTIONS_PER_IMAGE": 3, "MODEL.CENTERNET.POST_NMS_TOPK_TEST": 5, "INPUT.FORMAT": "RGB"}
    matrix = {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": "rand", "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": "absent.json"}
    model = build_detector(load_config(every_file / f"{name}.yaml", CPU | few | matrix)).eval()
    golden = json.loads((shared / "golden/detector_full_size/state_dict_keys.json").read_text())
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert {key: shape for key, shape in ours.items() if key.startswith("backbone.bottom_up.")} == BACKBONES[name]
    # The lateral convolutions are as wide as the backbone's features.
    rest = {key: tuple(shape) for key, shape in golden.items() if "bottom_up" not in key}
    assert ours.keys() - BACKBONES[name].keys() == rest.keys()
    assert all(ours[key] == shape for key, shape in rest.items() if "lateral" not in key)
    with torch.no_grad():
        detections = model([{"image": photo}])[0]["instances"]
    assert len(detections) >= 3
    assert detections.pred_masks.shape == (len(detections), 96, 128)
    assert bool(torch.isfinite(detections.pred_boxes.tensor).all())


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
