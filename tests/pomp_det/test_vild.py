"""ViLD on this detector: learned background, softmax without held-out classes, distillation of image embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2")

from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from PIL import Image

from pomp_det import DetectorCheckpointer, build_detector, load_config, load_weights, set_classifier
from pomp_det.clip_towers import RegionEmbedder, clip_width
from pomp_det.heads.class_losses import without_held_out
from pomp_det.heads.distillation import SMALLEST_SIDE, best_regions, distillation_loss
from pomp_engine.config import flatten
from prompt_core import UserError

from ..support.detector import TINY

CONFIGS = Path(__file__).resolve().parents[2] / "configs/detection"
HEAD = "MODEL.ROI_BOX_HEAD."
SOFTMAX = {f"{HEAD}USE_SIGMOID_CE": False, f"{HEAD}LEARNED_BACKGROUND": True, f"{HEAD}NORM_TEMP": 20.0}
BOX = torch.tensor([[10.0, 10, 90, 80], [40.0, 20, 70, 60]])


@pytest.fixture
def distilled(tiny_clip: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Settings of a distilled detector, whose image tower is the tiny one."""
    monkeypatch.setattr("prompt_core.clip.load_clip", lambda *arguments: tiny_clip)
    file = tmp_path / "tower.json"
    file.write_text(json.dumps({"embed_dim": 24, "vision_cfg": {}, "text_cfg": {}}))
    return {
        f"{HEAD}DISTILLATION_WEIGHT": 0.5,
        f"{HEAD}DISTILLATION_PROPOSALS": 6,
        "MODEL.DISTILLATION_CLIP.NAME": str(file),
        "INPUT.FORMAT": "RGB",
    }


@pytest.fixture
def picture() -> torch.Tensor:
    """A smooth RGB picture (3, 96, 128) of whole numbers 0..255, no part of which looks like another."""
    coarse = 255 * torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(3))
    return F.interpolate(coarse, size=(96, 128), mode="bilinear")[0].round()


def record(image: torch.Tensor, classes: tuple[int, ...] = (3, 4), **extra: Any) -> dict[str, Any]:
    instances = Instances((96, 128))
    instances.gt_boxes, instances.gt_classes = Boxes(BOX[: len(classes)]), torch.tensor(classes, dtype=torch.long)
    return {"image": image, "instances": instances, **extra}


def counts_file(folder: Path, frequencies: str) -> str:
    path = folder / "counts.json"
    path.write_text(
        json.dumps([{"id": row, "image_count": 5, "frequency": letter} for row, letter in enumerate(frequencies)])
    )
    return str(path)


