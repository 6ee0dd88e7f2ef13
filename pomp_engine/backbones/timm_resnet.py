"""A ResNet of timm as bottom-up network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import Backbone
from torch import Tensor, nn

from prompt_core.errors import UserError, nearest


class TimmResNet(Backbone):
    """Stages of a timm ResNet; ``layer{l}`` has stride ``2 ** l``, so ``layer2`` is the network's first stage.

    State-dict names are the published ones, ``base.conv1.weight`` to ``base.layer4.…``. A published checkpoint also
    holds the unused ImageNet-21K classifier ``base.fc``, which is dropped on loading.
    """

    def __init__(
        self,
        name: str,
        out_levels: Sequence[int] = (3, 4, 5),
        norm: str = "FrozenBN",
        freeze_at: int = 0,
    ) -> None:
        """
        Args:
            name: a ResNet of timm; an ending ``_in21k`` is taken off, it names weights.
            norm: ``FrozenBN``, ``BN`` or ``SyncBN``.
            freeze_at: levels that do not train: 1 the stem, 2 the first stage too, …

        Raises:
            UserError: an unknown name, or a network that is not a ResNet.
        """
        super().__init__()
        known = timm.list_models("*resnet*")
        architecture = name.removesuffix("_in21k")
        if architecture not in known:
            raise UserError(f"MODEL.TIMM.BASE_NAME is {name!r}, no ResNet of timm{nearest(architecture, known)}")
        self.base: Any = timm.create_model(architecture, num_classes=0, global_pool="")
        if not all(hasattr(self.base, f"layer{stage}") for stage in (1, 2, 3, 4)):
            raise UserError(f"MODEL.TIMM.BASE_NAME is {name!r}; a network with stages layer1 to layer4 is expected")
        info: Any = self.base.feature_info
        channels = {level + 1: stage["num_chs"] for level, stage in enumerate(info)}
        if norm == "FrozenBN":
            self.base = FrozenBatchNorm2d.convert_frozen_batchnorm(self.base)
        elif norm == "SyncBN":
            self.base = nn.SyncBatchNorm.convert_sync_batchnorm(self.base)
        elif norm != "BN":
            raise UserError(f"MODEL.TIMM.NORM is {norm!r}; expected FrozenBN, BN or SyncBN")
        frozen = [self.base.conv1] if freeze_at >= 1 else []
        frozen += [getattr(self.base, f"layer{level - 1}") for level in range(2, min(freeze_at, 5) + 1)]
        for module in frozen:
            module.requires_grad_(False)
            FrozenBatchNorm2d.convert_frozen_batchnorm(module)
        if freeze_at >= 1:  # a bare norm is not converted in place
            self.base.bn1 = FrozenBatchNorm2d.convert_frozen_batchnorm(self.base.bn1)
        self._out_features = [f"layer{level}" for level in out_levels]
        self._out_feature_channels = {f"layer{level}": channels[level] for level in out_levels}
        self._out_feature_strides = {f"layer{level}": 2**level for level in out_levels}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features (B, C, H / 2**l, W / 2**l) of each output level l."""
        base, outputs = self.base, {}
        x = base.maxpool(base.act1(base.bn1(base.conv1(x))))
        for stage in (1, 2, 3, 4):
            x = getattr(base, f"layer{stage}")(x)
            if f"layer{stage + 1}" in self._out_features:
                outputs[f"layer{stage + 1}"] = x
        return outputs

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        for leaf in ("weight", "bias"):
            state_dict.pop(f"{prefix}base.fc.{leaf}", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
