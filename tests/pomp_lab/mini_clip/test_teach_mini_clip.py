"""The last stage of the image tower learns from crops; everything else of the model stays to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pomp_lab.mini_clip import adapt, lessons
from pomp_lab.mini_clip.architecture import model_config
from pomp_lab.mini_clip.build import finished_text
from pomp_lab.mini_clip.last_stage import LastStage, LowerTrunk
from pomp_lab.mini_clip.lessons import Lesson, features_of, taught
from pomp_lab.mini_clip.visual_space import VisualSpace
from pomp_lab.tables.data_folders import NOVEL_CLASSES
from prompt_core import Clip, PromptedTextEncoder, UserError, Vocabulary, load_clip
from prompt_core.files import sha256_of_file

SCALE, NAMES = 20.0, ["dog", "couch"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the layers of ``mini``, random weights, small pictures and a small text tower."""
    folder = tmp_path_factory.mktemp("built")
    config = model_config()
    config["vision_cfg"]["image_size"] = 32
    config["text_cfg"] |= {"width": 32, "heads": 2, "layers": 1}
    (folder / "mini.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    state = open_clip.CLIP(**json.loads(json.dumps(config))).state_dict()
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in halves.items()}, folder / "mini.safetensors")
    return folder


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return load_clip(folder / "mini.json", folder / "mini.safetensors")


