"""Class scores and box shifts of one stage, and their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from pomp_det.heads.class_counts import ClassCounts
from pomp_det.heads.class_hierarchy import ClassHierarchy
from pomp_det.heads.class_losses import ClassChoice, sigmoid_loss, without_held_out
from pomp_det.heads.fused_scores import ClassProbabilities
from pomp_det.heads.image_labels import ImageLabelOptions, image_label_loss
from pomp_det.heads.inference import (
    ROUNDING,
    ScoreOptions,
    StageScores,
    fast_detections,
    mixed_scores,
    reference_detections,
)
from pomp_det.heads.predictor_options import predictor_options
from pomp_det.heads.sampled_classes import SampledClasses
from pomp_det.heads.zero_shot import ZeroShotClassifier
from prompt_core.errors import UserError


class DeticFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Detectron2's output layers with a zero-shot classifier, federated and image-label losses, and score mixing.

    Source: Detic, arXiv 2201.02605. State-dict names are the published ones: ``cls_score.linear``,
    ``cls_score.zs_weight``, ``bbox_pred.0``, ``bbox_pred.2`` and ``freq_weight``.
    """

    cls_score: Any
    bbox_pred: Any
    freq_weight: Tensor

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        classifier: nn.Module | None = None,
        prior_probability: float = 0.01,
        scoring: ScoreOptions | None = None,
        class_choice: ClassChoice | None = None,
        class_counts: ClassCounts | None = None,
        class_hierarchy: ClassHierarchy | None = None,
        image_labels: ImageLabelOptions | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            classifier: maps region features (R, D) to logits (R, C + 1); None for a learned linear layer.
            prior_probability: that the learned layer's sigmoid starts from.
            scoring: how detections are scored.
            class_choice: which classes take part in the box loss.
            class_counts: of the C classes, for a ``class_choice`` that needs them.
            class_hierarchy: of the C classes, for the sigmoid loss.
            image_labels: the loss of image labels.
            options: of Detectron2's ``FastRCNNOutputLayers``.
        """
        # The parent would allocate a linear layer of all classes, and its federated loss names the counts otherwise.
        super().__init__(input_shape, num_classes=1, use_fed_loss=False, **options)
        self.num_classes = num_classes
        size = self.cls_score.in_features
        if classifier is None:
            self.cls_score = nn.Linear(size, num_classes + 1)
            nn.init.normal_(self.cls_score.weight, std=0.01)
            start = -math.log((1 - prior_probability) / prior_probability) if self.use_sigmoid_ce else 0.0
            nn.init.constant_(self.cls_score.bias, start)
        else:
            self.cls_score = classifier
        if options.get("cls_agnostic_bbox_reg"):
            self.bbox_pred = nn.Sequential(nn.Linear(size, size), nn.ReLU(inplace=True), nn.Linear(size, 4))
            weight_init.c2_xavier_fill(self.bbox_pred[0])
            nn.init.normal_(self.bbox_pred[2].weight, std=0.001)
            nn.init.constant_(self.bbox_pred[2].bias, 0)
        else:
            self.bbox_pred = nn.Linear(size, 4 * num_classes)
            nn.init.normal_(self.bbox_pred.weight, std=0.001)
            nn.init.constant_(self.bbox_pred.bias, 0)
        self.scoring = scoring or ScoreOptions()
        self.class_choice = class_choice or ClassChoice()
        self.image_labels = image_labels or ImageLabelOptions()
        counts = class_counts or ClassCounts(torch.zeros(num_classes))
        self._counts_missing = counts.missing
        if self.class_choice.by_counts:
            self.register_buffer("freq_weight", counts.weights)
        self.register_buffer("held_out", counts.held_out, persistent=False)
        self.class_hierarchy = class_hierarchy

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return predictor_options(cfg, input_shape)

    def forward(
        self, x: Tensor, classifier: Tensor | None = None, sampled: SampledClasses | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (R, C + 1) and box shifts (R, 4) of region features (R, …).

        Args:
            classifier: see :meth:`pomp_det.heads.zero_shot.ZeroShotClassifier.forward`.
            sampled: the only S classes to score; logits are (R, S + 1).
        """
        x = x.flatten(start_dim=1)
        if sampled is not None:
            return self.cls_score(x, classes=sampled.ids), self.bbox_pred(x)
        logits = self.cls_score(x) if classifier is None else self.cls_score(x, classifier)
        return logits, self.bbox_pred(x)

    def embed(self, x: Tensor) -> Tensor:
        """Unit-norm embeddings (R, E) of region features (R, …), in the space of a zero-shot classifier's classes."""
        embeddings: Tensor = self.cls_score.embed(x.flatten(start_dim=1))
        return embeddings

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances], sampled: SampledClasses | None = None
    ) -> dict[str, Tensor]:
        """Detectron2's losses of labelled proposals, with held-out classes kept out of its softmax.

        Args:
            sampled: the only classes that ``predictions`` are of.
        """
        if sampled is not None:
            few = copy(self)  # shares all parameters; a predictor that has only these classes, all of which count
            few.num_classes, few.class_choice = len(sampled.ids), ClassChoice()
            return few.losses(predictions, sampled.proposals(proposals))
        logits, shifts = predictions
        if not self.use_sigmoid_ce and self.class_choice.hold_out:
            held_out = self.class_counts.held_out_of(logits.shape[1] - 1)
            logits = without_held_out(logits, torch.cat([image.gt_classes for image in proposals]), held_out)
        losses: dict[str, Tensor] = super().losses((logits, shifts), proposals)
        return losses

    def sigmoid_cross_entropy_loss(self, pred_class_logits: Tensor, gt_classes: Tensor) -> Tensor:
        """Binary cross-entropy over the classes that take part; called by the parent's ``losses``.

        Raises:
            UserError: counts or a hierarchy that it needs and that are not known.
        """
        hierarchy = self.class_hierarchy
        if hierarchy is not None and (reason := hierarchy.missing_for(pred_class_logits.shape[1] - 1)):
            raise UserError(f"this loss needs the hierarchy of the classes: {reason}")
        classes = self.class_choice.classes(gt_classes, self.num_classes, self.class_counts, hierarchy)
        return sigmoid_loss(pred_class_logits, gt_classes, classes, hierarchy)

    def image_label_losses(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances], labels: Sequence[Sequence[int]]
    ) -> dict[str, Tensor]:
        """``image_loss`` of image-labelled images; the box losses are there and zero.

        All processes must log and reduce the same keys, whichever kind of batch they drew.

        Args:
            predictions: what :meth:`forward` gave for the proposals.
            labels: class ids of each image.
        """
        logits, shifts = predictions
        areas = [image.proposal_boxes.area() for image in proposals]
        per_image = logits.split([len(image) for image in proposals])
        options = self.image_labels
        loss, _ = image_label_loss(per_image, areas, labels, options.kind, options.skip_last, options.softmax)
        zero = logits.sum() * 0 + shifts.sum() * 0
        return {"image_loss": options.weight * loss, "loss_cls": zero, "loss_box_reg": zero}

    @property
    def scores_fast(self) -> bool:
        """Whether this predictor's classes can be scored without a table of all regions and classes."""
        zero_shot = isinstance(self.cls_score, ZeroShotClassifier)
        return self.scoring.fast and zero_shot and self.use_sigmoid_ce and not self.scoring.one_class_per_proposal

    @property
    def gives_factors(self) -> bool:
        """Whether :meth:`stage_scores` is what detections are made from, and not a table of logits."""
        return self.scores_fast or getattr(self.cls_score, "other_names", None) is not None

    def stage_scores(self, x: Tensor) -> tuple[StageScores, Tensor]:
        """The factors of the logits of region features (R, …), and the box shifts (R, 4)."""
        x = x.flatten(start_dim=1)
        classifier = self.cls_score
        factors = classifier.project(x), classifier.columns(), classifier.cls_bias
        return StageScores(*factors, classifier.shares(x)), self.bbox_pred(x)

    def inference(
        self, predictions: tuple[Any, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Detections of each image and the proposal of each detection.

        Args:
            predictions: of :meth:`forward`, or of :meth:`stage_scores`.
        """
        boxes = self.predict_boxes(predictions, proposals)
        return self.detect([predictions[0]], boxes, proposals)

    def promising(self, proposals: list[Instances]) -> list[Instances]:
        """The proposals that can become detections: where scores are mixed, a class's is at most ``sqrt(1 * o)``."""
        if not self.scoring.multiply_proposal_score or self.test_score_thresh <= 0:
            return proposals
        least = (1 - ROUNDING) * self.test_score_thresh**2
        return [image[(image.objectness_logits >= least).nonzero().squeeze(1)] for image in proposals]

    def detect(
        self,
        stages: Sequence[Any],
        boxes: Sequence[Tensor],
        proposals: Sequence[Instances],
        nms_threshold: float | None = None,
    ) -> tuple[list[Instances], list[Tensor]]:
        """Detections from the class scores of one or several stages.

        Args:
            stages: of each stage, of all images together, :class:`StageScores`, :class:`ClassProbabilities` or
                logits (R, C + 1).
            boxes: (R_i, 4) of each image.
            proposals: the first stage's, with ``objectness_logits`` where their scores are mixed in.
            nms_threshold: in place of the configured one; above 1 for no suppression.
        """
        sizes = [len(image_boxes) for image_boxes in boxes]
        overlap = self.test_nms_thresh if nms_threshold is None else nms_threshold
        limits = (self.test_score_thresh, overlap, self.test_topk_per_image)
        mixed = self.scoring.multiply_proposal_score
        objectness = [image.objectness_logits if mixed else None for image in proposals]
        detected = []
        if isinstance(stages[0], StageScores) and self.scores_fast:
            parts = [stage.split(sizes) for stage in stages]
            for image, image_boxes in enumerate(boxes):
                image_stages = [part[image] for part in parts]
                size = proposals[image].image_size
                detected.append(fast_detections(image_stages, objectness[image], image_boxes, size, *limits))
        else:
            probabilities = [self._probabilities(stage, proposals) for stage in stages]
            one_class = self.scoring.one_class_per_proposal
            for image, image_boxes in enumerate(boxes):
                proposal_scores = objectness[image]
                column = None if proposal_scores is None else proposal_scores[:, None]
                scores = mixed_scores([stage[image] for stage in probabilities], column)
                size = proposals[image].image_size
                detected.append(reference_detections(scores, image_boxes, size, *limits, one_class))
        return [instances for instances, _ in detected], [kept for _, kept in detected]

    def _probabilities(
        self, stage: StageScores | ClassProbabilities | Tensor, proposals: Sequence[Instances]
    ) -> Sequence[Tensor]:
        """(R_i, C + 1) of each image, times own shares where there are any."""
        if isinstance(stage, ClassProbabilities):
            return stage.table.split([len(image) for image in proposals])
        logits = stage.logits() if isinstance(stage, StageScores) else stage
        probabilities: Sequence[Tensor] = self.predict_probs((logits, logits), list(proposals))
        if isinstance(stage, Tensor) or stage.shares is None:
            return probabilities
        shares = stage.shares.split([len(image) for image in probabilities])
        columns = [F.pad(of_image.table(), (0, 1), value=1.0) for of_image in shares]  # the background keeps its own
        return [image * column for image, column in zip(probabilities, columns, strict=True)]

    @property
    def class_counts(self) -> ClassCounts:
        """The class data of the box loss; to be set together when the classes change."""
        return ClassCounts(getattr(self, "freq_weight", None), self.held_out, self._counts_missing)

    @class_counts.setter
    def class_counts(self, counts: ClassCounts) -> None:
        if counts.weights is not None:
            self.freq_weight = counts.weights
        self.held_out, self._counts_missing = counts.held_out, counts.missing

    @property
    def missing_hierarchy(self) -> str:
        """Why the hierarchy that the box loss needs is unknown; empty where nothing is missing."""
        return "" if self.class_hierarchy is None else self.class_hierarchy.missing_for(self.num_classes)

    @property
    def missing_counts(self) -> str:
        """Why counts or frequencies that the box loss needs are unknown; empty where nothing is missing."""
        needed = self.class_choice.by_counts or self.class_choice.hold_out
        return self.class_counts.missing if needed else ""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        stored, counts = state_dict.get(f"{prefix}freq_weight"), self.class_counts
        if stored is not None and counts.weights is None:
            state_dict.pop(f"{prefix}freq_weight")  # a checkpoint of a federated run, loaded without that loss
        elif stored is not None and not bool(stored.any()):
            state_dict[f"{prefix}freq_weight"] = counts.weights  # saved by a detector that had no counts
        elif stored is not None and stored.shape == self.freq_weight.shape and not self.class_choice.hold_out:
            self.class_counts = replace(counts, missing="")
        super()._load_from_state_dict(state_dict, prefix, *arguments)
