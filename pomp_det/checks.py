"""Checks before any training: classes of data sets against those of the model, and test annotations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from pomp_det.class_matrix import read_class_matrix
from pomp_det.classifier import check_learned_clip
from pomp_det.data.annotation_files import read_scored_annotations
from pomp_det.data.registration import (
    dataset_vocabulary,
    register_dataset,
    register_datasets,
    registered_metadata,
)
from pomp_det.evaluation.openimages_scores import read_category_ancestors
from pomp_det.heads.box_predictor import DeticFastRCNNOutputLayers
from prompt_core.classifier import TextClassifier
from prompt_core.errors import UserError, nearest
from prompt_core.files import resolve_path
from prompt_core.vocabulary import plain_name

_PLACEHOLDER = re.compile(r"class \d+")


def register_configured(cfg: CfgNode) -> None:
    """Register the known data sets, and the user's own of ``DATASETS.FILES``.

    Raises:
        UserError: when a row is not three to five texts.
    """
    register_datasets()
    for row in cfg.DATASETS.FILES:
        if (
            not isinstance(row, (list, tuple))
            or not 3 <= len(row) <= 5
            or not all(isinstance(text, str) for text in row)
        ):
            raise UserError(
                f"DATASETS.FILES has the row {row!r}; expected [name, annotation file, folder of photos], and "
                "behind it, where needed, the kind (coco, lvis, image_labels) and a vocabulary"
            )
        name, annotations, photos, *more = row
        vocabulary = (more[1] or None) if len(more) > 1 else None
        register_dataset(name, resolve_path(annotations), resolve_path(photos), more[0] if more else "coco", vocabulary)


def check_run(cfg: CfgNode, model: nn.Module, training: bool) -> None:
    """Check all that the run will need, before it starts.

    Args:
        training: look at the classes of the training sets and the annotations of the test sets too. The training
            annotations are read by the loader; an evaluation reads those of its test sets before it starts anyway.

    Raises:
        UserError: the first thing that is wrong.
    """
    heads: Any = model.roi_heads
    names = list(getattr(heads, "class_names", []))
    if training:
        reset = cfg.MODEL.RESET_CLS_TRAIN and cfg.MODEL.TRAIN_CLASSIFIERS
        of_training = read_class_matrix(cfg.MODEL.TRAIN_CLASSIFIERS[0]).names if reset else names
        for dataset in cfg.DATASETS.TRAIN:
            check_names(dataset, of_training, cfg.MODEL.DYNAMIC_CLASSIFIER)
    for number, dataset in enumerate(cfg.DATASETS.TEST):
        classifier = classifier_of_test(cfg, number)
        check_names(dataset, names if classifier is None else classifier.names, cfg.MODEL.DYNAMIC_CLASSIFIER)
        if training:
            DatasetCatalog.get(dataset)  # reads the annotations and looks for the photos
            check_ground_truth(dataset)


def check_ground_truth(dataset: str) -> None:
    """Check that a test set can be scored against, before any training or inference.

    Raises:
        UserError: as :func:`pomp_det.data.annotation_files.read_scored_annotations`; for Open Images also as
            :func:`pomp_det.evaluation.openimages_scores.read_category_ancestors`.
    """
    metadata = registered_metadata(dataset)
    document = read_scored_annotations(metadata.json_file, federated=metadata.evaluator_type == "lvis")
    if metadata.evaluator_type == "openimages":
        read_category_ancestors(Path(metadata.json_file), document)


def check_class_facts(model: nn.Module) -> None:
    """Check that a loss that goes by images per class, or by a hierarchy, has them.

    To be called when the weights are loaded, which may hold them.

    Raises:
        UserError: with the reason why they are missing.
    """
    heads: Any = model.roi_heads
    sampler = getattr(heads, "class_sampler", None)
    predictors = [part for part in model.modules() if isinstance(part, DeticFastRCNNOutputLayers)]
    missing = [predictor.missing_counts for predictor in predictors]
    if sampler is not None:
        missing.append(sampler.counts.of(heads.num_classes).missing)
    reason = next(filter(None, missing), "")
    if reason:
        raise UserError(
            "the box loss needs the images per class (USE_FED_LOSS, IGNORE_ZERO_CATS, HELD_OUT_FREQUENCIES or "
            f"DYNAMIC_CLASSIFIER): {reason}; set MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH"
        )
    reason = next(filter(None, (predictor.missing_hierarchy for predictor in predictors)), "")
    if reason:
        raise UserError(
            f"the box loss needs the hierarchy of the classes (HIERARCHY_IGNORE): {reason}; set "
            "MODEL.ROI_BOX_HEAD.HIERARCHY_PATH"
        )


def classifier_of_test(cfg: CfgNode, number: int) -> TextClassifier | None:
    """The classes of test set ``number``; None for the model's own, without ``MODEL.RESET_CLS_TESTS``.

    Raises:
        UserError: when a classifier is missing, or has another number of classes than ``MODEL.TEST_NUM_CLASSES``.
    """
    if not cfg.MODEL.RESET_CLS_TESTS:
        return None
    files, counts, wanted = cfg.MODEL.TEST_CLASSIFIERS, cfg.MODEL.TEST_NUM_CLASSES, len(cfg.DATASETS.TEST)
    if len(files) < wanted or len(counts) < wanted:
        raise UserError(
            f"MODEL.RESET_CLS_TESTS: {len(files)} TEST_CLASSIFIERS and {len(counts)} TEST_NUM_CLASSES for {wanted} "
            "data sets in DATASETS.TEST; give one of each for each"
        )
    classifier = read_class_matrix(files[number])
    if len(classifier) != counts[number]:
        raise UserError(f"{files[number]} has {len(classifier)} classes, MODEL.TEST_NUM_CLASSES says {counts[number]}")
    return classifier


def check_classes(model: nn.Module, dataset: str, more_classes: bool = False) -> None:
    """:func:`check_names` and :func:`check_learned_clip` with the classes that the model has now."""
    heads: Any = model.roi_heads
    check_learned_clip(model)
    check_names(dataset, list(heads.class_names), more_classes)


def check_names(dataset: str, names: list[str], more_classes: bool = False) -> None:
    """Check that a classifier has the classes of a data set, in its order; case and underscores do not matter.

    A matrix without names is checked only by its number of classes.

    Args:
        more_classes: the classifier may have other classes behind those of the data set, as with
            ``MODEL.DYNAMIC_CLASSIFIER`` ImageNet-21K's behind LVIS's.

    Raises:
        UserError: naming the first category that the classifier lacks or has elsewhere.
    """
    wanted = dataset_vocabulary(dataset).names
    fits = len(names) >= len(wanted) if more_classes else len(names) == len(wanted)
    if names and all(_PLACEHOLDER.fullmatch(name) for name in names):
        if not fits:
            raise UserError(
                f"data set {dataset!r} has {len(wanted)} categories, the classifier {len(names)} classes; give it the "
                "data set's class matrix (MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH) or vocabulary (MODEL.VOCABULARY)"
            )
        return
    known = {plain_name(name): row for row, name in enumerate(names)}
    for row, name in enumerate(wanted):
        place = known.get(plain_name(name))
        if place is None:
            missing = sum(plain_name(other) not in known for other in wanted)
            raise UserError(
                f"data set {dataset!r}: {missing} of {len(wanted)} categories are missing from the classifier, the "
                f"first is {name!r}{nearest(name, names)}; build it with the data set's vocabulary"
            )
        if place != row and plain_name(names[row] if row < len(names) else "") != plain_name(name):
            raise UserError(
                f"data set {dataset!r}: category {name!r} is number {row + 1} there and {place + 1} in the classifier; "
                "build the classifier with the data set's vocabulary, in its order"
            )
    if not fits:
        raise UserError(f"data set {dataset!r} has {len(wanted)} categories, the classifier {len(names)} classes")
