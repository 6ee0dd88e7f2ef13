"""Swapping the classes of a detector: no retraining, any number of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pomp_det.class_matrix import ClassMatrix, configured_matrix, read_class_matrix
from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from pomp_det.heads.zero_shot import ZeroShotClassifier
from prompt_core.classifier import TextClassifier
from prompt_core.errors import UserError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def configured_classifier(cfg: CfgNode) -> TextClassifier | None:
    """The classifier that a configuration asks for, by ``MODEL.VOCABULARY`` or ``ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH``.

    Returns:
        None where the configuration asks for a random matrix or for no zero-shot classifier.

    Raises:
        UserError: a file that is missing or damaged, or class names that cannot be turned into features.
    """
    matrix = configured_matrix(cfg)
    return None if matrix is None else TextClassifier(matrix.weight, matrix.names, {"source": matrix.source})


def set_classifier(
    model: nn.Module,
    classifier: TextClassifier | ClassMatrix | Tensor | np.ndarray | str | Path,
    names: Sequence[str] | None = None,
    update_stage_counts: bool = True,
) -> None:
    """Give a detector other classes, in place.

    Every stage gets the matrix and the class count. As published, score thresholds and everything learned stay. The
    names are kept as ``model.roi_heads.class_names``.

    Args:
        model: a detector with zero-shot classifiers, also inside DistributedDataParallel.
        classifier: a classifier, a matrix (C, E) of any norm, or the file of either.
        names: C class names; those of the classifier where left out.
        update_stage_counts: False leaves the stages' class counts at the old number, as the published code does. Only
            the box loss depends on them, and only when training goes on with another number of classes.

    Raises:
        UserError: features of another width than the detector's, no class, numbers that are not finite, or a model
            without zero-shot classifier.
    """
    model = getattr(model, "module", model)
    predictors = zero_shot_predictors(model)
    if not predictors:
        raise UserError("this detector has no zero-shot classifier; build it with ROI_BOX_HEAD.USE_ZEROSHOT_CLS True")
    matrix = _as_matrix(classifier)
    class_names = list(names) if names is not None else matrix.names
    if len(class_names) != len(matrix.weight):
        raise UserError(f"{len(class_names)} class names were given for {len(matrix.weight)} classes")
    heads: Any = model.roi_heads
    masks = heads.mask_head.predictor.out_channels if getattr(heads, "mask_on", False) else 1
    if masks not in (1, len(matrix.weight)):
        raise UserError(
            f"the mask head has {masks} classes of its own; build it with ROI_MASK_HEAD.CLS_AGNOSTIC_MASK True to swap"
        )
    for predictor in predictors:
        predictor.cls_score.set_class_matrix(matrix.weight, matrix.source)
        predictor.class_counts = predictor.class_counts.of(len(matrix.weight))
        if update_stage_counts:
            predictor.num_classes = len(matrix.weight)
    heads.num_classes = len(matrix.weight)
    heads.class_names = class_names


@contextlib.contextmanager
def temporary_classes(
    model: nn.Module, classifier: TextClassifier | ClassMatrix | Tensor | np.ndarray | str | Path
) -> Iterator[None]:
    """:func:`set_classifier` for a while; everything that it changes comes back afterwards, class counts too.

    Raises:
        UserError: as :func:`set_classifier`.
    """
    model = getattr(model, "module", model)
    predictors, heads = zero_shot_predictors(model), model.roi_heads
    kept = [
        (each.cls_score.zs_weight, each.cls_score.source, each.num_classes, each.class_counts) for each in predictors
    ]
    own: Any = heads
    before = own.num_classes, own.class_names
    set_classifier(model, classifier)
    try:
        yield
    finally:
        for each, (weight, source, count, counts) in zip(predictors, kept, strict=True):
            each.cls_score.zs_weight, each.cls_score.source, each.num_classes = weight, source, count
            each.class_counts = counts
        own.num_classes, own.class_names = before


def zero_shot_predictors(model: nn.Module) -> list[Any]:
    """The box predictors with a zero-shot classifier, in the order of the stages."""
    found = [each for each in model.modules() if isinstance(each, DeticFastRCNNOutputLayers)]
    return [each for each in found if isinstance(each.cls_score, ZeroShotClassifier)]


def _as_matrix(classifier: TextClassifier | ClassMatrix | Tensor | np.ndarray | str | Path) -> ClassMatrix:
    if isinstance(classifier, ClassMatrix):
        return classifier
    if isinstance(classifier, (str, Path)):
        return read_class_matrix(classifier)
    if isinstance(classifier, TextClassifier):
        source = classifier.metadata.get("source") or classifier.metadata.get("vocabulary") or "a classifier"
        return ClassMatrix(classifier.weight, classifier.names, str(source))
    weight = torch.as_tensor(classifier).float()
    if not bool(torch.isfinite(weight).all()):
        raise UserError("the class matrix holds numbers that are not finite")
    return ClassMatrix(weight, [f"class {row}" for row in range(len(weight))], "a matrix")
