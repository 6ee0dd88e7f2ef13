"""The segmentation heads that published files name: ``MaskFormerHead`` and ``ZeroShotMaskFormerHead``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from pomp_seg.heads.pixel_decoder import PixelDecoder, rename_old_keys
from pomp_seg.heads.predictor import MaskProposalPredictor, MultilayerPerceptron, Proposals
from pomp_seg.heads.transformer import Transformer
from prompt_core.errors import UserError, nearest


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
    """Pixel decoder and mask proposals, with logits of ``NUM_CLASSES`` classes and "no object"."""

    def __init__(self, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> None:
        """
        Raises:
            UserError: features that the backbone lacks.
        """
        super().__init__()
        _check(cfg, input_shape)
        node, former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        self.num_classes, self.ignore_value = int(node.NUM_CLASSES), int(node.IGNORE_VALUE)
        used = {name: input_shape[name] for name in node.IN_FEATURES}
        self.transformer_in_feature = former.TRANSFORMER_IN_FEATURE
        self.pixel_decoder = PixelDecoder(used, node.CONVS_DIM, node.MASK_DIM, node.NORM)
        self.predictor = MaskProposalPredictor(
            input_shape[self.transformer_in_feature].channels or 0,
            self.class_head(cfg),
            node.MASK_DIM,
            former.NUM_OBJECT_QUERIES,
            Transformer(
                former.DEC_LAYERS,
                former.HIDDEN_DIM,
                former.NHEADS,
                former.DIM_FEEDFORWARD,
                former.DROPOUT,
                former.PRE_NORM,
            ),
            former.HIDDEN_DIM,
            former.DEEP_SUPERVISION,
            former.ENFORCE_INPUT_PROJ,
        )
        self._register_load_state_dict_pre_hook(rename_old_keys)

    @staticmethod
    def class_head(cfg: CfgNode) -> nn.Module:
        """The layer that turns a query into class logits."""
        return nn.Linear(cfg.MODEL.MASK_FORMER.HIDDEN_DIM, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES + 1)

    def forward(self, features: Mapping[str, Tensor]) -> list[Proposals]:
        """Mask proposals after each supervised decoder layer, the last one last."""
        return self.predictor(features[self.transformer_in_feature], self.pixel_decoder(features))


@SEM_SEG_HEADS_REGISTRY.register()
class ZeroShotMaskFormerHead(MaskFormerHead):
    """The same with a class embedding in the space of CLIP's text features (ZSSeg, arXiv 2112.14757, section 4).

    Attributes:
        embedding_dim: E, the width of the class embeddings.
    """

    def __init__(self, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> None:
        super().__init__(cfg, input_shape)
        self.embedding_dim = int(cfg.MODEL.SEM_SEG_HEAD.EMBEDDING_DIM)

    @staticmethod
    def class_head(cfg: CfgNode) -> nn.Module:
        """The perceptron that turns a query into a class embedding."""
        node = cfg.MODEL.SEM_SEG_HEAD
        return MultilayerPerceptron(
            cfg.MODEL.MASK_FORMER.HIDDEN_DIM, node.EMBED_HIDDEN_DIM, node.EMBEDDING_DIM, node.EMBED_LAYERS
        )


def _check(cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> None:
    node, former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    wanted: list[Any] = [*node.IN_FEATURES, former.TRANSFORMER_IN_FEATURE]
    for name in wanted:
        if name not in input_shape:
            raise UserError(
                f"the backbone {cfg.MODEL.BACKBONE.NAME} has no feature {name!r}{nearest(str(name), input_shape)}; "
                f"expected some of {', '.join(input_shape)} in SEM_SEG_HEAD.IN_FEATURES and TRANSFORMER_IN_FEATURE"
            )
