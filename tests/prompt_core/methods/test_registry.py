"""Methods by name, their configurations, and that files of each kind are distinguished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prompt_core import SoftPrompt, UserError
from prompt_core.clip import Clip
from prompt_core.config import load_config
from prompt_core.methods.registry import METHODS, build_method, method_class, method_file_metadata
from prompt_core.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "configs/prompt/methods").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_build_and_begin_with_their_command(
    make_clip: Callable[..., Clip], vocabulary: Vocabulary, file: Path
) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(f"# python tools/pretrain_prompt.py --config configs/prompt/methods/{file.name} --output ")
    cfg = load_config(file)
    assert cfg.MODEL.NAME == "ViT-B-16-quickgelu"
    method = build_method(cfg, make_clip(layers=3) if cfg.METHOD.MAPLE.DEPTH <= 3 else _deep(make_clip), vocabulary)
    assert method.name == cfg.METHOD.NAME


def _deep(make_clip: Callable[..., Clip]) -> Clip:
    """Towers of 9 blocks: the text tower's three are repeated, which costs nothing here."""
    clip = make_clip(layers=9)
    blocks: Any = clip.model.transformer.resblocks
    blocks.extend([*blocks, *blocks])
    return clip


def test_every_method_has_a_configuration() -> None:
    assert {load_config(file).METHOD.NAME for file in CONFIGS} == set(METHODS)


def test_published_settings() -> None:
    def of(name: str) -> Any:
        return load_config(ROOT / f"configs/prompt/methods/{name}.yaml")

    table = {  # learning rate, epochs, batch
        "coop": (0.002, 50, 32),
        "pomp": (0.002, 50, 32),
        "cocoop": (0.002, 10, 1),
        "maple": (0.0026, 2, 4),
        "maple_base_to_new": (0.0035, 5, 4),
        "ivlp": (0.0035, 5, 4),
        "vpt": (0.0025, 5, 4),
        "lasp": (0.002, 10, 1),
        "linear_probe": (0.2, 20, 256),
    }
    for name, expected in table.items():
        optim = of(name).OPTIM
        assert expected == (optim.LR, optim.EPOCHS, optim.BATCH), name
    assert (of("pomp").LOSS.NUM_CLASSES, of("coop").LOSS.NUM_CLASSES) == (128, 0)
    assert (of("maple").METHOD.MAPLE.DEPTH, of("maple_base_to_new").METHOD.MAPLE.DEPTH) == (3, 9)
    ivlp = of("ivlp").METHOD.IVLP
    assert (ivlp.N_CTX, ivlp.DEPTH, ivlp.TOKENS, ivlp.VISION_DEPTH) == (2, 0, 2, 0)
    assert (of("vpt").METHOD.VPT.TOKENS, of("vpt").METHOD.VPT.DEPTH, of("vpt_shallow").METHOD.VPT.DEPTH) == (8, 0, 1)
    assert (of("lasp").OPTIM.CLIP_GRAD_NORM, of("lasp").METHOD.LASP.TEXT_WEIGHT) == (1.0, 5.0)
    assert of("linear_probe").OPTIM.WARMUP_LR == 1e-3
    assert of("coop_class_specific").PROMPT.CLASS_SPECIFIC
    for file in CONFIGS:
        cfg = load_config(file)
        assert not cfg.AUGMENT.RAND_AUGMENT, "crop and flip only"
        assert cfg.DATA.SHOTS == 16


def test_pomp_is_the_default() -> None:
    assert load_config().METHOD.NAME == "pomp"


def test_misspelt_names_get_the_nearest(clip: Clip) -> None:
    with pytest.raises(UserError, match=r"unknown method 'mapel'; expected one of zero_shot, .*; nearest: 'maple'"):
        method_class("mapel")
    with pytest.raises(UserError, match=r"nearest: 'cocoop'"):
        build_method(load_config(None, ["METHOD.NAME", "cocop"]), clip)
    with pytest.raises(UserError, match=r"'METHOD.MAPLE.DEPHT' in the command line; nearest: 'METHOD.MAPLE.DEPTH'"):
        load_config(None, ["METHOD.MAPLE.DEPHT", "3"])


@pytest.mark.parametrize("name", ["cocoop", "lasp"])
@pytest.mark.parametrize("override", [["PROMPT.CLASS_SPECIFIC", "True"], ["PROMPT.POSITION", "front"]])
def test_contexts_that_do_not_go_with_a_method(clip: Clip, name: str, override: list[str]) -> None:
    with pytest.raises(UserError, match=f"method {name} has a shared context before the name"):
        build_method(load_config(None, ["METHOD.NAME", name, *override]), clip)


@pytest.mark.parametrize("name", ["linear_probe", "logistic_regression"])
def test_bound_methods_need_classes(clip: Clip, name: str) -> None:
    with pytest.raises(UserError, match=f"method {name} needs the classes; give DATA.TRAIN"):
        build_method(load_config(None, ["METHOD.NAME", name]), clip)


def test_prompt_files_are_no_method_files(tmp_path: Path) -> None:
    SoftPrompt(torch.zeros(2, 32)).save(tmp_path / "prompt.safetensors", method="POMP", clip="tiny")
    assert method_file_metadata(tmp_path / "prompt.safetensors") is None
    assert method_file_metadata(tmp_path / "absent.safetensors") is None
    (tmp_path / "prompt.pth.tar").write_bytes(b"x")
    assert method_file_metadata(tmp_path / "prompt.pth.tar") is None
