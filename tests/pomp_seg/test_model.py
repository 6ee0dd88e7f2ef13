"""Segmenters as a whole: files, classes, empty images, and what learns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("detectron2")

from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from safetensors.torch import save_file

from pomp_seg import SegmenterCheckpointer, load_weights, set_classes
from prompt_core.errors import UserError
from prompt_core.prompt import SoftPrompt

Build = Callable[..., Any]
NAMES = ["cat", "sky", "traffic light"]
PER_PIXEL = {"MODEL.META_ARCHITECTURE": "ZeroShotPerPixelModel", "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 116,
             "MODEL.SEM_SEG_HEAD.NAME": "ZeroPerPixelBaselineHead"}  # fmt: skip


def example(seed: int = 0, height: int = 40, width: int = 60) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"image": torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)}


def with_regions(item: dict[str, Any], classes: list[int]) -> dict[str, Any]:
    height, width = item["image"].shape[-2:]
    instances = Instances((height, width))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    masks = torch.zeros(len(classes), height, width, dtype=torch.bool)
    for row in range(len(classes)):
        masks[row, row * 9 : row * 9 + 9] = True
    instances.gt_masks = masks
    labels = torch.full((height, width), 255)
    for number, mask in zip(classes, masks, strict=True):
        labels[mask] = number
    return item | {"instances": instances, "sem_seg": labels}


def predict(model: Any, item: dict[str, Any] | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()([item or example()])[0]["sem_seg"]


@pytest.mark.parametrize("layout", ["own checkpoint", "plain dictionary", "first releases", "prefix twice", "module"])
def test_saved_weights_give_the_same_output(tiny: Build, tmp_path: Path, layout: str) -> None:
    """The published code leaves the pixel decoder random when a file carries no version (zsseg.baseline, thread 13)."""
    model, other = tiny(seed=1), tiny(seed=2)
    for segmenter in (model, other):
        set_classes(segmenter, NAMES)
    expected = predict(model)
    assert float((predict(other) - expected).abs().max()) > 1e-4
    head = "sem_seg_head.pixel_decoder."
    state = model.state_dict()
    if layout == "own checkpoint":
        SegmenterCheckpointer(model, str(tmp_path)).save("model")
        file = tmp_path / "model.pth"
    else:
        rename = {
            "plain dictionary": lambda key: key,
            "first releases": lambda key: key.replace(head, "sem_seg_head."),
            "prefix twice": lambda key: key.replace(head, f"{head}pixel_decoder."),
            "module": lambda key: f"module.{key}",
        }[layout]
        file = tmp_path / "model.safetensors"
        save_file({rename(key): value.contiguous() for key, value in state.items()}, file)
    load_weights(other, file)
    assert torch.equal(predict(other), expected)
    if layout != "module":
        third = tiny(seed=3)
        set_classes(third, NAMES)
        from safetensors.torch import load_file

        loaded = torch.load(file, weights_only=True)["model"] if file.suffix == ".pth" else load_file(file)
        third.load_state_dict(loaded)
        assert torch.equal(predict(third), expected)


def test_checkpoint_without_clip(tiny: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, other = tiny(seed=1), tiny(seed=2)
    state = {key: value.contiguous() for key, value in model.state_dict().items() if ".clip_model." not in key}
    save_file(state, tmp_path / "small.safetensors")
    with caplog.at_level(logging.WARNING):
        load_weights(other, tmp_path / "small.safetensors")
    assert not caplog.records
    for segmenter in (model, other):
        set_classes(segmenter, NAMES)
    assert torch.equal(predict(model), predict(other))


def test_a_checkpoint_with_another_clip_than_the_named_one_says_so(
    tiny: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, named = tiny(seed=1), "MODEL.CLIP_ADAPTER.CLIP_PRETRAINED"
    weights = {key: value.clone().contiguous() for key, value in plain.clip_adapter.clip_model.state_dict().items()}
    weights["visual.head.proj.weight"] += 1
    save_file(weights, tmp_path / "clip.safetensors")
    SegmenterCheckpointer(plain, str(tmp_path)).save("plain")
    other = tiny({named: str(tmp_path / "clip.safetensors")}, seed=1)
    SegmenterCheckpointer(other, str(tmp_path)).save("other")
    said = {}
    for name in ("other", "plain"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_weights(other, tmp_path / f"{name}.pth")
        said[name] = [record.message for record in caplog.records]
    assert said["other"] == []
    assert said["plain"][0].startswith("CLIP: the checkpoint's own is used, which differs from CLIP_PRETRAINED")
    states = [model.clip_adapter.clip_model.state_dict() for model in (other, plain)]
    assert torch.equal(*(state["visual.head.proj.weight"] for state in states))


def test_a_checkpoint_with_a_part_of_clip_is_refused(tiny: Build, tmp_path: Path) -> None:
    """What is missing would stay random."""
    state = {key: value.contiguous() for key, value in tiny().state_dict().items()}
    clip = [key for key in state if ".clip_model." in key]
    save_file({key: value for key, value in state.items() if key not in clip[1:]}, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=f"hold 1 of the {len(clip)} tensors of CLIP mini"):
        load_weights(tiny(), tmp_path / "part.safetensors")


def test_a_frozen_prompt_stays_and_a_learning_one_is_loaded(
    tiny: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        SoftPrompt(torch.full((4, 116), float(number))).save(tmp_path / f"{number}.safetensors")
    learner, checkpoint = "MODEL.CLIP_ADAPTER.PROMPT_LEARNER", "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT"
    first = tiny({learner: "pomp", checkpoint: str(tmp_path / "1.safetensors")})
    SegmenterCheckpointer(first, str(tmp_path)).save("model")
    second = tiny({learner: "pomp", checkpoint: str(tmp_path / "2.safetensors")}, seed=5)
    with caplog.at_level(logging.WARNING):
        load_weights(second, tmp_path / "model.pth")
    assert [record.message for record in caplog.records if "prompt: the one of PROMPT_CHECKPOINT" in record.message]
    assert second.clip_adapter.prompt_learner.ctx[0, 0].item() == 2.0
    free = tiny({learner: "pomp"})
    assert free.clip_adapter.prompt_learner.learns
    load_weights(free, tmp_path / "model.pth")
    assert free.clip_adapter.prompt_learner.ctx[0, 0].item() == 1.0


def test_prompt_tuning_hands_its_prompt_on(tiny: Build, tmp_path: Path) -> None:
    """Stage 1 learns from a prompt file, stage 2 reads what stage 1 saved and freezes it."""
    SoftPrompt(torch.randn(4, 116) * 0.02).save(tmp_path / "prompt.safetensors")
    learner, checkpoint = "MODEL.CLIP_ADAPTER.PROMPT_LEARNER", "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT"
    tuning = tiny(
        {
            "MODEL.META_ARCHITECTURE": "ProposalClipClassifier",
            learner: "pomp",
            checkpoint: str(tmp_path / "prompt.safetensors"),
        }
    )
    set_classes(tuning, NAMES)
    tuning.train()
    assert [name for name, parameter in tuning.named_parameters() if parameter.requires_grad] == [
        "clip_adapter.prompt_learner.ctx"
    ]
    batch = [with_regions(example(number, 48, 56), [number]) for number in range(3)]
    optimizer = torch.optim.SGD([tuning.clip_adapter.prompt_learner.ctx], lr=0.02)
    losses = []
    for _ in range(6):
        loss = tuning(batch)["loss_cls"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    logits = tuning.eval()(batch)
    assert [part["classification"].shape for part in logits] == [(1, 3)] * 3
    SegmenterCheckpointer(tuning, str(tmp_path)).save("model_final")
    segmenter = tiny({learner: "pomp_tuned", checkpoint: str(tmp_path / "model_final.pth")})
    assert torch.equal(segmenter.clip_adapter.prompt_learner.ctx, tuning.clip_adapter.prompt_learner.ctx)
    assert not segmenter.clip_adapter.prompt_learner.learns


def test_classes_change_without_reloading(tiny: Build) -> None:
    model = tiny().eval()
    with pytest.raises(UserError, match=r"set MODEL\.VOCABULARY"):
        model([example()])
    set_classes(model, NAMES)
    three = predict(model)
    assert three.shape == (3, 40, 60)
    set_classes(model, ["dog", *NAMES])
    four = predict(model, example() | {"height": 20, "width": 30})
    assert four.shape == (4, 20, 30)
    set_classes(model, NAMES)
    assert torch.equal(predict(model), three)
    with pytest.raises(UserError, match="2 flags"):
        set_classes(model, NAMES, [True, False])
    with pytest.raises(UserError, match="no class"):
        set_classes(model, [])


def test_classes_come_from_the_vocabulary_or_the_data_set(tiny: Build) -> None:
    MetadataCatalog.pop("tiny_seg", None)
    MetadataCatalog.get("tiny_seg").set(stuff_classes=["cat ", "sky"], trainable_flag=[1, 0])
    by_set = predict(tiny(), example() | {"meta": {"dataset_name": "tiny_seg"}})
    assert by_set.shape[0] == 2
    model = tiny()
    set_classes(model, ["cat", "sky"], [True, False])
    assert torch.equal(predict(model), by_set)
    # The data set's names in MODEL.VOCABULARY are the same classes: what training saw stays known.
    again = tiny({"MODEL.VOCABULARY": "cat,sky"})
    assert torch.equal(predict(again, example() | {"meta": {"dataset_name": "tiny_seg"}}), by_set)
    assert float((predict(again) - by_set).abs().max()) > 1e-5
    assert len(tiny({"MODEL.VOCABULARY": "voc"}).classes.names) == 20
    named = tiny({"MODEL.VOCABULARY": "cat,sky,tree"})
    assert predict(named, example() | {"meta": {"dataset_name": "tiny_seg"}}).shape[0] == 3
    with pytest.raises(UserError, match="no class names"):
        predict(tiny(), example() | {"meta": {"dataset_name": "nowhere"}})


def test_seen_and_unseen_classes_are_weighted_differently(tiny: Build) -> None:
    model = tiny({"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT": 0.9})
    outputs = []
    for seen in (None, [False] * 3, [True] * 3):
        set_classes(model, NAMES, seen)
        outputs.append(predict(model))
    assert torch.equal(outputs[0], outputs[1])
    assert float((outputs[0] - outputs[2]).abs().max()) > 1e-4


@pytest.mark.parametrize("features", ["crops", "one_by_one", "single_pass"])
def test_region_features_by_configuration(tiny: Build, features: str) -> None:
    model = tiny({"MODEL.CLIP_ADAPTER.REGION_FEATURES": features})
    reference = tiny({"MODEL.CLIP_ADAPTER.REGION_FEATURES": "one_by_one"})
    for segmenter in (model, reference):
        set_classes(segmenter, NAMES)
    difference = float((predict(model) - predict(reference)).abs().max())
    assert difference < 1e-5 if features != "single_pass" else difference > 1e-6


@pytest.mark.parametrize("kind", ["ZeroShotMaskFormer", "MaskFormer", "ZeroShotPerPixelModel"])
def test_trains_with_and_without_regions(tiny: Build, kind: str) -> None:
    """A batch whose images have no region at all still gives finite losses and gradients."""
    changed: dict[str, Any] = {"MODEL.META_ARCHITECTURE": kind}
    if kind == "MaskFormer":
        changed["MODEL.SEM_SEG_HEAD.NAME"] = "MaskFormerHead"
    if kind == "ZeroShotPerPixelModel":
        changed |= PER_PIXEL
    model = tiny(changed).train()
    if kind != "MaskFormer":
        set_classes(model, NAMES)
    for regions in ([[0, 2], [1]], [[0], []], [[], []]):
        batch = [with_regions(example(row), classes) for row, classes in enumerate(regions)]
        if kind == "ZeroShotPerPixelModel" and not any(regions):
            continue  # nothing to average over
        losses = model(batch)
        model.zero_grad()
        sum(losses.values()).backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert gradients
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert predict(model).shape == (3, 40, 60)
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if ".clip_model." in name)


@pytest.mark.parametrize("kind", ["ZeroShotMaskFormer", "MaskFormer"])
def test_masks_may_be_resized_before_they_are_weighted_by_classes(tiny: Build, kind: str) -> None:
    closed = {"MODEL.META_ARCHITECTURE": kind, "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead"}
    changed = closed if kind == "MaskFormer" else {}
    late = tiny(changed)
    early = tiny(changed | {"MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": True})
    if kind != "MaskFormer":
        for segmenter in (early, late):
            set_classes(segmenter, NAMES)
    torch.testing.assert_close(predict(early), predict(late))  # nothing is resized
    photo = example() | {"height": 101, "width": 143}
    with torch.no_grad():
        features, padded = early.eval().features([photo])
        proposals = early.sem_seg_head(features)[-1]
        logits = early.class_logits([photo], [proposals.classes])[0][0]
        upsampled = F.interpolate(proposals.masks, size=padded.tensor.shape[-2:], mode="bilinear")[:, :, :40, :60]
        scores = early.scores(photo, logits, upsampled[0].sigmoid())  # (Q, C)
        masks = F.interpolate(upsampled, size=(101, 143), mode="bilinear")[0].sigmoid()  # (Q, height, width)
    expected = sum(scores[row][:, None, None] * masks[row] for row in range(len(masks)))
    torch.testing.assert_close(predict(early, photo), expected)
    assert float((predict(late, photo) - expected).abs().max()) > 1e-6


def test_pixels_learn_from_logits_that_are_enlarged(tiny: Build) -> None:
    model = tiny(PER_PIXEL).train()
    set_classes(model, NAMES)
    photo = with_regions(example(height=32, width=64), [0, 2])
    maps, _ = model.features([photo])
    unit = F.normalize(model.sem_seg_head(maps), dim=1)  # (1, E, 8, 16)
    logits = 100 * torch.einsum("behw,ce->bchw", unit, model.clip_adapter.text_features(NAMES))
    full = F.interpolate(logits, scale_factor=4, mode="bilinear")
    labels = photo["sem_seg"].flatten()
    chosen = full[0].flatten(1).T.log_softmax(dim=1)[torch.arange(len(labels)), labels.clamp(max=2)]
    expected = -chosen[labels != 255].mean()
    torch.testing.assert_close(model([photo])["loss_sem_seg"], expected)


def test_pixels_meet_clips_view_of_the_photo_in_its_own_size(tiny: Build) -> None:
    maps = []
    for weight in (1.5, 0.3, -1.0):
        model = tiny(PER_PIXEL | {"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT": weight})
        set_classes(model, NAMES)
        maps.append(predict(model))
    own, joined, whole = maps
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.clip_adapter.clip.image_mean,
                                                                  model.clip_adapter.clip.image_std))  # fmt: skip
    with torch.no_grad():
        seen = model.clip_adapter.image_features(((example()["image"] / 255 - mean) / std)[None])
        expected = (100 * seen @ model.clip_adapter.text_features(NAMES).T).softmax(dim=1)[0]
    torch.testing.assert_close(whole, expected[:, None, None].expand_as(whole))
    torch.testing.assert_close(joined, own**0.7 * whole**0.3)


def test_clip_stays_in_evaluation_mode(tiny: Build) -> None:
    model = tiny().train()
    assert model.training
    assert not any(module.training for module in model.clip_adapter.clip_model.modules())


def test_a_second_clip_for_the_regions(tiny: Build) -> None:
    other = "MODEL.CLIP_ADAPTER.REGION_CLIP_ADAPTER"
    model = tiny({"MODEL.CLIP_ADAPTER.SEPERATE_ADAPTER": True, f"{other}.CLIP_MODEL_NAME": "mini"})
    plain = tiny()
    for segmenter in (model, plain):
        set_classes(segmenter, NAMES)
    assert "_region_clip_adapter.non_object_embedding" in model.state_dict()
    model.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(predict(model), predict(plain))  # the same CLIP and template
