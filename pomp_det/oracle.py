"""A detector with one part of its work done for it: how much of its error comes from which part.

- ``boxes``: the boxes of the ground truth take the place of the proposals, with a proposal score of 1. They are not
  refined and do not suppress each other. The class scores are the detector's. What is missing to 100 is the error of
  classification, the score threshold and the limit of detections included.
- ``classes``: the boxes are the detector's, with the scores of their proposals. With certainty, a box is of the class
  of the ground truth that it overlaps most, if their IoU is 0.5 or more, and of no class otherwise. Suppression within
  each class and the limit of detections follow as always. What is missing to 100 is the error of proposals, refinement
  and ranking. Where the detector does not mix proposal scores in, every score is 1, and of overlapping boxes the one
  of the first proposal stays.
- ``vocabulary``: classes that the ground truth of an image does not have cannot be predicted there. The scores of the
  others stay the same (also a softmax still goes over all classes). The gain over the plain result is what absent
  classes cost.

The parts need not add up: a detection can be wrong in several ways.

The ground truth is the image's usable annotations without crowd regions. LVIS is federated: of most classes an image's
annotations do not say whether they are there, and every class that is not annotated counts as absent here. The scorer
ignores predictions of classes of which an image says nothing. So for LVIS ``vocabulary`` gains by the classes that are
known to be absent, and by the places among the limited number of detections that the ignored ones took.

The same idea for segmentation: arXiv 2508.04211.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor, nn

from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from pomp_det.heads.fused_scores import ClassProbabilities
from pomp_det.heads.inference import StageScores, classwise_nms, clip_boxes, detections, mixed_scores
from pomp_det.heads.weak_heads import WeakHeads
from prompt_core.errors import UserError, nearest

ORACLES = ("boxes", "classes", "vocabulary")

# An IoU is at most 1, but rounding may lift that of two equal boxes above it.
_NO_SUPPRESSION = 2.0


class OracleDetector(nn.Module):
    """A detector that is given the true boxes, classes or vocabulary of each image.

    Inputs and outputs are the detector's in inference; each input also has ``instances``: ``gt_boxes`` in pixels of
    the resized image and ``gt_classes``, as :class:`pomp_det.data.evaluation_mapper.GroundTruthMapper` gives them.
    Masks are the detector's, for whatever boxes and classes come out.

    Args:
        detector: a model of :func:`pomp_det.build_detector`, also inside DistributedDataParallel. Its classes may be
            swapped between calls.
        oracle: one of :data:`ORACLES`, described at the top of this module.

    Raises:
        UserError: for an unknown oracle, or a detector whose heads are not this package's.
    """

    def __init__(self, detector: nn.Module, oracle: str) -> None:
        super().__init__()
        if oracle not in ORACLES:
            raise UserError(f"oracle {oracle!r} is unknown; expected {', '.join(ORACLES)}{nearest(oracle, ORACLES)}")
        self.detector: Any = getattr(detector, "module", detector)
        heads = getattr(self.detector, "roi_heads", None)
        if not isinstance(heads, WeakHeads):
            raise UserError(
                f"an oracle cannot look into {type(heads).__name__}; MODEL.ROI_HEADS.NAME must be DeticCascadeROIHeads "
                "or CustomRes5ROIHeads"
            )
        self.oracle = oracle
        self.train(self.detector.training)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detections of each image, in the size that ``height`` and ``width`` ask for.

        Raises:
            UserError: when an image has no ground truth, or one in other coordinates or of more classes than the
                detector's.
        """
        results: list[dict[str, Instances]] = self.inference(batched_inputs)
        return results

    @torch.no_grad()
    def inference(self, batched_inputs: list[dict[str, Any]], do_postprocess: bool = True) -> Any:
        """The same; without ``do_postprocess`` in the size of the resized image, as Detectron2's detectors do."""
        assert not self.detector.training, "an oracle is for inference; call eval() first"
        detector, heads = self.detector, self.detector.roi_heads
        images = detector.preprocess_image(batched_inputs)
        truth = [
            _ground_truth(example, size, heads.num_classes).to(images.tensor.device)
            for example, size in zip(batched_inputs, images.image_sizes, strict=True)
        ]
        # Detectron2's own class has no method for the pyramid.
        features = getattr(detector, "features", detector.backbone)(images.tensor)
        if self.oracle == "boxes":
            detections = _with_true_boxes(heads, features, truth)
        else:
            proposals, _ = detector.proposal_generator(images, features, None)
            choose = _with_true_classes if self.oracle == "classes" else _with_true_vocabulary
            detections = choose(heads, features, proposals, truth)
        detections = heads.forward_with_given_boxes(features, detections)
        if not do_postprocess:
            return detections
        return detector._postprocess(detections, batched_inputs, images.image_sizes)


def matched_classes(boxes: Tensor, gt_boxes: Tensor, gt_classes: Tensor, min_iou: float = 0.5) -> Tensor:
    """The class of the ground truth that each box overlaps most; of several, that of the first.

    Args:
        boxes: (R, 4).
        gt_boxes: (G, 4).
        gt_classes: (G,).
        min_iou: smallest overlap that counts.

    Returns:
        (R,) classes, -1 where nothing overlaps enough.
    """
    matched = gt_classes.new_full((len(boxes),), -1)
    if len(gt_boxes) == 0:
        return matched
    overlaps = pairwise_iou(Boxes(boxes), Boxes(gt_boxes))  # (R, G)
    best, first = overlaps.max(dim=1)
    return torch.where(best >= min_iou, gt_classes[first], matched)


