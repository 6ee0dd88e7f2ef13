"""EfficientNet-Lite0, the backbone of the small configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from prompt_core.errors import UserError, nearest


def add_backbone_config(cfg: CfgNode) -> None:
    """Add ``MODEL.EFFICIENTNET``, in place; the keys are this project's own."""
    cfg.MODEL.EFFICIENTNET = CfgNode()
    cfg.MODEL.EFFICIENTNET.NAME = "tf_efficientnet_lite0"  # an EfficientNet of timm
    cfg.MODEL.EFFICIENTNET.NORM = "FrozenBN"  # FrozenBN or BN
    cfg.MODEL.EFFICIENTNET.FREEZE_AT = 0  # levels that do not train: 1 the stem, 2 all up to stride 4, …


class FrozenNormAct(FrozenBatchNorm2d):
    """Detectron2's frozen batch-norm with timm's activation after it; timm's own is slower in inference."""

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
    """Stages of a timm EfficientNet; feature ``layer{l}`` has stride ``2 ** l``.

    EfficientNet-Lite (arXiv 1905.11946; no squeeze-and-excitation, ReLU6) is fast on CPUs.
    """

    def __init__(
        self,
        name: str = "tf_efficientnet_lite0",
        norm: str = "FrozenBN",
        freeze_at: int = 0,
        out_levels: Sequence[int] = (3, 4, 5),
    ) -> None:
        """
        Args:
            norm: ``FrozenBN`` or ``BN``.
            freeze_at: levels that do not train: 1 the stem, 2 all up to stride 4, …
            out_levels: levels of the features, from 1 to 5.

        Raises:
            UserError: an unknown name or norm.
        """
        super().__init__()
        known = timm.list_models("*efficientnet*")
        if name not in known:
            raise UserError(f"MODEL.EFFICIENTNET.NAME is {name!r}, no EfficientNet of timm{nearest(name, known)}")
        self.name = name
        self.base: Any = timm.create_model(name, features_only=True, out_indices=[level - 1 for level in out_levels])
        if norm == "FrozenBN":
            freeze_norms(self.base)
        elif norm != "BN":
            raise UserError(f"MODEL.EFFICIENTNET.NORM is {norm!r}; expected FrozenBN or BN")
        info: Any = self.base.feature_info
        self._out_features = [f"layer{level}" for level in out_levels]
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
        """Features (B, C, H / 2**l, W / 2**l) of each output level l."""
        return dict(zip(self._out_features, self.base(x), strict=True))

    def from_classifier(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """A classification network's weights under this backbone's names, or None for those of another network."""
        return backbone_weights(state, "", self.name)


def backbone_weights(
    state: Mapping[str, Tensor], place: str, name: str = "tf_efficientnet_lite0"
) -> dict[str, Tensor] | None:
    """A model's keys for the state dict of a classification EfficientNet, or None when it is something else.

    Published files hold timm's tensors in timm's order, under timm's or under other names.

    Args:
        place: name of the :class:`EfficientNetStages` inside the model, as ``backbone.bottom_up``; empty for itself.
    """
    with torch.device("meta"):
        network = timm.create_model(name).state_dict()
    shapes = [tuple(value.shape) for value in network.values()]
    if [tuple(value.shape) for value in state.values()] == shapes:
        translated = dict(zip(network, state.values(), strict=True))
    elif network.keys() <= state.keys():
        translated = {key: state[key] for key in network}
    else:
        return None
    unused = ("conv_head.", "bn2.", "classifier.")  # after the last stage
    prefix = f"{place}.base." if place else "base."
    return {prefix + key: value for key, value in translated.items() if not key.startswith(unused)}


@BACKBONE_REGISTRY.register()
def build_efficientnet_lite_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The bare stages of ``MODEL.EFFICIENTNET``: ``layer2`` to ``layer5``, of strides 4, 8, 16, 32."""
    node = cfg.MODEL.EFFICIENTNET
    return EfficientNetStages(node.NAME, node.NORM, node.FREEZE_AT, out_levels=(2, 3, 4, 5))
