"""YAML files of trainers on Dassl: their settings in this toolkit's keys, what is refused, and what is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from prompt_core import UserError
from prompt_core.config import default_config, flatten, load_config
from prompt_core.dassl.keys import BACKBONES, TRAINERS
from prompt_core.methods.registry import METHODS, method_class

# What all published files have in common (KaiyangZhou/CoOp at ff61507, configs/trainers).
SHIPPED: dict[str, Any] = {
    "DATALOADER": {"TRAIN_X": {"BATCH_SIZE": 32}, "TEST": {"BATCH_SIZE": 100}, "NUM_WORKERS": 8},
    "INPUT": {
        "SIZE": "(224, 224)",
        "INTERPOLATION": "bicubic",
        "PIXEL_MEAN": [0.48145466, 0.4578275, 0.40821073],
        "PIXEL_STD": [0.26862954, 0.26130258, 0.27577711],
        "TRANSFORMS": ["random_resized_crop", "random_flip", "normalize"],
    },
    "OPTIM": {
        "NAME": "sgd",
        "LR": 0.002,
        "MAX_EPOCH": 50,
        "LR_SCHEDULER": "cosine",
        "WARMUP_EPOCH": 1,
        "WARMUP_TYPE": "constant",
        "WARMUP_CONS_LR": "1e-5",
    },
    "TRAIN": {"PRINT_FREQ": 5},
    "MODEL": {"BACKBONE": {"NAME": "ViT-B/16"}},
}
ALONE = {  # a trainer's name: its section in its published file, and what that says here
    "CoOp": ({"CTX_INIT": "a photo of a"}, {"PROMPT.INIT": "a photo of a", "LOSS.NUM_CLASSES": 0}),
    "CoCoOp": ({"N_CTX": 4, "CTX_INIT": "", "PREC": "fp16"}, {"PROMPT.N_CTX": 4, "PROMPT.INIT": ""}),
    "MaPLe": (
        {"N_CTX": 2, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH": 9},
        {"METHOD.MAPLE.N_CTX": 2, "METHOD.MAPLE.WORDS": "a photo of a", "METHOD.MAPLE.DEPTH": 9},
    ),
    "VPT": (
        {"N_CTX_VISION": 8, "CTX_INIT": "a photo of a", "PREC": "fp16", "PROMPT_DEPTH_VISION": 12},
        {"METHOD.VPT.TOKENS": 8, "METHOD.VPT.DEPTH": 12, "METHOD.VPT.TEMPLATE": "a photo of a {}."},
    ),
    "IVLP": (
        {
            "N_CTX_VISION": 0,
            "N_CTX_TEXT": 4,
            "CTX_INIT": "a photo of a",
            "PROMPT_DEPTH_VISION": 0,
            "PROMPT_DEPTH_TEXT": 12,
        },
        {"METHOD.IVLP.TOKENS": 0, "METHOD.IVLP.N_CTX": 4, "METHOD.IVLP.DEPTH": 12},
    ),
    "POMP": (
        {"EPT": True, "N_CTX": 16, "UPDATE_CLASS_NUM": 1000},
        {"LOSS.NUM_CLASSES": 1000, "LOSS.CORRECTION": "log10", "LOSS.DRAWS": "per_group", "LOSS.GROUP": 32},
    ),
    "MLP": ({}, {"LOSS.NUM_CLASSES": 0}),
}


def write(folder: Path, trainer: str = "CoOp", section: dict[str, Any] | None = None, **more: Any) -> Path:
    """A file in the published place, ``more`` in the place of its sections."""
    path = folder / "configs/trainers" / trainer / "vit_b16_ep50.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {**SHIPPED, **more}
    if section:
        document["TRAINER"] = {TRAINERS[trainer].section: section}
    path.write_text(yaml.safe_dump(document))
    return path


def load(path: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """Settings by their dotted keys, and the warning's text."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cfg = load_config(path, overrides)
    assert len(said) <= 1
    return dict(flatten(cfg)), str(said[0].message) if said else ""


