"""The whole segmenter against the published implementation (golden ``zsseg``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.data import MetadataCatalog
from detectron2.structures import ImageList, Instances
from safetensors.torch import load_file
from torch import Tensor

from pomp_seg import build_segmenter, load_config, set_classes
from pomp_seg.losses import CostWeights, match
from pomp_seg.regions.encode import similarity_logits

YAML = "coco-stuff-164k-156/zero_shot_maskformer_R101c_pomp_prompt_bs32_60k.yaml"
DATASET = "golden_zsseg"


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    folder = shared / "golden/zsseg"
    settings = json.loads((folder / "settings.json").read_text())
    return {"cases": load_file(folder / "cases.safetensors"), "settings": settings, "folder": folder}


@pytest.fixture(scope="module")
def build(golden: dict[str, Any], golden_clip: Path, published: Path) -> Any:
    def make(changed: dict[str, Any] | None = None) -> Any:
        overrides = golden["settings"]["config_overrides"] | {
            "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT": "",
            "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME": "openai",
            "MODEL.CLIP_ADAPTER.CLIP_PRETRAINED": str(golden_clip),
            "MODEL.DEVICE": "cpu",
        }
        model = build_segmenter(load_config(published / YAML, overrides | (changed or {})))
        weights = load_file(golden["folder"] / "weights.safetensors")
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert not unexpected
        assert all(key.startswith("clip_adapter.clip_model.") for key in missing)
        return model

    return make


@pytest.fixture(scope="module")
def model(build: Any, golden: dict[str, Any]) -> Any:
    model = build().eval()
    set_classes(model, golden["settings"]["class_names"], golden["settings"]["trainable_flag"])
    return model


def padded_images(model: Any, golden: dict[str, Any]) -> ImageList:
    images = [(golden["cases"][f"image{i}"].float() - model.pixel_mean) / model.pixel_std for i in range(2)]
    return ImageList.from_tensors(images, model.size_divisibility)


def difference(ours: Tensor, expected: Tensor) -> float:
    assert ours.shape == expected.shape
    return float((ours - expected).abs().max())


@torch.no_grad()
def test_backbone_and_head(model: Any, golden: dict[str, Any]) -> None:
    cases = golden["cases"]
    features = model.backbone(padded_images(model, golden).tensor)
    for name in ("res2", "res3", "res4", "res5"):
        assert difference(features[name], cases[f"backbone.{name}"]) < 1e-4
    head = model.sem_seg_head
    assert difference(head.pixel_decoder(features), cases["head.mask_features"]) < 2e-4
    first, last = head(features)
    for proposals, prefix in ((last, "head."), (first, "head.aux0.")):
        assert difference(proposals.classes, cases[f"{prefix}class_embeddings"]) < 2e-4
        assert difference(proposals.masks, cases[f"{prefix}mask_logits"]) < 2e-4
    names = golden["settings"]["class_names"]
    text = model.clip_adapter.text_features(names)
    assert difference(text, cases["text_features_with_non_object"]) < 1e-5
    assert difference(similarity_logits(last.classes, text), cases["head.class_logits"]) < 5e-4


@torch.no_grad()
def test_regions(model: Any, golden: dict[str, Any]) -> None:
    cases, adapter = golden["cases"], model.clip_adapter
    masks = cases["adapter.masks"].float()
    encoder = adapter.encode_regions
    binary = masks > encoder.threshold
    crops = encoder.crops(cases["image0"], binary[cases["adapter.valid"].bool()], binary[cases["adapter.valid"].bool()])
    assert difference(crops[..., ::4, ::4], cases["adapter.regions_every_4th_pixel"]) < 1e-4
    for encode in (encoder, encoder.one_by_one):
        features, valid = encode(cases["image0"], masks)
        assert valid.tolist() == cases["adapter.valid"].bool().tolist()
        assert difference(features, cases["adapter.region_features"]) < 1e-4
    logits, _ = adapter.region_logits(cases["image0"], masks, golden["settings"]["class_names"])
    assert difference(logits, cases["adapter.logits"]) < 1e-3


def inputs(golden: dict[str, Any]) -> list[dict[str, Any]]:
    sizes = golden["settings"]["output_sizes"]
    return [
        {
            "image": golden["cases"][f"image{i}"],
            "height": sizes[i][0],
            "width": sizes[i][1],
            "meta": {"dataset_name": DATASET},
        }
        for i in range(2)
    ]


@pytest.mark.parametrize("name", ["ensemble_flag", "ensemble_noflag", "no_ensemble", "clip_only"])
def test_predictions(build: Any, golden: dict[str, Any], name: str) -> None:
    settings = golden["settings"]
    case = settings["evaluations"][name]
    model = build(
        {
            "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE": case["clip_ensemble"],
            "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT": case["clip_ensemble_weight"],
        }
    ).eval()
    # The classes come with the data set, as in the published code.
    MetadataCatalog.pop(DATASET, None)
    flags = {"trainable_flag": settings["trainable_flag"]} if case["trainable_flag_present"] else {}
    MetadataCatalog.get(DATASET).set(stuff_classes=settings["class_names"], **flags)
    with torch.no_grad():
        results = model(inputs(golden))
    for image, result in enumerate(results):
        expected = golden["cases"].get(f"{name}.image{image}.sem_seg")
        if expected is not None:
            assert difference(result["sem_seg"], expected) < 5e-4
            assert int((result["sem_seg"].argmax(0) != expected.argmax(0)).sum()) <= 3


def training_inputs(golden: dict[str, Any]) -> list[dict[str, Any]]:
    cases, batch = golden["cases"], inputs(golden)
    for index, example in enumerate(batch):
        instances = Instances(tuple(example["image"].shape[-2:]))
        instances.gt_classes = cases[f"train.image{index}.gt_classes"].long()
        instances.gt_masks = cases[f"train.image{index}.gt_masks"].bool()
        example["instances"] = instances
    return batch


def test_training_losses_and_gradients(build: Any, golden: dict[str, Any]) -> None:
    settings, cases = golden["settings"], golden["cases"]
    model = build().train()
    set_classes(model, settings["class_names"])
    losses = model(training_inputs(golden))
    assert losses.keys() == settings["train_losses_weighted"].keys()
    for name, expected in settings["train_losses_weighted"].items():
        assert float(losses[name].detach()) == pytest.approx(expected, rel=1e-4)
    sum(losses.values()).backward()
    computed = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    for name, expected in settings["train_grad_norms"].items():
        # The first layer's queries are zero: some gradients there are nothing but rounding.
        assert float(computed[name].norm()) == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    gradients = [key for key in cases if key.startswith("train.grad.")]
    assert gradients
    for key in gradients:
        gradient = computed[key.removeprefix("train.grad.")]
        assert difference(gradient, cases[key]) <= 1e-4 * float(cases[key].abs().max())


def test_matched_pairs(build: Any, golden: dict[str, Any]) -> None:
    settings = golden["settings"]
    model = build().train()
    set_classes(model, settings["class_names"])
    batch = training_inputs(golden)
    padded = padded_images(model, golden)
    with torch.no_grad():
        proposals = model.sem_seg_head(model.backbone(padded.tensor))
        logits = model.class_logits(batch, [proposal.classes for proposal in proposals])
    targets = [model.targets(example["instances"], padded.tensor.shape[-2:]) for example in batch]
    order = {"aux0": 0, "final": 1}
    for case in settings["matcher_pairs_query_target"]:
        layer = order[case["output"]]
        pairs = match(logits[layer], proposals[layer].masks, targets, CostWeights())
        ours = [sorted(zip(queries.tolist(), regions.tolist(), strict=True)) for queries, regions in pairs]
        assert ours == [sorted(tuple(pair) for pair in image) for image in case["per_image"]]


def test_names_of_weights_at_full_size(golden: dict[str, Any], published: Path, no_initial_values: None) -> None:
    expected = json.loads((golden["folder"] / "state_dict_keys_full_size.json").read_text())
    overrides = {"MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT": "", "MODEL.DEVICE": "cpu"}
    model = build_segmenter(load_config(published / YAML, overrides))
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == expected
