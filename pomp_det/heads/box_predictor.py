"""Class scores and box shifts of one stage, and their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import Tensor, nn

from pomp_det.heads.class_losses import federated_classes, sigmoid_loss, without_held_out
from pomp_det.heads.image_labels import image_label_loss
from pomp_det.heads.inference import StageScores, fast_detections, mixed_scores, reference_detections
from pomp_det.heads.predictor_options import predictor_options
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
        multiply_proposal_score: bool = False,
        one_class_per_proposal: bool = False,
        class_counts: Tensor | None = None,
        counts_problem: str = "",
        count_power: float = 0.5,
        held_out: Tensor | None = None,
        needs_frequencies: bool = False,
        ignore_zero_classes: bool = False,
        use_fed_loss: bool = False,
        fed_loss_num_classes: int = 50,
        image_label_kind: str = "",
        image_loss_weight: float = 0.1,
        skip_last: bool = True,
        fast: bool = True,
        **options: Any,
    ) -> None:
        """
        Args:
            classifier: maps region features (R, D) to logits (R, C + 1); None for a learned linear layer.
            multiply_proposal_score: a score is the geometric mean of class probability and proposal score.
            class_counts: (C,) training images of each class; needed by ``use_fed_loss`` and ``ignore_zero_classes``.
            counts_problem: why the counts are not there; raised when a loss needs them.
            held_out: (C,) true for classes that take no part in the box loss.
            needs_frequencies: ``held_out`` was asked for, so that the box loss cannot do without the counts, and a
                checkpoint's alone do not mend ``counts_problem``.
            image_label_kind: a key of :data:`pomp_det.heads.image_labels.CHOICES`, or empty.
            skip_last: see :func:`pomp_det.heads.image_labels.image_label_loss`.
            fast: score only what can pass.
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
        self.multiply_proposal_score = multiply_proposal_score
        self.one_class_per_proposal = one_class_per_proposal
        self.use_fed_loss = use_fed_loss
        self.ignore_zero_classes = ignore_zero_classes
        self.fed_loss_num_classes = fed_loss_num_classes
        self.counts_problem = counts_problem
        self.needs_frequencies = needs_frequencies
        if use_fed_loss or ignore_zero_classes:
            counts = torch.zeros(num_classes) if class_counts is None else class_counts
            self.register_buffer("freq_weight", counts.float().pow(count_power))
        self.register_buffer("held_out", held_out, persistent=False)
        self.image_label_kind = image_label_kind
        self.image_loss_weight = image_loss_weight
        self.skip_last = skip_last
        self.fast = fast

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return predictor_options(cfg, input_shape)

    def forward(self, x: Tensor, classifier: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (R, C + 1) and box shifts (R, 4) of region features (R, …).

        Args:
            classifier: see :meth:`pomp_det.heads.zero_shot.ZeroShotClassifier.forward`.
        """
        x = x.flatten(start_dim=1)
        logits = self.cls_score(x) if classifier is None else self.cls_score(x, classifier)
        return logits, self.bbox_pred(x)

    def embed(self, x: Tensor) -> Tensor:
        """Unit-norm embeddings (R, E) of region features (R, …), in the space of a zero-shot classifier's classes."""
        embeddings: Tensor = self.cls_score.embed(x.flatten(start_dim=1))
        return embeddings

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> dict[str, Tensor]:
        """Detectron2's losses of labelled proposals, with held-out classes kept out of its softmax."""
        logits, shifts = predictions
        if not self.use_sigmoid_ce and self.needs_frequencies:
            held_out = self._held_out_classes(logits.shape[1] - 1)
            logits = without_held_out(logits, torch.cat([each.gt_classes for each in proposals]), held_out)
        losses: dict[str, Tensor] = super().losses((logits, shifts), proposals)
        return losses

    def _held_out_classes(self, num_classes: int) -> Tensor:
        """(C,) true for the classes that the box loss was asked to leave out."""
        held_out = self.held_out
        if self.counts_problem:
            raise UserError(f"held-out classes need the frequency of each class: {self.counts_problem}")
        if held_out is None or len(held_out) != num_classes:
            count = 0 if held_out is None else len(held_out)
            raise UserError(f"held-out classes are known among {count} classes, the detector has {num_classes} now")
        return held_out

    def sigmoid_cross_entropy_loss(self, pred_class_logits: Tensor, gt_classes: Tensor) -> Tensor:
        """Binary cross-entropy over the classes that take part; called by the parent's ``losses``."""
        return sigmoid_loss(pred_class_logits, gt_classes, self._loss_classes(gt_classes))

    def _loss_classes(self, gt_classes: Tensor) -> Tensor | None:
        """Ids of the classes of the box loss; None for all."""
        if not (self.use_fed_loss or self.ignore_zero_classes):
            if not self.needs_frequencies:
                return None
            return (~self._held_out_classes(self.num_classes)).nonzero().squeeze(1)
        if self.counts_problem:
            raise UserError(f"this loss needs the images per class: {self.counts_problem}")
        weights = self.freq_weight
        if self.held_out is not None:
            weights = weights.masked_fill(self.held_out, 0)
        if self.use_fed_loss:
            classes = federated_classes(gt_classes, weights, self.fed_loss_num_classes)
            classes = classes[classes != self.num_classes]
        else:
            classes = torch.arange(self.num_classes, device=gt_classes.device)
            if self.held_out is not None:
                classes = classes[~self.held_out]
        return classes[self.freq_weight[classes] > 1e-4] if self.ignore_zero_classes else classes

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
        areas = [each.proposal_boxes.area() for each in proposals]
        per_image = logits.split([len(each) for each in proposals])
        loss, _ = image_label_loss(per_image, areas, labels, self.image_label_kind, self.skip_last)
        zero = logits.sum() * 0 + shifts.sum() * 0
        return {"image_loss": self.image_loss_weight * loss, "loss_cls": zero, "loss_box_reg": zero}

    @property
    def scores_fast(self) -> bool:
        """Whether this predictor's classes can be scored without a table of all regions and classes."""
        zero_shot = isinstance(self.cls_score, ZeroShotClassifier)
        return self.fast and zero_shot and self.use_sigmoid_ce and not self.one_class_per_proposal

    def stage_scores(self, x: Tensor) -> tuple[StageScores, Tensor]:
        """What the logits of region features (R, …) are the product of, and the box shifts (R, 4)."""
        x = x.flatten(start_dim=1)
        classifier = self.cls_score
        return StageScores(classifier.project(x), classifier.columns(), classifier.cls_bias), self.bbox_pred(x)

    def inference(
        self, predictions: tuple[Any, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Detections of each image and the proposal of each detection.

        Args:
            predictions: of :meth:`forward`, or of :meth:`stage_scores`.
        """
        boxes = self.predict_boxes(predictions, proposals)
        return self.detect([predictions[0]], boxes, proposals)

    def detect(
        self,
        stages: Sequence[Any],
        boxes: Sequence[Tensor],
        proposals: Sequence[Instances],
        nms_threshold: float | None = None,
    ) -> tuple[list[Instances], list[Tensor]]:
        """Detections from the class scores of one or several stages.

        Args:
            stages: of each stage, of all images together, :class:`StageScores` or logits (R, C + 1).
            boxes: (R_i, 4) of each image.
            proposals: the first stage's, with ``objectness_logits`` where their scores are mixed in.
            nms_threshold: in place of the configured one; above 1 for no suppression.
        """
        sizes = [len(each) for each in boxes]
        overlap = self.test_nms_thresh if nms_threshold is None else nms_threshold
        options = (self.test_score_thresh, overlap, self.test_topk_per_image)
        objectness = [each.objectness_logits if self.multiply_proposal_score else None for each in proposals]
        found = []
        if isinstance(stages[0], StageScores):
            projected = [stage.projected.split(sizes) for stage in stages]
            for image, image_boxes in enumerate(boxes):
                image_stages = [
                    stage._replace(projected=parts[image]) for stage, parts in zip(stages, projected, strict=True)
                ]
                size = proposals[image].image_size
                found.append(fast_detections(image_stages, objectness[image], image_boxes, size, *options))
        else:
            probabilities = [self.predict_probs((logits, logits), proposals) for logits in stages]
            for image, image_boxes in enumerate(boxes):
                proposal_scores = objectness[image]
                column = None if proposal_scores is None else proposal_scores[:, None]
                scores = mixed_scores([each[image] for each in probabilities], column)
                size = proposals[image].image_size
                found.append(reference_detections(scores, image_boxes, size, *options, self.one_class_per_proposal))
        return [instances for instances, _ in found], [kept for _, kept in found]

    @property
    def needs_counts(self) -> bool:
        """Whether the box loss goes by the images per class."""
        return self.use_fed_loss or self.ignore_zero_classes or self.needs_frequencies

    def class_counts(self) -> tuple[Tensor | None, Tensor | None, str]:
        """What the box loss knows of its classes: counts, held-out ones, and why there are no counts."""
        return getattr(self, "freq_weight", None), self.held_out, self.counts_problem

    def put_class_counts(self, counts: tuple[Tensor | None, Tensor | None, str]) -> None:
        """Put back what :meth:`class_counts` gave."""
        freq_weight, self.held_out, self.counts_problem = counts
        if freq_weight is not None:
            self.freq_weight = freq_weight

    def drop_class_counts(self, num_classes: int) -> None:
        """Forget counts that are of another number of classes than ``num_classes``."""
        counts = getattr(self, "freq_weight", None)
        if counts is not None and len(counts) != num_classes:
            self.freq_weight = counts.new_zeros(num_classes)
            self.held_out = None
            self.counts_problem = f"they are of {len(counts)} classes, the detector has {num_classes} now"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        given = state_dict.get(f"{prefix}freq_weight")
        own = getattr(self, "freq_weight", None)
        if given is not None and own is None:
            state_dict.pop(f"{prefix}freq_weight")  # a checkpoint of a federated run, loaded without that loss
        elif given is not None and own is not None and not bool(given.any()):
            state_dict[f"{prefix}freq_weight"] = own  # saved by a detector that had no counts
        elif given is not None and own is not None and given.shape == own.shape and not self.needs_frequencies:
            self.counts_problem = ""
        super()._load_from_state_dict(state_dict, prefix, *arguments)
