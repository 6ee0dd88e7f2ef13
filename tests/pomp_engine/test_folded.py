"""Folded batch-norms give what the norms gave, and follow the module that they were folded from."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

pytest.importorskip("detectron2")

from pomp_engine.backbones.efficientnet_lite import FrozenNormAct, freeze_norms
from pomp_engine.backbones.folded import FoldedCopy, folded


@pytest.fixture(scope="module")
def tower() -> nn.Module:
    """A frozen EfficientNet of random weights and norms, in double precision."""
    torch.manual_seed(0)
    made: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=0, global_pool="")
    freeze_norms(made)
    for norm in (module for module in made.modules() if isinstance(module, FrozenNormAct)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(std=0.3)
    return made.eval().requires_grad_(False).double()


def features(module: nn.Module) -> torch.Tensor:
    photo = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result: torch.Tensor = module.forward_features(photo)  # type: ignore[operator]
    return result


def test_the_same_features_without_any_norm(tower: nn.Module) -> None:
    state = {key: value.clone() for key, value in tower.state_dict().items()}
    found = folded(tower)
    assert not [module for module in found.modules() if isinstance(module, FrozenNormAct)]
    assert float(features(tower).std()) > 1e-3
    torch.testing.assert_close(features(found), features(tower), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, state[key]) for key, value in tower.state_dict().items())


def test_the_copy_is_kept_until_the_module_changes(tower: nn.Module) -> None:
    tower, kept = copy.deepcopy(tower), FoldedCopy()
    with torch.inference_mode():
        first = kept(tower)
    assert kept(tower) is first
    tower.conv_stem.weight.mul_(2)  # type: ignore[union-attr, operator]
    second = kept(tower)
    assert second is not first
    tower.load_state_dict({key: value + 0.01 for key, value in tower.state_dict().items()})
    torch.testing.assert_close(features(kept(tower)), features(tower), rtol=1e-9, atol=1e-9)
    tower.to("meta")
    assert next(kept(tower).parameters()).device.type == "meta"
    assert copy.deepcopy(kept)(tower) is not kept(tower)
