"""Optimisers and schedules: rates, weight decay and clipping by the configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.config import CfgNode, get_cfg

from pomp_engine.config import add_engine_config, merge_config
from pomp_engine.solver import build_optimizer, build_scheduler, build_segmentation_optimizer, warm_up_warning
from prompt_core import UserError


def load_config(file: None, overrides: dict[str, Any]) -> CfgNode:
    cfg = get_cfg()
    add_engine_config(cfg)
    return merge_config(cfg, file, overrides)


def tiny_model() -> torch.nn.Module:
    return torch.nn.ModuleDict(
        {"backbone": torch.nn.Linear(2, 2), "norm": torch.nn.LayerNorm(2), "heads": torch.nn.Linear(2, 2, bias=False)}
    )


def test_learning_rates_by_name_and_decay_on_everything() -> None:
    cfg = load_config(
        None,
        {"SOLVER.USE_CUSTOM_SOLVER": True, "SOLVER.OPTIMIZER": "ADAMW", "SOLVER.BASE_LR": 0.1,
         "SOLVER.BACKBONE_MULTIPLIER": 0.5, "SOLVER.CUSTOM_MULTIPLIER": 3.0, "SOLVER.CUSTOM_MULTIPLIER_NAME": ["head"]},
    )  # fmt: skip
    model = tiny_model()
    optimizer = build_optimizer(cfg, model)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    learned = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert learned == pytest.approx(
        {"backbone.weight": 0.05, "backbone.bias": 0.05, "norm.weight": 0.1, "norm.bias": 0.1, "heads.weight": 0.3}
    )
    assert {group["weight_decay"] for group in optimizer.param_groups} == {cfg.SOLVER.WEIGHT_DECAY}
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    cfg.SOLVER.BETAS = (0.8, 0.95)
    assert build_optimizer(cfg, model).defaults["betas"] == (0.8, 0.95)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("value", [[0.5, -0.5], [0.1, 0.5]]), ("norm", [[0.3, -0.4], [0.05, 0.4975]]), ("full_model", None)],
)
def test_gradients_are_clipped(kind: str, expected: Any) -> None:
    cfg = load_config(
        None,
        {"SOLVER.USE_CUSTOM_SOLVER": True, "SOLVER.OPTIMIZER": "SGD", "SOLVER.BASE_LR": 1.0, "SOLVER.MOMENTUM": 0.0,
         "SOLVER.WEIGHT_DECAY": 0.0, "SOLVER.CLIP_GRADIENTS.ENABLED": True,
         "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": kind, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.5},
    )  # fmt: skip
    model = torch.nn.ParameterList([torch.zeros(2), torch.zeros(2)])
    optimizer = build_optimizer(cfg, model)
    gradients = [torch.tensor([3.0, -4.0]), torch.tensor([0.1, 0.995])]
    for parameter, gradient in zip(model, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()
    if expected is None:
        norm = torch.cat(gradients).norm()
        expected = [(gradient * 0.5 / norm).tolist() for gradient in gradients]
    for parameter, wanted in zip(model, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), -torch.tensor(wanted), atol=1e-4, rtol=1e-3)


def test_unknown_solver_names_are_reported() -> None:
    for key, value in (
        ("SOLVER.OPTIMIZER", "ADAM"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosine"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "valu"),
    ):
        cfg = load_config(None, {"SOLVER.USE_CUSTOM_SOLVER": True, key: value})
        for build in (build_optimizer, build_segmentation_optimizer):
            with pytest.raises(UserError, match=f"{key} is '{value}'"):
                build_scheduler(cfg, build(cfg, tiny_model()))


class Segmenter(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
        self.queries = torch.nn.Embedding(5, 4)
        self.norm = torch.nn.GroupNorm(2, 4)
        self.head = torch.nn.Linear(4, 4)
        self.shared = self.head
        self.frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)


def by_name(model: torch.nn.Module, optimizer: torch.optim.Optimizer, key: str) -> dict[str, float]:
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    return {name: groups[id(p)][key] for name, p in model.named_parameters() if id(p) in groups}


@pytest.mark.parametrize("name", ["SGD", "ADAMW"])
def test_rates_and_decay_of_a_segmenter(name: str) -> None:
    cfg = load_config(None, {"SOLVER.OPTIMIZER": name, "SOLVER.BASE_LR": 0.1, "SOLVER.BACKBONE_MULTIPLIER": 0.1,
                             "SOLVER.WEIGHT_DECAY": 0.02, "SOLVER.BETAS": (0.8, 0.95)})  # fmt: skip
    model = Segmenter()
    optimizer = build_segmentation_optimizer(cfg, model)
    names = ["backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias", "queries.weight",
             "norm.weight", "norm.bias", "head.weight", "head.bias"]  # fmt: skip
    rates, decay = by_name(model, optimizer, "lr"), by_name(model, optimizer, "weight_decay")
    assert rates == pytest.approx(dict(zip(names, [0.01] * 4 + [0.1] * 5, strict=True)))
    assert decay == dict(zip(names, [0.02, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02, 0.02], strict=True))
    if name == "SGD":
        assert type(optimizer) is torch.optim.SGD
        assert optimizer.defaults["momentum"] == cfg.SOLVER.MOMENTUM
    else:
        assert type(optimizer) is torch.optim.AdamW
        assert optimizer.defaults["betas"] == (0.8, 0.95)
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.3
    cfg.SOLVER.WEIGHT_DECAY_NORM = None
    decay = by_name(model, build_segmentation_optimizer(cfg, model), "weight_decay")
    assert {name: value for name, value in decay.items() if value != 0.02} == {"queries.weight": 0.3}


def test_gradients_of_a_segmenter_are_clipped_together() -> None:
    cfg = load_config(None, {"SOLVER.BASE_LR": 1.0, "SOLVER.MOMENTUM": 0.0, "SOLVER.WEIGHT_DECAY": 0.0,
                             "SOLVER.CLIP_GRADIENTS.ENABLED": True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
                             "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.01})  # fmt: skip
    model = torch.nn.ParameterList([torch.zeros(1), torch.zeros(1)])
    optimizer = build_segmentation_optimizer(cfg, model)
    for parameter, gradient in zip(model, (3.0, 4.0), strict=True):
        parameter.grad = torch.tensor([gradient])
    optimizer.step()
    assert [parameter.item() for parameter in model] == pytest.approx([-0.006, -0.008], rel=1e-4)


@pytest.mark.parametrize("keys", [{}, {"POLY_LR_POWER": 2.0, "POLY_LR_CONSTANT_ENDING": 0.3}])
def test_the_polynomial_schedule(keys: dict[str, float]) -> None:
    cfg = load_config(None, {"SOLVER.LR_SCHEDULER_NAME": "WarmupPolyLR", "SOLVER.BASE_LR": 0.5, "SOLVER.MAX_ITER": 10,
                             "SOLVER.WARMUP_ITERS": 0, "SOLVER.WARMUP_FACTOR": 1.0})  # fmt: skip
    cfg.SOLVER.update(keys)
    optimizer = build_optimizer(cfg, tiny_model())
    scheduler = build_scheduler(cfg, optimizer)
    power, ending = keys.get("POLY_LR_POWER", 0.9), keys.get("POLY_LR_CONSTANT_ENDING", 0.0)
    for iteration in range(10):
        expected = max((1 - iteration / 10) ** power, ending)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * expected)
        optimizer.step()
        scheduler.step()
    assert "POLY_LR_POWER" in cfg.SOLVER or not keys  # the caller's configuration gets no keys


@pytest.mark.parametrize("schedule", ["WarmupCosineLR", "WarmupPolyLR", "WarmupMultiStepLR"])
def test_a_run_that_ends_within_its_warm_up_is_warned_of(schedule: str) -> None:
    short = {"SOLVER.LR_SCHEDULER_NAME": schedule, "SOLVER.MAX_ITER": 20, "SOLVER.WARMUP_ITERS": 1000,
             "SOLVER.BASE_LR": 0.02, "SOLVER.STEPS": ()}  # fmt: skip
    cfg = load_config(None, short)
    assert warm_up_warning(cfg) == (
        "SOLVER.MAX_ITER is 20 and SOLVER.WARMUP_ITERS 1000: the whole run is warm-up and never learns at "
        "SOLVER.BASE_LR 0.02; set SOLVER.WARMUP_ITERS below 20"
    )
    optimizer = build_optimizer(cfg, tiny_model())
    scheduler = build_scheduler(cfg, optimizer)
    for _ in range(20):
        assert optimizer.param_groups[0]["lr"] < 0.0199
        optimizer.step()
        scheduler.step()
    for changed in ({"SOLVER.WARMUP_ITERS": 19}, {"SOLVER.MAX_ITER": 1001}, {"SOLVER.WARMUP_FACTOR": 1.0}):
        assert warm_up_warning(load_config(None, short | changed)) == ""
    assert warm_up_warning(load_config(None, short | {"SOLVER.WARMUP_ITERS": 20})) != ""
