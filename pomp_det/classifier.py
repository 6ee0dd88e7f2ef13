"""Swapping the classes of a detector: no retraining, any number of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pomp_det.class_matrix import ClassMatrix, check_same_clip, read_class_matrix, rows_of, source_of
from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from pomp_det.heads.seen_words import SeenWordsClassifier
from pomp_det.heads.zero_shot import ZeroShotClassifier
from prompt_core.classifier import TextClassifier
from prompt_core.errors import UserError
from prompt_core.towers.origin import recognise


def set_classifier(
    model: nn.Module,
    classifier: TextClassifier | Tensor | np.ndarray | str | Path,
    names: Sequence[str] | None = None,
    update_stage_counts: bool = True,
) -> None:
    """Give a detector other classes, in place.

    Every stage gets the matrix and the class count. As published, score thresholds and everything learned stay. The
    names are kept as ``model.roi_heads.class_names``. With a background, probabilities are multiplied by own shares.

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
    classifier = _as_classifier(classifier)
    rows, count = rows_of(classifier), len(classifier)
    class_names = list(names) if names is not None else classifier.names
    if len(class_names) != count:
        raise UserError(f"{len(class_names)} class names were given for {count} classes")
    heads: Any = model.roi_heads
    masks = heads.mask_head.predictor.out_channels if getattr(heads, "mask_on", False) else 1
    if masks not in (1, count):
        raise UserError(
            f"the mask head has {masks} classes of its own; build it with ROI_MASK_HEAD.CLS_AGNOSTIC_MASK True to swap"
        )
    for predictor in predictors:
        predictor.cls_score.set_class_matrix(rows, source_of(classifier))
        predictor.cls_score.set_background(classifier.background.weight if classifier.background else None)
        if isinstance(predictor.cls_score, SeenWordsClassifier):
            predictor.cls_score.set_untuned(classifier.untuned)
        predictor.class_counts = predictor.class_counts.of(count)
        if update_stage_counts:
            predictor.num_classes = count
    heads.num_classes = count
    heads.class_names = class_names


@contextlib.contextmanager
def temporary_classes(
    model: nn.Module, classifier: TextClassifier | Tensor | np.ndarray | str | Path
) -> Iterator[None]:
    """:func:`set_classifier` for a while; everything that it changes comes back afterwards, class counts too.

    Raises:
        UserError: as :func:`set_classifier`.
    """
    model = getattr(model, "module", model)
    predictors = zero_shot_predictors(model)
    heads: Any = model.roi_heads
    before = heads.num_classes, heads.class_names
    stages = [
        (
            stage.cls_score.zs_weight,
            stage.cls_score.source,
            stage.cls_score.other_names,
            getattr(stage.cls_score, "untuned", None),
            stage.num_classes,
            stage.class_counts,
        )
        for stage in predictors
    ]
    set_classifier(model, classifier)
    try:
        yield
    finally:
        for stage, (weight, source, background, untuned, count, counts) in zip(predictors, stages, strict=True):
            stage.cls_score.zs_weight, stage.cls_score.source, stage.num_classes = weight, source, count
            stage.cls_score.set_background(background)
            if isinstance(stage.cls_score, SeenWordsClassifier):
                stage.cls_score.set_untuned(untuned)
            stage.class_counts = counts
        heads.num_classes, heads.class_names = before


def check_learned_clip(model: nn.Module) -> None:
    """Check that the classes are features of the CLIP that the detector learned with, where its weights told it.

    Raises:
        UserError: when both are known, by the content of their matrices, and differ.
    """
    predictors = zero_shot_predictors(model)
    learned_with: Any = getattr(model, "learned_with", None)
    if learned_with is not None and predictors:
        classifier = predictors[0].cls_score
        now = recognise(classifier.zs_weight[:, :-1].T)
        place = "the matrix in the detector's weights"
        check_same_clip(learned_with, now, place, f"class matrix {classifier.source}")


def zero_shot_predictors(model: nn.Module) -> list[Any]:
    """The box predictors with a zero-shot classifier, in the order of the stages."""
    predictors = [module for module in model.modules() if isinstance(module, DeticFastRCNNOutputLayers)]
    return [predictor for predictor in predictors if isinstance(predictor.cls_score, ZeroShotClassifier)]


def _as_classifier(classifier: TextClassifier | Tensor | np.ndarray | str | Path) -> TextClassifier:
    if isinstance(classifier, TextClassifier):
        return classifier
    if isinstance(classifier, (str, Path)):
        return read_class_matrix(classifier)
    rows = torch.as_tensor(classifier).float()
    return ClassMatrix(rows, [f"class {row}" for row in range(len(rows))], "a tensor")
