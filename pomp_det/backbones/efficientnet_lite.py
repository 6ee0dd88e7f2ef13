"""EfficientNet-Lite0 as bottom-up network of the small configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from pomp_det.backbones.pyramid import pyramid
from prompt_core.errors import UserError, nearest


class FrozenNormAct(FrozenBatchNorm2d):
    """Detectron2's frozen batch-norm with timm's activation behind it; timm's own is slower in inference."""

    def __init__(self, norm: BatchNormAct2d) -> None:
        super().__init__(norm.num_features, norm.eps)
        self.load_state_dict({key: value for key, value in norm.state_dict().items() if key != "num_batches_tracked"})
        self.act = norm.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def freeze_norms(module: nn.Module) -> None:
    """Replace every batch-norm of timm inside ``module`` by a frozen one, in place."""
    for name, child in module.named_children():
        if isinstance(child, BatchNormAct2d):
            setattr(module, name, FrozenNormAct(child))
        else:
            freeze_norms(child)


class EfficientNetStages(Backbone):
    """Stages of a timm EfficientNet with features ``layer3``, ``layer4``, ``layer5`` of strides 8, 16, 32.

    EfficientNet-Lite (arXiv 1905.11946; no squeeze-and-excitation, ReLU6) is fast on CPUs.
    """

    def __init__(self, name: str = "tf_efficientnet_lite0", norm: str = "FrozenBN", freeze_at: int = 0) -> None:
        """
        Args:
            norm: ``FrozenBN`` or ``BN``.
            freeze_at: levels that do not train: 1 the stem, 2 all of stride up to 4, …

        Raises:
            UserError: an unknown name or norm.
        """
        super().__init__()
        known = timm.list_models("*efficientnet*")
        if name not in known:
            raise UserError(f"MODEL.EFFICIENTNET.NAME is {name!r}, no EfficientNet of timm{nearest(name, known)}")
        self.base: Any = timm.create_model(name, features_only=True, out_indices=(2, 3, 4))
        if norm == "FrozenBN":
            freeze_norms(self.base)
        elif norm != "BN":
            raise UserError(f"MODEL.EFFICIENTNET.NORM is {norm!r}; expected FrozenBN or BN")
        info: Any = self.base.feature_info
        self._out_features = ["layer3", "layer4", "layer5"]
        self._out_feature_channels = dict(zip(self._out_features, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(self._out_features, info.reduction(), strict=True))
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        if freeze_at < 1:
            return
        stride = 2
        frozen = nn.ModuleDict({"conv": self.base.conv_stem, "norm": self.base.bn1})
        for number, stage in enumerate(self.base.blocks):
            stride *= next(layer for layer in stage.modules() if getattr(layer, "groups", 1) > 1).stride[0]
            if stride > 2**freeze_at:
                break
            frozen[str(number)] = stage
        frozen.requires_grad_(False)
        freeze_norms(frozen)
        self.base.bn1 = frozen["norm"]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features (B, C, H / s, W / s) of strides s = 8, 16, 32."""
        return dict(zip(self._out_features, self.base(x), strict=True))


def backbone_weights(state: Mapping[str, Tensor], name: str = "tf_efficientnet_lite0") -> dict[str, Tensor] | None:
    """Detector keys for the state dict of a classification EfficientNet, or None when it is something else.

    Published files hold timm's tensors in timm's order, under timm's or under other names.
    """
    with torch.device("meta"):
        network = timm.create_model(name).state_dict()
    shapes = [tuple(value.shape) for value in network.values()]
    if [tuple(value.shape) for value in state.values()] == shapes:
        found = dict(zip(network, state.values(), strict=True))
    elif network.keys() <= state.keys():
        found = {key: state[key] for key in network}
    else:
        return None
    unused = ("conv_head.", "bn2.", "classifier.")  # behind the last stage
    return {f"backbone.bottom_up.base.{key}": value for key, value in found.items() if not key.startswith(unused)}


@BACKBONE_REGISTRY.register()
def build_p67_efficientnet_lite_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """EfficientNet-Lite0 with P3 to P7; its width is ``MODEL.FPN.OUT_CHANNELS``."""
    node = cfg.MODEL.EFFICIENTNET
    return pyramid(cfg, EfficientNetStages(node.NAME, node.NORM, node.FREEZE_AT))