def test_a_published_file_with_the_overrides_of_its_script(tmp_path: Path) -> None:
    """``scripts/coop/main.sh``, and one of this toolkit's keys."""
    script = [
        "DATASET.NAME",
        "OxfordPets",
        "DATASET.ROOT",
        "/data",
        "TRAINER.COOP.N_CTX",
        "4",
        "TRAINER.COOP.CSC",
        "False",
    ]
    script += ["TRAINER.COOP.CLASS_TOKEN_POSITION", "middle", "DATASET.NUM_SHOTS", "2", "TEST.FINAL_MODEL", "best_val"]
    script += ["DATASET.SUBSAMPLE_CLASSES", "base", "SEED", "3", "OPTIM.CLIP_GRAD_NORM", "1.0"]
    cfg, note = load(write(tmp_path), *script)
    expected = dict(flatten(default_config())) | {
        "METHOD.NAME": "coop",
        "MODEL.NAME": "ViT-B-16-quickgelu",
        "MODEL.PRETRAINED": "openai",
        "DATA.TRAIN": "OxfordPets:/data",
        "DATA.SHOTS": 2,
        "DATA.CLASSES": "base",
        "DATA.WORKERS": 8,
        "AUGMENT.VIEWS": 1,
        "AUGMENT.RAND_AUGMENT": False,
        "PROMPT.N_CTX": 4,
        "PROMPT.POSITION": "middle",
        "LOSS.NUM_CLASSES": 0,
        "LOSS.REJECT": "id",
        "OPTIM.EPOCHS": 50,
        "OPTIM.CLIP_GRAD_NORM": 1.0,
        "SELECT.ON": "val",
        "SELECT.SHOTS": 2,
        "EVAL.DATASETS": ("OxfordPets:/data",),
        "EVAL.SPLIT": "test",
        "EVAL.CLASSES": "base",
        "EVAL.NAMESAKES": "separate",
        "SEED": 3,
    }
    assert cfg == expected
    for part in (
        "trainer CoOp",
        "DATALOADER.TEST.BATCH_SIZE, TRAIN.PRINT_FREQ",
        "fp16 is computed in single precision",
    ):
        assert part in note
    assert "\n" not in note


@pytest.mark.parametrize("name", ALONE)
def test_each_trainers_section(tmp_path: Path, name: str) -> None:
    section, expected = ALONE[name]
    cfg, note = load(write(tmp_path, name, section))
    assert {key: cfg[key] for key in expected} == expected
    assert cfg["METHOD.NAME"] in METHODS
    assert f"trainer {name}" in note
    # In another folder it is known by its section, or by TRAINER.NAME.
    elsewhere = tmp_path / "mine.yaml"
    elsewhere.write_text(write(tmp_path, name, section).read_text())
    assert load(elsewhere, "TRAINER.NAME", name)[0] == cfg
    if section:
        assert load(elsewhere)[0] == cfg


def test_defaults_are_the_trainers(tmp_path: Path) -> None:
    assert load(write(tmp_path, "MaPLe"))[0]["METHOD.MAPLE.DEPTH"] == 9
    assert load(write(tmp_path, "VPT"))[0]["METHOD.VPT.DEPTH"] == 1
    pomp, note = load(
        write(tmp_path, "POMP", DATALOADER={"K_TRANSFORMS": 4, "TRAIN_X": {"SAMPLER": "DistributedSampler"}})
    )
    assert (pomp["LOSS.NUM_CLASSES"], pomp["PROMPT.N_CTX"], pomp["AUGMENT.VIEWS"], pomp["DATA.SHOTS"]) == (0, 4, 4, -1)
    assert "with TRAINER.POMP.EPT False all classes are in the loss" in note
    assert "give OPTIM.BATCH, the images of all" in note
    pomp, note = load(write(tmp_path, "POMP"), "TRAINER.POMP.EPT", "True", "TRAINER.POMP.LOCAL_CORRECTION", "False")
    assert (pomp["LOSS.NUM_CLASSES"], pomp["LOSS.CORRECTION"]) == (128, "none")
    maple, _ = load(write(tmp_path, "MaPLe", {"N_CTX": 5}))
    assert maple["METHOD.MAPLE.WORDS"] == "", "more tokens than may start from words"
    _, note = load(write(tmp_path, OPTIM={"LR": 0.002}))
    assert "Dassl's default optimiser, adam" in note
    # An epoch is chosen only where there are tests at all.
    never, _ = load(write(tmp_path, TEST={"NO_TEST": True, "FINAL_MODEL": "best_val"}))
    assert never["SELECT.ON"] == "last"