@pytest.fixture(scope="module")
def maps(clip: Clip) -> np.ndarray:
    """What the lower trunk makes of forty pictures of noise, of two colours in turns."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(40, 3, 32, 32, generator=generator)
    pictures[::2, 0] += 2
    return LowerTrunk(clip).encode_image(pictures).half().numpy()


def test_the_two_parts_are_the_whole_tower(clip: Clip) -> None:
    lower = LowerTrunk(clip)
    stage = LastStage(clip, lower.shape)
    assert lower.embed_dim == 192
    pictures = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = clip.encode_image(pictures)
    found = features_of(stage, lower.encode_image(pictures).numpy())
    assert F.cosine_similarity(found, expected).min() > 0.999  # the lower part is in bfloat16
    state = clip.model.state_dict()
    named = stage.named_weights(clip.model.visual.trunk)  # type: ignore[union-attr]
    parts = ("visual.head", "visual.trunk.blocks.6", "visual.trunk.conv_head", "visual.trunk.bn2")
    assert set(named) == {name for name in state if name.startswith(parts)}
    assert all(torch.equal(value, state[name]) for name, value in named.items())


def test_labels_are_learned_and_answers_are_kept(clip: Clip, maps: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons, "STEPS", 15)
    monkeypatch.setattr(lessons, "WARMUP", 2)
    monkeypatch.setattr(lessons, "PROJECTION_MIX", 1.0)
    start = LastStage(clip, LowerTrunk(clip).shape)
    before = features_of(start, maps)
    middle = F.normalize(before.mean(0), dim=0)
    others = F.normalize(torch.randn(9, 116, generator=torch.Generator().manual_seed(1)), dim=1)
    classes = F.normalize(middle + 0.2 * others[:2], dim=1)
    labels = torch.tensor([1, 0]).repeat(20)  # a few of which the start has right

    def learned(keep: float, seed: int = 0) -> LastStage:
        kinds = [Lesson(maps, 16, 0.0, 1.0, labels, [classes]), Lesson(maps[::-1].copy(), 16, keep)]
        return taught(start, kinds, others, SCALE, seed)

    def right(stage: LastStage) -> float:
        return float(((features_of(stage, maps) @ classes.T).argmax(1) == labels).float().mean())

    def drift(stage: LastStage) -> float:
        now, then = ((SCALE * features @ others.T).log_softmax(1) for features in (features_of(stage, maps), before))
        return float(F.kl_div(now, then, log_target=True, reduction="batchmean"))

    free, held = learned(0.0), learned(20.0)
    assert right(start) < 0.4
    assert right(free) > 0.7
    assert drift(held) < 0.5 * drift(free)
    monkeypatch.setattr(lessons, "MIX", 0.25)
    monkeypatch.setattr(lessons, "PROJECTION_MIX", 0.5)
    for (name, old), part, new in zip(
        start.named_parameters(), learned(20.0).parameters(), held.parameters(), strict=True
    ):
        torch.testing.assert_close(part, torch.lerp(old, new, 0.5 if name.startswith("projection.") else 0.25))
    monkeypatch.setattr(lessons, "STEPS", 1)
    one, other = (features_of(learned(20.0, seed), maps) for seed in (1, 2))
    assert not torch.equal(one, other)


def test_rare_classes_are_drawn_more_often_than_they_occur() -> None:
    labels = torch.tensor([0] * 16 + [1])
    chances = Lesson(np.zeros((17, 1)), 1, 0.0, 1.0, labels, []).chances()
    share = chances[-1] / chances.sum()
    assert 1 / 17 < share < 1 / 2
    assert Lesson(np.zeros((3, 1)), 1, 1.0).chances().tolist() == [1, 1, 1]


def test_a_finished_text_tower_is_taken_as_it_is(folder: Path, clip: Clip) -> None:
    metadata = {"build": json.dumps({"seed": 5})}
    (folder / "text.json").write_text((folder / "mini.json").read_text())
    save_file(load_file(folder / "mini.safetensors"), folder / "text.safetensors", metadata)
    features = PromptedTextEncoder(clip).encode_texts(Vocabulary.load("imagenet1k").names)[:, :-1]
    nothing = torch.empty(0)
    text, made = finished_text(folder, "text", VisualSpace(nothing, nothing, features, nothing, nothing))
    state = load_file(folder / "mini.safetensors")
    assert text.keys() == {key for key in state if not key.startswith("visual.")}
    assert all(torch.equal(value, state[key]) for key, value in text.items())
    assert json.loads(made) == {"seed": 5}
    with pytest.raises(UserError, match="belongs to another image tower"):
        finished_text(folder, "text", VisualSpace(nothing, nothing, -features, nothing, nothing))
    with pytest.raises(UserError, match=r"no absent\.safetensors"):
        finished_text(folder, "absent", VisualSpace(nothing, nothing, features, nothing, nothing))


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_tool_changes_the_last_stage_alone(
    call_tool: Callable[..., tuple[int, str, str]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessons, "STEPS", 2)
    monkeypatch.setattr(adapt, "STEPS", 2)
    monkeypatch.setattr(adapt, "CROPS", 4)
    identities = [str(identity) for identity in (Vocabulary.load("imagenet1k").ids or [])[: NOVEL_CLASSES + 2]]
    tiny = tmp_path / "tiny"
    for number, identity in enumerate(identities):
        for copy in range(2):
            picture(tiny / "train" / identity / "images" / f"{identity}_{copy}.JPEG", number)
    (tiny / "wnids.txt").write_text("\n".join(identities))
    (tiny / "words.txt").write_text("".join(f"{identity}\tthing {identity}\n" for identity in identities))
    picture(tmp_path / "1.png", 0)
    rows = [{"id": place, "image_id": 1, "category_id": place, "bbox": [place, 2, 20, 20]} for place in (1, 2)]
    categories = [{"id": place, "name": name} for place, name in enumerate(NAMES, 1)]
    images = [{"id": 1, "width": 32, "height": 32, "file_name": "1.png"}]
    document = {"images": images, "annotations": rows, "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps(document))

    options = ["--tiny-imagenet", tiny, "--regions", "boxes.json", ".", "--cache", "cache", "--threads", "1"]
    code, _, error = call_tool("build_mini_clip", "--adapt", folder, *options, "--output", "out")
    assert code == 0, error
    old, new = load_file(folder / "mini.safetensors"), load_file(tmp_path / "out" / "mini.safetensors")
    changed = {key for key in old if not torch.equal(old[key], new[key])}
    assert all(value.dtype == old[key].dtype for key, value in new.items())
    learns = ("visual.head.proj.", "visual.trunk.blocks.6.", "visual.trunk.conv_head.", "visual.trunk.bn2.")
    assert all(key.startswith(learns) for key in changed)
    assert all(any(key.startswith(part) for key in changed) for part in learns)
    with safe_open(tmp_path / "out" / "mini.safetensors", "pt") as file:
        told = json.loads(file.metadata()["regions"])
    assert told["boxes"] == {"coco_crops:boxes.json": 2}
    assert (told["crops"], told["photos"]) == (4, 1)
    assert told["start"] == sha256_of_file(folder / "mini.safetensors")

    code, _, error = call_tool("build_mini_clip", "--adapt", "out", *options, "--output", "again")
    assert code == 2
    assert "was adapted to regions already" in error
    assert not (tmp_path / "again" / "mini.safetensors").exists()