def restricted_scores(
    stage: StageScores | ClassProbabilities | Tensor, classes: Tensor
) -> StageScores | ClassProbabilities | Tensor:
    """Scores of some classes only, so that their probabilities stay what they are among all classes.

    Args:
        stage: of C classes and the background.
        classes: (K,) distinct class ids.

    Returns:
        the same kind, of K classes in the given order. The background of logits stands for all that was left out,
        which leaves a softmax as it is; a sigmoid does not depend on it.
    """
    if isinstance(stage, ClassProbabilities):
        return stage.of_classes(classes)
    if isinstance(stage, StageScores):
        background = classes.new_tensor([stage.weight.shape[1] - 1])
        shares = None if stage.shares is None else stage.shares.of_classes(classes)
        return stage._replace(weight=stage.weight[:, torch.cat((classes, background))], shares=shares)
    left_out = torch.ones(stage.shape[1], dtype=torch.bool, device=stage.device)
    left_out[classes] = False
    return torch.cat((stage[:, classes], stage[:, left_out].logsumexp(dim=1, keepdim=True)), dim=1)  # (R, K + 1)


def _ground_truth(example: dict[str, Any], image_size: tuple[int, int], num_classes: int) -> Instances:
    name = example.get("file_name", example.get("image_id", "?"))
    truth = example.get("instances")
    if truth is None or not (truth.has("gt_boxes") and truth.has("gt_classes")):
        raise UserError(
            f"image {name} has no ground truth for the oracle; load it with build_test_mapper(cfg, "
            "with_ground_truth=True)"
        )
    if tuple(truth.image_size) != tuple(image_size):
        raise UserError(
            f"image {name}: the ground truth is for height and width {tuple(truth.image_size)}, the detector sees "
            f"{tuple(image_size)}; give boxes in pixels of the resized image"
        )
    if len(truth) and not 0 <= int(truth.gt_classes.min()) <= int(truth.gt_classes.max()) < num_classes:
        raise UserError(
            f"image {name} has ground truth of classes {int(truth.gt_classes.min())} to {int(truth.gt_classes.max())}, "
            f"the detector has {num_classes}; give it the data set's classifier"
        )
    return truth


def _with_true_boxes(heads: WeakHeads, features: dict[str, Tensor], truth: Sequence[Instances]) -> list[Instances]:
    proposals = []
    for true in truth:
        proposal = Instances(true.image_size)
        proposal.proposal_boxes = true.gt_boxes
        proposal.objectness_logits = true.gt_boxes.tensor.new_ones(len(true))
        proposals.append(proposal)
    stages, boxes = heads.region_scores(features, proposals, refine=False)
    return heads.last_predictor.detect(stages, boxes, proposals, nms_threshold=_NO_SUPPRESSION)[0]


def _with_true_classes(
    heads: WeakHeads, features: dict[str, Tensor], proposals: list[Instances], truth: Sequence[Instances]
) -> list[Instances]:
    _, boxes = heads.region_scores(features, proposals)
    return [_classified(heads.last_predictor, *of_image) for of_image in zip(boxes, proposals, truth, strict=True)]


def _classified(
    predictor: DeticFastRCNNOutputLayers, boxes: Tensor, proposals: Instances, truth: Instances
) -> Instances:
    """Detections of one image, of boxes (R, 4) whose classes are those of the ground truth."""
    usable = torch.isfinite(boxes).all(dim=1)
    boxes = clip_boxes(boxes, proposals.image_size)
    classes = matched_classes(boxes, truth.gt_boxes.tensor, truth.gt_classes)
    objectness = proposals.objectness_logits if predictor.scoring.multiply_proposal_score else None
    scores = mixed_scores([torch.ones_like(boxes[:, 0])], objectness)
    passing = usable & (classes >= 0) & (scores > predictor.test_score_thresh)
    boxes, classes, scores = boxes[passing], classes[passing], scores[passing]
    keep = classwise_nms(boxes, scores, classes, predictor.test_nms_thresh)
    keep = keep[: predictor.test_topk_per_image] if predictor.test_topk_per_image >= 0 else keep
    return detections(boxes[keep], scores[keep], classes[keep], proposals.image_size)


def _with_true_vocabulary(
    heads: WeakHeads, features: dict[str, Tensor], proposals: list[Instances], truth: Sequence[Instances]
) -> list[Instances]:
    stages, boxes = heads.region_scores(features, proposals)
    sizes = [len(image_boxes) for image_boxes in boxes]
    detections = []
    for image, stages_of_image in enumerate(zip(*(_split(stage, sizes) for stage in stages), strict=True)):
        classes = truth[image].gt_classes.unique()
        scores = [restricted_scores(stage, classes) for stage in stages_of_image]
        (instances,), _ = heads.last_predictor.detect(scores, [boxes[image]], [proposals[image]])
        instances.pred_classes = classes[instances.pred_classes]
        detections.append(instances)
    return detections


def _split(stage: Any, sizes: Sequence[int]) -> list[Any]:
    """Scores of all images together as those of each image."""
    return list(stage.split(sizes))