def test_what_promptsrc_learned_is_scored_but_nothing_is_learned(tmp_path: Path) -> None:
    section = {"N_CTX_TEXT": 4, "N_CTX_VISION": 4, "PROMPT_DEPTH_TEXT": 9, "GPA_MEAN": 15, "TEXT_LOSS_WEIGHT": 25}
    cfg, note = load(write(tmp_path, "PromptSRC", section))
    assert (cfg["METHOD.IVLP.N_CTX"], cfg["METHOD.IVLP.VISION_DEPTH"]) == (4, 9)
    assert "the losses of PromptSRC (its checkpoints are scored, nothing is learned)" in note
    with pytest.raises(UserError, match="unknown method 'promptsrc'"):
        method_class(cfg["METHOD.NAME"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("OPTIM.NAME", "adam", "the optimiser is SGD"),
        ("OPTIM.LR_SCHEDULER", "single_step", "the rate follows a cosine"),
        ("OPTIM.WARMUP_TYPE", "linear", "the rate of the warm-up is constant"),
        ("OPTIM.SGD_NESTEROV", "True", "the optimiser is SGD"),
        ("INPUT.INTERPOLATION", "bilinear", "bicubic"),
        (
            "INPUT.TRANSFORMS",
            "['random_flip', 'cutout', 'normalize']",
            "expected normalize, random_flip, random_resized",
        ),
        ("INPUT.PIXEL_MEAN", "[0.485, 0.456, 0.406]", "normalised as the model's own were"),
        ("INPUT.SIZE", "(336, 336)", "ViT-B/16 takes 224 pixels"),
        ("MODEL.BACKBONE.NAME", "resnet18", "expected one of RN50, "),
        ("MODEL.INIT_WEIGHTS", "a.pth.tar", "learning starts from random vectors or from words"),
        ("DATASET.SUBSAMPLE_CLASSES", "novel", "expected one of all, base, new"),
        ("DATASET.NUM_SHOTS", "many", "a value of another type is expected"),
        ("DATASET.ROOT", "/data", "without DATASET.NAME"),
        ("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler", "each once an epoch"),
        ("TRAINER.COOP.N_CTXX", "4", "unknown key 'TRAINER.COOP.N_CTXX' of trainer CoOp"),
        ("TRAINER.MAPLE.N_CTX", "4", "unknown key 'TRAINER.MAPLE.N_CTX' of trainer CoOp"),
        ("TRAIN.PRINTFREQ", "4", "nearest: 'TRAIN.PRINT_FREQ'"),
        ("TRAINER.NAME", "CoOpp", "nearest: 'CoOp'"),
        ("PROMPT.N_CTXX", "4", "unknown key 'PROMPT.N_CTXX'"),
        ("TEST.COMPUTE_CMAT", "True", "no confusion matrix is written"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path: Path, key: str, value: str, message: str) -> None:
    section = {"N_CTX": 16}
    with pytest.raises(UserError) as refused:
        load(write(tmp_path, "CoOp", section), key, value)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_more_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"other modes read a memory that it never fills"):
        load(write(tmp_path, "POMP", {"NEG_SAMPLING_MODE": "hard"}))
    with pytest.raises(UserError, match="takes 'a photo of a', whatever is given"):
        load(write(tmp_path, "VPT", {"CTX_INIT": "a picture of"}))
    with pytest.raises(UserError, match=r"PROMPT_DEPTH is 0 in .*; expected at least 1"):
        load(write(tmp_path, "MaPLe", {"PROMPT_DEPTH": 0}))
    with pytest.raises(UserError, match=r"a file of Dassl without a trainer .*; add TRAINER\.NAME"):
        load(write(tmp_path, "CoOp").rename(tmp_path / "alone.yaml"))


def test_files_of_this_toolkit_are_none_of_dassls(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("SEED: 1\nOPTIM: {LR: 0.1}\n")
    assert load(file)[1] == ""
    with pytest.raises(UserError, match=r"unknown key 'TRAINER.COOP.N_CTX' in the command line"):
        load(file, "TRAINER.COOP.N_CTX", "4")


def test_backbones_are_open_clips() -> None:
    import open_clip

    assert {name for name, _ in BACKBONES.values()} <= {*open_clip.list_models()}
    for name, size in BACKBONES.values():
        assert open_clip.get_model_config(name)["vision_cfg"]["image_size"] == size
        assert "openai" in open_clip.list_pretrained_tags_by_model(name)
