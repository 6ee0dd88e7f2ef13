"""The image trunk: EfficientNet-Lite0, supervised on ImageNet-1K, prepared for CLIP's normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prompt_core.errors import UserError


@dataclass(frozen=True)
class Trunk:
    """A supervised network taken apart.

    Attributes:
        network: images (B, 3, S, S), normalised with CLIP's mean and deviation, to pooled features (B, 1280).
        weight: (1000, 1280) rows of its classifier.
        bias: (1000,) of its classifier.
        mean: (1280,) mean feature over the training photos.
    """

    network: Any
    weight: Tensor
    bias: Tensor
    mean: Tensor


def load_trunk(file: Path) -> Trunk:
    """Load the published state dict into timm's ``tf_efficientnet_lite0``.

    Raises:
        UserError: when the weights do not fit.
    """
    import timm
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    state = torch.load(file, map_location="cpu", weights_only=True)
    network: Any = timm.create_model("tf_efficientnet_lite0")
    if [value.shape for value in state.values()] != [value.shape for value in network.state_dict().values()]:
        raise UserError(f"{file} does not fit tf_efficientnet_lite0; delete it and run again")
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))  # same order, other names
    weight, bias = (parameter.detach().clone() for parameter in network.classifier.parameters())
    network.reset_classifier(0)
    # Inputs will be normalised with CLIP's mean and deviation instead of 0.5: the first convolution absorbs the
    # difference, so that any loader of open_clip models prepares photos correctly.
    gain = torch.tensor(OPENAI_DATASET_STD) / 0.5
    offset = (torch.tensor(OPENAI_DATASET_MEAN) - 0.5) / 0.5
    with torch.no_grad():
        network.bn1.running_mean -= (network.conv_stem.weight.sum((2, 3)) * offset).sum(1)
        network.conv_stem.weight *= gain[None, :, None, None]
    return Trunk(network.eval(), weight, bias, _mean_feature(network.bn2))


def _mean_feature(norm: Any) -> Tensor:
    """Mean of the last activation.

    The last batch-norm knows the distribution of its output on the training photos: Gaussian, then clipped at 0..6.
    """
    spread = torch.linspace(-4, 4, 401)
    density = torch.exp(-spread.square() / 2)
    values = (norm.weight.detach()[:, None] * spread + norm.bias.detach()[:, None]).clamp(0, 6)  # (1280, 401)
    return (values * density / density.sum()).sum(1)
