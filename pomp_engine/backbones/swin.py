"""Swin transformers as bottom-up network."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, SwinTransformer
from torch import Tensor

from pomp_engine.backbones.pyramid import pyramid
from prompt_core.errors import UserError

# Width, depths, heads and stochastic depth of the sizes that Detic's files name (arXiv 2103.14030).
SIZES: dict[str, dict[str, Any]] = {
    "T": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.2},
    "S": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.2},
    "B": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.3},
    "L": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "drop_path_rate": 0.3},
}
SIZES |= {f"{size}-22k": SIZES[size] for size in ("B", "L")}
SIZES |= {f"{size}-22k-384": SIZES[size] | {"window_size": 12} for size in ("B", "L")}


class SwinStages(SwinTransformer):
    """Detectron2's Swin transformer with features ``swin0`` … ``swin3`` of strides 4, 8, 16, 32.

    Detectron2's module came from the same source as Detic's, so its state-dict names are the published ones.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._out_features = [f"swin{stage}" for stage in self.out_indices]
        self._out_feature_channels = {f"swin{stage}": self.embed_dim * 2**stage for stage in self.out_indices}
        self._out_feature_strides = {f"swin{stage}": 2 ** (stage + 2) for stage in self.out_indices}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features (B, C, H / s, W / s) of each output stage."""
        return {name.replace("p", "swin"): feature for name, feature in super().forward(x).items()}


@BACKBONE_REGISTRY.register()
def build_swintransformer_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A Swin transformer without a pyramid.

    Raises:
        UserError: an unknown ``MODEL.SWIN.SIZE``.
    """
    node = cfg.MODEL.SWIN
    if node.SIZE not in SIZES:
        raise UserError(f"MODEL.SWIN.SIZE is {node.SIZE!r}; expected one of {', '.join(SIZES)}")
    return SwinStages(**SIZES[node.SIZE], out_indices=tuple(node.OUT_FEATURES), use_checkpoint=node.USE_CHECKPOINT)


@BACKBONE_REGISTRY.register()
def build_swintransformer_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A Swin transformer with P3 to P7."""
    return pyramid(cfg, build_swintransformer_backbone(cfg, input_shape))
