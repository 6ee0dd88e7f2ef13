"""ViLD-ensemble: a head for the base classes and one that learns from CLIP, apart (arXiv 2104.13921, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads.box_head import build_box_head
from detectron2.structures import Instances
from torch import Tensor, nn

from pomp_det.heads.cascade import DeticCascadeROIHeads
from pomp_det.heads.fused_scores import ClassProbabilities
from pomp_det.heads.inference import StageScores
from pomp_det.heads.zero_shot import ZeroShotClassifier
from pomp_engine.geometric_ensemble import geometric_ensemble
from prompt_core.errors import UserError


def fused_probabilities(
    text_logits: Tensor, image_logits: Tensor, base: Tensor | None, weight: float = 2 / 3
) -> Tensor:
    """Probabilities (R, C + 1) of the two heads together; those of a region need not add up to 1.

    A base class gets ``text ** w * image ** (1 - w)``, a novel one ``text ** (1 - w) * image ** w``: equation 5 of the
    paper, and the cube root of the published code (``ops/postprocess_ops.py``), with w = 2/3. The text head's softmax
    includes its background, the image head has none.

    Args:
        text_logits: (R, C + 1), the background last.
        image_logits: (R, C).
        base: (C,) bool; None treats all classes as novel.
        weight: w.
    """
    text, image = text_logits.softmax(dim=1), image_logits.softmax(dim=1)
    return torch.cat((geometric_ensemble(text[:, :-1], image, base, weight), text[:, -1:]), dim=1)


@ROI_HEADS_REGISTRY.register()
class ViLDEnsembleROIHeads(DeticCascadeROIHeads):
    """The cascade whose stages have a second box head that learns CLIP's embeddings of image regions alone.

    The first head (ViLD-text) learns classes and boxes as always; the distillation pulls the second one (ViLD-image),
    and nothing else does. Their class probabilities are joined by :func:`fused_probabilities`: base classes are those
    that ``HELD_OUT_FREQUENCIES`` leaves; of other vocabularies all classes count as novel.
    """

    @configurable
    def __init__(
        self,
        *,
        image_heads: Sequence[nn.Module],
        image_projections: Sequence[nn.Module],
        ensemble_weight: float = 2 / 3,
        **options: Any,
    ) -> None:
        """
        Args:
            image_heads: of each stage, like its box head.
            image_projections: of each stage, from its image head's features (R, D) to the classes' space (R, E).
            ensemble_weight: of the text head on base classes, and of the image head on novel ones.
            options: of :class:`DeticCascadeROIHeads`.
        """
        super().__init__(**options)
        self.image_heads = nn.ModuleList(image_heads)
        self.image_projections = nn.ModuleList(image_projections)
        self.ensemble_weight = ensemble_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.ROI_BOX_HEAD
        if not node.LEARNED_BACKGROUND or not node.NORM_WEIGHT:
            raise UserError(
                "ViLDEnsembleROIHeads has a softmax over classes and a learned background; set MODEL.ROI_BOX_HEAD."
                "LEARNED_BACKGROUND and NORM_WEIGHT to True, and USE_SIGMOID_CE to False"
            )
        size = node.POOLER_RESOLUTION
        channels = input_shape[cfg.MODEL.ROI_HEADS.IN_FEATURES[0]].channels
        shape = ShapeSpec(channels=channels, width=size, height=size)
        heads = [build_box_head(cfg, shape) for _ in cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS]
        options = super().from_config(cfg, input_shape)
        return options | {
            "image_heads": heads,
            "image_projections": [nn.Linear(head.output_shape.channels, node.ZEROSHOT_WEIGHT_DIM) for head in heads],
            "ensemble_weight": node.ENSEMBLE_WEIGHT,
        }

    def region_embeddings(self, features: dict[str, Tensor], regions: list[Instances]) -> dict[str, Tensor]:
        pooled = self.pooled([features[name] for name in self.box_in_features], regions)
        return {f"_stage{stage}": self._embedded(pooled, stage) for stage in range(self.num_cascade_stages)}

    def stage_scores(
        self, features: Sequence[Tensor], proposals: list[Instances], stage: int
    ) -> tuple[StageScores | ClassProbabilities | Tensor, Tensor]:
        predictor = self.box_predictor[stage]
        classifier: ZeroShotClassifier = predictor.cls_score
        pooled = self.pooled(features, proposals)
        box_features = self.box_head[stage](pooled)
        logits, shifts = predictor(box_features)
        image = classifier.temperature * self._embedded(pooled, stage) @ classifier.zs_weight[:, :-1]
        held_out = predictor.class_counts.held_out
        base = None if held_out is None or len(held_out) != image.shape[1] else ~held_out
        table = fused_probabilities(logits, image, base, self.ensemble_weight)
        shares = classifier.shares(box_features)
        if shares is not None:
            table = table * F.pad(shares.table(), (0, 1), value=1.0)
        return ClassProbabilities(table), shifts

    def _embedded(self, pooled: Tensor, stage: int) -> Tensor:
        """Unit-norm embeddings (R, E) of a stage's image head."""
        return F.normalize(self.image_projections[stage](self.image_heads[stage](pooled)), dim=1)
