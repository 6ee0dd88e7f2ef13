"""A model that is used without training has all its weights from its checkpoint, and a run's folder is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.config import CfgNode, get_cfg

from pomp_engine.checkpoint import ModelCheckpointer
from pomp_engine.config import add_engine_config
from pomp_engine.run_folder import model_files
from pomp_engine.trained_weights import load_trained
from prompt_core import UserError


class Prompt(torch.nn.Linear):
    read_from = ""


class Frozen(torch.nn.Linear):
    learned_before = True


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Linear(2, 3)
        self.head = torch.nn.Linear(3, 2)
        self.prompt = Prompt(1, 2)
        self.frozen = torch.nn.Linear(3, 3).requires_grad_(False)


def config(**settings: Any) -> CfgNode:
    cfg = get_cfg()
    add_engine_config(cfg)
    cfg.MODEL.update(settings)
    return cfg


def load(model: torch.nn.Module, file: str) -> None:
    ModelCheckpointer(model).load(file)


def saved(file: Path, *left_out: str) -> str:
    state = {key: torch.ones_like(value) for key, value in Model().state_dict().items() if not key.startswith(left_out)}
    torch.save({"model": state}, file)
    return str(file)


def test_every_weight_that_learns_has_to_come_from_the_file(tmp_path: Path) -> None:
    whole, part = saved(tmp_path / "whole.pth", "frozen"), saved(tmp_path / "part.pth", "head", "frozen")
    model = Model()
    before = model.frozen.weight.clone()
    load_trained(model, config(WEIGHTS=whole), load)
    assert bool((model.head.weight == 1).all())
    assert torch.equal(model.frozen.weight, before)
    with pytest.raises(UserError, match=r"part.pth lack 2 of 6 learned weights, the first is head.weight; give the"):
        load_trained(Model(), config(WEIGHTS=part), load, "detector")
    model.frozen = Frozen(3, 3).requires_grad_(False)
    with pytest.raises(UserError, match=r"whole.pth lack 2 of 8 learned weights, the first is frozen.weight; give the"):
        load_trained(model, config(WEIGHTS=whole), load, "detector")
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS is empty; give the checkpoint of a trained detector"):
        load_trained(Model(), config(), load, "detector")
    with pytest.raises(
        UserError, match=r"package no_such is not installed; .*; give the checkpoint of a trained model"
    ):
        load_trained(Model(), config(WEIGHTS="package://no_such/a.pth"), load)
    with pytest.raises(UserError, match=r"absent.pth do not exist"):
        load_trained(Model(), config(WEIGHTS="absent.pth"), load)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_or_match_nothing_are_refused(tmp_path: Path, value: float) -> None:
    state = torch.load(saved(tmp_path / "diverged.pth", "frozen"), weights_only=True)
    state["model"]["head.weight"][0, 1] = value
    state["model"]["head.bias"].fill_(value)
    torch.save(state, tmp_path / "diverged.pth")
    with pytest.raises(
        UserError, match=r"hold NaN or infinity, the first in head.weight: their training diverged; give"
    ):
        load_trained(Model(), config(WEIGHTS=str(tmp_path / "diverged.pth")), load)
    torch.save({"model": {"other.weight": torch.ones(7)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth lack 6 of 6 learned weights"):
        load_trained(Model(), config(WEIGHTS=str(tmp_path / "other.pth")), load)


def test_random_weights_on_purpose(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = saved(tmp_path / "part.pth", "head")
    model = Model()
    head = model.head.weight.clone()
    load_trained(model, config(WEIGHTS=part, RANDOM_WEIGHTS=True), load)
    assert torch.equal(model.head.weight, head)
    assert bool((model.backbone.weight == 1).all())
    load_trained(model, config(RANDOM_WEIGHTS=True), load)
    assert [record.getMessage() for record in caplog.records if record.name == "pomp_engine.trained_weights"] == [
        f"MODEL.RANDOM_WEIGHTS: what {part} does not hold stays random",
        "MODEL.RANDOM_WEIGHTS: what no file does not hold stays random",
    ]


def test_a_prompt_of_its_own_file_need_not_be_in_the_checkpoint(tmp_path: Path) -> None:
    model = Model()
    model.prompt.read_from = "prompt.safetensors"
    before = model.prompt.weight.clone()
    load_trained(model, config(WEIGHTS=saved(tmp_path / "part.pth", "prompt")), load)
    assert torch.equal(model.prompt.weight, before)


def test_files_of_a_model(tmp_path: Path) -> None:
    """A run's folder stands for its configuration and its newest checkpoint."""
    run = tmp_path / "run"
    run.mkdir()
    config_file = run / "config.yaml"
    assert model_files("a.yaml") == (Path("a.yaml"), "")
    assert model_files("a.yaml", "b.pth") == (Path("a.yaml"), "b.pth")
    with pytest.raises(UserError, match=r"run is no run of a detector or segmenter: it has no config.yaml"):
        model_files(run)
    (run / "method.safetensors").touch()
    with pytest.raises(
        UserError, match=r"learned on photos, .*; score .*method.safetensors with tools/evaluate_prompt"
    ):
        model_files(run)
    (run / "prompt.safetensors").touch()
    with pytest.raises(UserError, match=r"prompt.safetensors with .*, or give it to a detector or segmenter as --prom"):
        model_files(run)
    config_file.touch()
    with pytest.raises(UserError, match="has no checkpoint yet"):
        model_files(run)
    assert model_files(run, "b.pth") == (config_file, "b.pth")
    (run / "model_final.pth").touch()  # a copied run without its last_checkpoint
    assert model_files(run) == (config_file, str(run / "model_final.pth"))
    (run / "last_checkpoint").write_text("model_0000099.pth\n")
    assert model_files(run) == (config_file, str(run / "model_0000099.pth"))