def train(model: Any, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    with EventStorage(0):
        losses: dict[str, torch.Tensor] = model.train()(batch)
    return losses


# --- image embeddings of regions


def test_targets_are_clips_of_the_crop_and_of_a_larger_one(
    tiny_clip: Any, monkeypatch: pytest.MonkeyPatch, picture: torch.Tensor
) -> None:
    monkeypatch.setattr("prompt_core.clip.load_clip", lambda *arguments: tiny_clip)
    # Inside, at the corner of the picture, and so large that the larger box is cut on all sides.
    boxes = torch.tensor([[20.2, 30.9, 59.3, 69.2], [100.0, 60.0, 128.0, 96.0], [10.0, 5.0, 120.0, 90.0]])
    by_hand = [(20, 30, 60, 70), (100, 60, 128, 96), (10, 5, 120, 90)]
    larger = [(10, 21, 70, 79), (93, 51, 128, 96), (0, 0, 128, 96)]
    photo = Image.fromarray(picture.permute(1, 2, 0).numpy().astype(np.uint8))
    expected = []
    for pair in zip(by_hand, larger, strict=True):
        total = torch.zeros(24)
        for corners in pair:
            pixels = np.asarray(photo.crop(corners).resize((32, 32), Image.Resampling.BICUBIC))
            normalised = (torch.from_numpy(pixels / 255).permute(2, 0, 1).float() - 0.5) / 0.5
            total += F.normalize(tiny_clip.model.encode_image(normalised[None])[0], dim=0)
        expected.append(F.normalize(total, dim=0))
    embeddings = RegionEmbedder("openai", None, 24)([picture, picture], [boxes[:1], boxes[1:]])
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(embeddings, torch.stack(expected), atol=3e-3, rtol=0)
    assert (embeddings @ embeddings.T)[~torch.eye(3, dtype=torch.bool)].max() < 0.999


def test_regions_are_the_best_proposals_that_are_not_tiny() -> None:
    proposals = Instances((40, 60))
    rows = [
        [50.0, 5, 90, 30],
        [1.0, 1, 9, 8],
        [3.0, 3, 12, 12],
        [-20.0, -20, 5, 39],
        [float("nan")] * 4,
        [0.0, 0, 60, 40],
    ]
    proposals.proposal_boxes = Boxes(torch.tensor(rows))
    proposals.objectness_logits = torch.linspace(0.9, 0.4, len(rows))
    (chosen,) = best_regions([proposals], 10)
    assert SMALLEST_SIDE == 8
    assert chosen.proposal_boxes.tensor.tolist() == [[50, 5, 60, 30], [3, 3, 12, 12], [0, 0, 60, 40]]
    (chosen,) = best_regions([proposals], 2)
    assert chosen.proposal_boxes.tensor.tolist() == [[50, 5, 60, 30], [3, 3, 12, 12]]


# --- the distillation loss in the detector


def test_loss_by_hand() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8]], requires_grad=True)
    loss = distillation_loss(embeddings, torch.tensor([[0.0, 1.0], [0.6, 0.8]]))
    assert loss.item() == pytest.approx(1.0)  # (1 + 1) and 0, over two regions


def test_every_stage_learns_and_clip_does_not(
    make_tiny: Callable[..., Any], distilled: dict[str, Any], tiny_clip: Any, picture: torch.Tensor
) -> None:
    model = make_tiny(distilled | {"MODEL.MASK_ON": False})
    embedder, seen = model.region_embedder, []

    def watched(images: Any, boxes: Any) -> torch.Tensor:
        seen.append((boxes, embedder(images, boxes)))
        return seen[-1][1]

    model.region_embedder = watched
    losses = train(model, [record(picture), record(picture.flip(2))])
    ((boxes, targets),) = seen
    assert [len(image_boxes) for image_boxes in boxes] == [6, 6]
    assert not targets.requires_grad
    regions = [Instances((96, 128), proposal_boxes=Boxes(image_boxes)) for image_boxes in boxes]
    features = model.features(model.preprocess_image([record(picture), record(picture.flip(2))]).tensor)
    for stage, (ending, embeddings) in enumerate(model.roi_heads.region_embeddings(features, regions).items()):
        assert ending == f"_stage{stage}"
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(12))
        expected = 0.5 * (embeddings - targets).abs().sum() / 12
        torch.testing.assert_close(losses[f"loss_distillation{ending}"], expected, rtol=1e-3, atol=0)
    sum(loss for name, loss in losses.items() if "distillation" in name).backward()
    for stage in range(3):
        predictor = model.roi_heads.box_predictor[stage]
        assert predictor.cls_score.linear.weight.grad.abs().sum() > 0
        assert model.roi_heads.box_head[stage].fc1.weight.grad.abs().sum() > 0
        assert predictor.bbox_pred[2].weight.grad is None
    assert model.backbone.bottom_up.stem.conv1.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tiny_clip.model.parameters())
    assert set(model.state_dict()) == set(make_tiny({"MODEL.MASK_ON": False}).state_dict())


