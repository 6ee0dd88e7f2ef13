"""Configuration: bases, strict keys, types that YAML blurs."""

from __future__ import annotations

from pathlib import Path

import pytest

from prompt_core.config import correction_of, load_config
from prompt_core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("file", sorted((ROOT / "configs/prompt").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_load_and_begin_with_their_command(file: Path) -> None:
    load_config(file)
    head = [line for line in file.read_text(encoding="utf-8").splitlines()[:3] if line.startswith("# python ")]
    assert any(f"configs/prompt/{file.name}" in line for line in head)


def test_published_settings_are_the_defaults() -> None:
    cfg = load_config(ROOT / "configs/prompt/imagenet21k_vitb16.yaml")
    assert (cfg.LOSS.NUM_CLASSES, cfg.PROMPT.N_CTX, cfg.DATA.SHOTS, cfg.OPTIM.EPOCHS) == (1000, 16, 16, 20)
    assert (cfg.OPTIM.LR, cfg.OPTIM.MOMENTUM, cfg.OPTIM.WEIGHT_DECAY, cfg.AUGMENT.VIEWS) == (0.002, 0.9, 5e-4, 4)
    assert (cfg.LOSS.REJECT, cfg.LOSS.DRAWS, cfg.LOSS.GROUP, cfg.OPTIM.BATCH) == ("id", "per_group", 32, 8 * 32)
    sibling = load_config(ROOT / "configs/prompt/imagenet21k_vitb16_ep5_ctx4.yaml")
    assert (sibling.PROMPT.N_CTX, sibling.OPTIM.EPOCHS, sibling.LOSS.NUM_CLASSES) == (4, 5, 1000)


def test_types_that_yaml_blurs(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("OPTIM: {LR: 1e-5, WARMUP_LR: 1}\nLOSS: {CORRECTION: 1.5}\nAUGMENT: {SCALE: '(0.5, 1.0)'}\n")
    cfg = load_config(file, ["EVAL.DATASETS", "a:b,c:d", "DATA.SHOTS", "-1", "PROMPT.INIT=a photo of a"])
    assert (cfg.OPTIM.LR, cfg.OPTIM.WARMUP_LR, cfg.AUGMENT.SCALE) == (1e-5, 1.0, (0.5, 1.0))
    assert (cfg.EVAL.DATASETS, cfg.DATA.SHOTS, cfg.PROMPT.INIT) == (("a:b", "c:d"), -1, "a photo of a")
    assert correction_of(cfg) == 1.5
    assert correction_of(load_config(None, ["LOSS.CORRECTION", "none"])) is None
    assert correction_of(load_config(None, ["LOSS.CORRECTION", "ln"])) == "ln"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["OPTIM.LRR", "1"], "unknown key 'OPTIM.LRR' in the command line; nearest: 'OPTIM.LR'"),
        (["OPTIM.LR"], "has no value"),
        (["OPTIM.EPOCHS", "1.5"], "OPTIM.EPOCHS is 1.5"),
        (["AUGMENT.SCALE", "0.5"], "AUGMENT.SCALE"),
        (["AUGMENT.SCALE", "low,high"], "2 numbers are expected"),
        (["AUGMENT.RAND_AUGMENT", "1"], "a bool is expected"),
        (["OPTIM", "1"], "unknown key 'OPTIM'"),
    ],
)
def test_mistakes(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, overrides)
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("A: [1")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "child.yaml").write_text("_BASE_: missing.yaml\n")
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path / "child.yaml")
    (tmp_path / "stray.yaml").write_text("OPTIM: {EPOCH: 3}\n")
    with pytest.raises(UserError, match=r"'OPTIM.EPOCH' in .*nearest: 'OPTIM.EPOCHS'"):
        load_config(tmp_path / "stray.yaml")
