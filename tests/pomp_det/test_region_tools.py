"""The tools around regions, one after the other: embeddings, prompts of DetPro and PromptDet, folders of photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from pomp_det.data.region_cache import RegionCache, write_region_cache
from prompt_core import SoftPrompt, TextClassifier, load_clip

from ..support.detector_run import CATEGORIES, make_config, make_data

MINI = {"MODEL.DISTILLATION_CLIP.NAME": "mini", "MODEL.DISTILLATION_CLIP.PRETRAINED": ""}
MINI |= {"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 116}


@pytest.mark.slow
def test_regions_are_embedded_and_prompts_learned(
    call_tool: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    truth = make_data(tmp_path, count=4)
    config = make_config(tmp_path, **MINI)
    given = ["--config", config, "--dataset", "tiny"]
    code, out, _ = call_tool("embed_regions", *given, "--proposals", truth, "--output", tmp_path / "true")
    assert (code, "regions of 4 photos" in out) == (0, True)
    assert RegionCache(tmp_path / "true").width == 116
    (tmp_path / "what.csv").write_text("name,description\n" + "".join(f"{row['name']},a thing\n" for row in CATEGORIES))
    learn = [*given, "--regions", tmp_path / "true"]
    described = ["--method", "promptdet", "--descriptions", tmp_path / "what.csv", "--output", tmp_path / "promptdet"]
    code, out, error = call_tool("learn_region_prompt", *learn, *described)
    assert (code, error) == (0, "")
    prompt = SoftPrompt.load(tmp_path / "promptdet/prompt_0.5.safetensors")
    assert (prompt.n_ctx, prompt.metadata["method"], prompt.metadata["clip"]) == (8, "promptdet", "mini")
    classifier = TextClassifier.load(tmp_path / "promptdet/classifier.safetensors")
    assert classifier.names == [category["name"] for category in CATEGORIES]  # as the data set calls them
    texts = [f"{category['name']}, which is a thing" for category in CATEGORIES]
    expected = TextClassifier.build(load_clip("mini"), texts, prompt)
    torch.testing.assert_close(classifier.weight, expected.weight)
    code, _, error = call_tool(
        "learn_region_prompt", *learn, "--method", "promptdet", "--output", tmp_path / "promptdet"
    )
    assert (code, "was learned with texts_sha256" in error) == (2, True)
    code, _, error = call_tool("learn_region_prompt", *learn, *described, "SEED", "3")
    assert (code, "was learned with seed 4, asked for is 3" in error) == (2, True)
    write_region_cache(tmp_path / "openai", [], None, None, {"clip": "mini", "pretrained": "openai"})  # type: ignore[arg-type]
    code, _, error = call_tool("learn_region_prompt", *given, *described, "--regions", tmp_path / "openai")
    assert (code, "openai was made with pretrained 'openai', MODEL.DISTILLATION_CLIP has ''" in error) == (2, True)
    hand = ["--method", "hand", "--descriptions", tmp_path / "what.csv", "--output", tmp_path / "hand"]
    assert call_tool("learn_region_prompt", *given, *hand)[0] == 0
    expected = TextClassifier.build(load_clip("mini"), texts, "a photo of {}.")
    torch.testing.assert_close(TextClassifier.load(tmp_path / "hand/classifier.safetensors").weight, expected.weight)
    # true boxes alone are of no other grade
    code, _, error = call_tool("learn_region_prompt", *learn, "--method", "detpro", "--output", tmp_path / "detpro")
    assert (code, "no region of a class has an IoU of 0.5 to 0.6" in error) == (2, True)


@pytest.mark.slow
def test_a_detectors_own_proposals_are_embedded(
    call_tool: Callable[..., tuple[int, str, str]], make_tiny: Callable[..., object], tmp_path: Path
) -> None:
    make_data(tmp_path, count=2)
    config = make_config(tmp_path, **MINI)
    given = ["--config", config, "--dataset", "tiny", "--limit", "5", "--output", tmp_path / "own"]
    code, _, error = call_tool("embed_regions", *given)
    assert (code, "MODEL.WEIGHTS is empty" in error) == (2, True)
    model = make_tiny({"MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 116, "MODEL.RESNETS.NORM": "FrozenBN"})
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")  # type: ignore[attr-defined]
    code, _, error = call_tool("embed_regions", *given, "MODEL.WEIGHTS", tmp_path / "model.pth")
    assert (code, error) == (0, "")
    regions = RegionCache(tmp_path / "own").regions(1)
    assert regions is not None
    assert len(regions.boxes) == 5
    assert (regions.boxes <= torch.tensor([64.0, 48, 64, 48])).all()
    assert regions.scores.tolist() == sorted(regions.scores.tolist(), reverse=True)
    torch.testing.assert_close(regions.embeddings.norm(dim=1), torch.ones(5), atol=1e-2, rtol=0)


def test_folders_of_photos_are_listed(call_tool: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    truth = make_data(tmp_path, count=1)
    (tmp_path / "novel/toy_car").mkdir(parents=True)
    Image.new("RGB", (9, 7)).save(tmp_path / "novel/toy_car/a.png")
    given = ["--photos", tmp_path / "novel", "--categories", truth, "--output", tmp_path / "novel.json"]
    code, out, _ = call_tool("list_photo_folders", *given)
    assert (code, "1 photos of 1 classes" in out) == (0, True)
    document = json.loads((tmp_path / "novel.json").read_text())
    assert document["images"][0]["pos_category_ids"] == [5]
    assert document["categories"] == CATEGORIES


def test_segment_anything_is_asked_for(
    call_tool: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    given = [tmp_path / "a.png", "--model", "vit_b", "--weights", "sam.pth", "--output", "out"]
    code, _, error = call_tool("write_proposals", *given)
    assert (code, "segment_anything is not installed" in error) == (2, True)
    assert not (tmp_path / "out").exists()