def test_distillation_brings_region_embeddings_to_clips(distilled: dict[str, Any], picture: torch.Tensor) -> None:
    torch.manual_seed(0)
    changed = TINY | distilled | SOFTMAX | {"MODEL.DEVICE": "cpu", "MODEL.MASK_ON": False}
    model = build_detector(load_config(None, changed))
    optimizer = torch.optim.Adam(model.roi_heads.parameters(), lr=3e-3)  # the proposals stay as they are
    history = []
    for _ in range(25):
        losses = train(model, [record(picture)])
        history.append({name: loss.item() for name, loss in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    for stage in range(3):
        for name, part in (("loss_distillation", 0.75), ("loss_cls", 0.5)):
            assert history[-1][f"{name}_stage{stage}"] < part * history[0][f"{name}_stage{stage}"]


def test_same_losses_for_every_kind_of_batch(
    make_tiny: Callable[..., Any], distilled: dict[str, Any], picture: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = {"WITH_IMAGE_LABELS": True, f"{HEAD}IMAGE_LABEL_LOSS": "max_size"}
    model = make_tiny(distilled | weak)
    boxes = train(model, [record(picture, ann_type="box", pos_category_ids=[])])
    monkeypatch.setattr("pomp_det.model.best_regions", lambda proposals, limit: best_regions(proposals, 0))
    none = train(model, [record(picture, ann_type="box", pos_category_ids=[])])
    model.region_embedder = lambda images, boxes: pytest.fail("nothing to embed")
    labels = train(model, [record(picture, (), ann_type="image", pos_category_ids=[2])])
    assert set(boxes) == set(none) == set(labels)
    for stage in range(3):
        name = f"loss_distillation_stage{stage}"
        assert boxes[name] > 0
        for losses in (none, labels):
            assert losses[name] == 0
            model.zero_grad()
            losses[name].backward(retain_graph=True)
            assert not model.roi_heads.box_predictor[stage].cls_score.linear.weight.grad.any()


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_clip_sees_rgb(
    make_tiny: Callable[..., Any], distilled: dict[str, Any], picture: torch.Tensor, order: str
) -> None:
    model = make_tiny(distilled | {"INPUT.FORMAT": order, "MODEL.MASK_ON": False})
    given: list[Any] = []
    model.region_embedder = lambda images, boxes: given.extend(images) or torch.zeros(sum(map(len, boxes)), 24)
    train(model, [record(picture if order == "RGB" else picture.flip(0))])
    assert torch.equal(given[0], picture)


def test_single_stage_detector(distilled: dict[str, Any], picture: torch.Tensor) -> None:
    changed = distilled | {
        "MODEL.DEVICE": "cpu",
        "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
        f"{HEAD}ZEROSHOT_WEIGHT_PATH": "rand",
        f"{HEAD}ZEROSHOT_WEIGHT_DIM": 24,
        f"{HEAD}IGNORE_ZERO_CATS": False,
    }
    model = build_detector(load_config(CONFIGS / "base_coco.yaml", changed))
    losses = train(model, [record(picture)])
    assert losses["loss_distillation"] > 0
    losses["loss_distillation"].backward()
    assert model.roi_heads.box_predictor.cls_score.linear.weight.grad.abs().sum() > 0


# --- softmax with a learned background


def test_background_is_a_unit_class_of_its_own(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    model = make_tiny(SOFTMAX, seed=1)
    classifier = model.roi_heads.box_predictor[1].cls_score
    with torch.no_grad():
        classifier.background.mul_(7)  # what training does to its norm does not matter
    features = torch.randn(5, 16)
    expected = 20 * F.cosine_similarity(classifier.linear(features), classifier.background[None])
    before = classifier.background.clone()
    for count in (30, 7, 400):
        set_classifier(model, torch.randn(count, 24))
        logits = classifier(features)
        assert logits.shape == (5, count + 1)
        torch.testing.assert_close(logits[:, -1], expected)
        assert torch.equal(classifier.background, before)
    set_classifier(model, torch.randn(30, 24))
    DetectorCheckpointer(model, str(tmp_path)).save("model")
    other = make_tiny(SOFTMAX, seed=2)
    assert not torch.equal(other.roi_heads.box_predictor[1].cls_score.background, before)
    load_weights(other, tmp_path / "model.pth")
    assert torch.equal(other.roi_heads.box_predictor[1].cls_score.background, before)
    torch.testing.assert_close(other.roi_heads.box_predictor[1].cls_score(features), classifier(features))


def test_only_the_learned_background_is_new_in_the_state(make_tiny: Callable[..., Any]) -> None:
    plain, softmax = set(make_tiny().state_dict()), set(make_tiny(SOFTMAX).state_dict())
    assert softmax - plain == {f"roi_heads.box_predictor.{stage}.cls_score.background" for stage in range(3)}
    assert plain <= softmax
    assert not any("clip" in name or "held_out" in name for name in softmax)


def test_background_learns_what_is_no_class(make_tiny: Callable[..., Any], picture: torch.Tensor) -> None:
    model = make_tiny(SOFTMAX | {"MODEL.MASK_ON": False})
    losses = train(model, [record(picture)])
    assert not any("distillation" in name for name in losses)
    sum(losses.values()).backward()
    for predictor in model.roi_heads.box_predictor:
        assert predictor.cls_score.background.grad.abs().sum() > 0


@torch.no_grad()
def test_detections_are_scored_by_a_softmax(make_tiny: Callable[..., Any], picture: torch.Tensor) -> None:
    model = make_tiny(SOFTMAX | {"TEST.DETECTIONS_PER_IMAGE": 2000}).eval()
    assert not any(predictor.scores_fast for predictor in model.roi_heads.box_predictor)
    instances = model([{"image": picture}])[0]["instances"]
    images = model.preprocess_image([{"image": picture}])
    features = model.features(images.tensor)
    proposals, _ = model.proposal_generator(images, features, None)
    logits, _ = model.roi_heads.region_scores(features, proposals)
    mean = sum(part.softmax(dim=1) for part in logits) / 3
    expected = (mean[:, :-1] * proposals[0].objectness_logits[:, None]).sqrt()
    torch.testing.assert_close(instances.scores[0], expected.max())
    assert (instances.scores[:, None] - expected.flatten()).abs().min(dim=1).values.max() < 1e-6


# --- held-out classes


def test_held_out_classes_are_no_negatives_of_the_softmax(
    make_tiny: Callable[..., Any], tmp_path: Path, picture: torch.Tensor
) -> None:
    rare = torch.arange(2, 30, 3)
    changed = {f"{HEAD}CAT_FREQ_PATH": counts_file(tmp_path, "fcr" * 10), f"{HEAD}HELD_OUT_FREQUENCIES": "r"}
    model = make_tiny(SOFTMAX | changed | {"MODEL.MASK_ON": False})
    logits = torch.randn(4, 31, requires_grad=True)
    gt_classes = torch.tensor([0, 30, 1, 5])  # the last one is rare, and annotated nevertheless
    proposals = Instances((96, 128), proposal_boxes=Boxes(torch.tensor([[1.0, 1, 20, 20]] * 4)))
    proposals.gt_boxes, proposals.gt_classes = proposals.proposal_boxes, gt_classes
    with EventStorage(0):
        loss = model.roi_heads.box_predictor[0].losses((logits, torch.zeros(4, 4)), [proposals])["loss_cls"]
    classes = torch.tensor([row_id for row_id in range(31) if row_id % 3 != 2 or row_id == 30])
    by_hand = [F.cross_entropy(logits[row][classes], (classes == gt_classes[row]).nonzero()[0, 0]) for row in range(3)]
    all_classes = torch.cat((classes, torch.tensor([5])))
    by_hand.append(F.cross_entropy(logits[3][all_classes], torch.tensor(len(all_classes) - 1)))
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())
    loss.backward()
    assert not logits.grad[:3, rare].any()
    assert not logits.grad[3, rare[rare != 5]].any()
    assert logits.grad[:, classes].all()
    assert logits.grad[3, 5] < 0

    losses = train(model, [record(picture, (0, 1))])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    with torch.no_grad():
        scores, _ = model.eval().roi_heads.box_predictor[0](torch.randn(3, 16))
    assert torch.isfinite(scores).all()  # at test every class can be found


def test_held_out_logits_of_nothing() -> None:
    logits = torch.randn(0, 4, requires_grad=True)
    masked = without_held_out(logits, torch.zeros(0, dtype=torch.long), torch.tensor([False, True, False]))
    assert masked.shape == (0, 4)


def test_sigmoid_loss_leaves_held_out_classes_out_too(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    changed = {f"{HEAD}CAT_FREQ_PATH": counts_file(tmp_path, "fcr" * 10), f"{HEAD}HELD_OUT_FREQUENCIES": "cr"}
    model = make_tiny(changed)
    predictor = model.roi_heads.box_predictor[0]
    classes = predictor.class_choice.classes(torch.tensor([0, 30]), 30, predictor.class_counts)
    assert classes.tolist() == list(range(0, 30, 3))
    assert set(model.state_dict()) == set(make_tiny().state_dict())


def test_held_out_classes_that_cannot_be_told(
    make_tiny: Callable[..., Any], tmp_path: Path, picture: torch.Tensor
) -> None:
    held_out = SOFTMAX | {"MODEL.MASK_ON": False, f"{HEAD}HELD_OUT_FREQUENCIES": "r"}
    model = make_tiny(held_out | {f"{HEAD}CAT_FREQ_PATH": str(tmp_path / "absent.json")})
    with torch.no_grad():
        model.eval()([{"image": picture}])
    with pytest.raises(UserError, match=r"held-out classes need the frequency of each class: .*absent.json"):
        train(model, [record(picture)])
    common = {f"{HEAD}CAT_FREQ_PATH": counts_file(tmp_path, "fc" * 15)}
    for loss in ({}, {f"{HEAD}USE_SIGMOID_CE": True, f"{HEAD}LEARNED_BACKGROUND": False}):
        with pytest.raises(UserError, match=r"no class in .*counts.json has a frequency of .*'r'"):
            train(make_tiny(held_out | common | loss), [record(picture)])
    model = make_tiny(held_out | {f"{HEAD}CAT_FREQ_PATH": counts_file(tmp_path, "fcr" * 10)})
    set_classifier(model, torch.randn(12, 24))
    with pytest.raises(UserError, match="known among 30 classes, the detector has 12 now"):
        train(model, [record(picture)])
    set_classifier(model, torch.randn(30, 24))
    train(model, [record(picture)])


# --- what does not go together


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({f"{HEAD}ZEROSHOT_WEIGHT_DIM": 25}, "embeddings of width 24, the classes have width 25"),
        ({"MODEL.DISTILLATION_CLIP.NAME": "ViT-B-23"}, "unknown architecture 'ViT-B-23'; nearest: 'ViT-B-32'"),
        ({"MODEL.DISTILLATION_CLIP.NAME": "ViT-B-32-quickgelu"}, "embeddings of width 512"),
        ({f"{HEAD}DISTILLATION_WEIGHT": -1.0}, "DISTILLATION_WEIGHT is -1.0; expected 0 or more"),
        ({f"{HEAD}DISTILLATION_PROPOSALS": 0}, "DISTILLATION_PROPOSALS is 0; expected 1 or more"),
        ({f"{HEAD}USE_ZEROSHOT_CLS": False}, "needs the projection of USE_ZEROSHOT_CLS True"),
        ({"INPUT.FORMAT": "L"}, "RGB or BGR photos"),
        ({f"{HEAD}LEARNED_BACKGROUND": True}, "LEARNED_BACKGROUND is a class of the zero-shot classifier's softmax"),
        ({f"{HEAD}USE_SIGMOID_CE": False, f"{HEAD}USE_FED_LOSS": True}, "choose classes of the sigmoid loss"),
    ],
)
def test_options_that_do_not_go_together(
    make_tiny: Callable[..., Any], distilled: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_tiny(distilled | changed)


def test_widths_known_by_name(tiny_clip: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert clip_width("mini") == 116
    assert clip_width("RN50-quickgelu") == 1024
    (tmp_path / "wrong.json").write_text("[]")
    with pytest.raises(UserError, match="embed_dim is expected"):
        clip_width(str(tmp_path / "wrong.json"))
    # OpenAI's files say it when they are loaded.
    monkeypatch.setattr("prompt_core.clip.load_clip", lambda *arguments: tiny_clip)
    embedder = RegionEmbedder("openai", "ViT-B-32.pt", 512)
    with pytest.raises(UserError, match="embeddings of width 24, the classes have width 512"):
        embedder([torch.zeros(3, 40, 40)], [torch.tensor([[0.0, 0, 9, 9]])])


# --- configurations


@pytest.fixture
def _no_initial_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the weights of full-size models takes most of the time, and building tests do not look at them."""
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, *arguments, **options: self)
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, *arguments, **options: self)


@pytest.mark.usefixtures("_no_initial_values")
@pytest.mark.parametrize("name", ["lvis_base_boxes_vild", "lvis_base_boxes_vitb16", "lvis_base_images_vitb16"])
def test_configurations_build(name: str) -> None:
    cfg = load_config(CONFIGS / f"{name}.yaml", {"MODEL.DEVICE": "cpu", f"{HEAD}ZEROSHOT_WEIGHT_PATH": "rand"})
    model = build_detector(cfg)
    vild = name.endswith("vild")
    for predictor in model.roi_heads.box_predictor:
        assert predictor.cls_score.zs_weight.shape == (512, 1204)
        assert predictor.cls_score.temperature == (100 if vild else 50)
        assert predictor.use_sigmoid_ce != vild
        assert (predictor.cls_score.background is not None) == vild
    assert model.roi_heads.distillation_weight == (0.5 if vild else 0)
    assert (model.region_embedder is not None) == vild


def test_vild_holds_the_rare_classes_out(shared: Path) -> None:
    file = shared / "data/clip_text/lvis_v1_train_cat_info.json"
    slim = {"MODEL.BACKBONE.NAME": "build_p67_resnet_fpn_backbone", "MODEL.RESNETS.DEPTH": 18}
    slim |= {"MODEL.RESNETS.RES2_OUT_CHANNELS": 64, "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"]}
    slim |= {"MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"], f"{HEAD}FC_DIM": 16, "MODEL.DEVICE": "cpu"}
    slim |= {f"{HEAD}ZEROSHOT_WEIGHT_PATH": "rand", f"{HEAD}CAT_FREQ_PATH": str(file)}
    model = build_detector(load_config(CONFIGS / "lvis_base_boxes_vild.yaml", slim))
    assert [int(predictor.held_out.sum()) for predictor in model.roi_heads.box_predictor] == [337] * 3


@pytest.mark.parametrize("stage", ["boxes", "images"])
def test_the_control_differs_from_pomps_run_by_the_prompt_alone(stage: str) -> None:
    def meaning(ending: str) -> dict[str, Any]:
        settings = dict(flatten(load_config(CONFIGS / f"lvis_base_{stage}_{ending}.yaml")))
        return {key: value for key, value in settings.items() if key not in ("OUTPUT_DIR", "MODEL.WEIGHTS")}

    control, pomp = meaning("vitb16"), meaning("pomp")
    assert {key for key in pomp if pomp[key] != control[key]} == {f"{HEAD}ZEROSHOT_WEIGHT_PATH"}
    assert control[f"{HEAD}ZEROSHOT_WEIGHT_PATH"] == "datasets/metadata/lvis_v1_clip_vitb16_a+cname.npy"
