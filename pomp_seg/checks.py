"""Checks before any training: the classes of data sets and model, labels, and the kind of example."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from torch import nn

from pomp_seg.data.augmentation import check_choice
from pomp_seg.data.loader import MAPPERS
from pomp_seg.data.registration import check_labels, dataset_labels, registered_metadata
from pomp_seg.evaluation.metrics import check_denominator
from pomp_seg.models.generated_features import GeneratedFeatureModel
from pomp_seg.models.mask_former import MaskFormer, ZeroShotMaskFormer
from pomp_seg.models.per_pixel import ZeroShotPerPixelModel
from pomp_seg.models.region_classifier import ProposalClipClassifier
from pomp_seg.oracle_regions import OracleSegmenter
from pomp_seg.views import ViewOptions
from prompt_core.errors import UserError

REGIONS = "mask_former_binary_semantic"


def check_run(cfg: CfgNode, model: nn.Module, training: bool) -> None:
    """Check everything that the run will need, before it starts.

    Args:
        training: also check the training sets.

    Raises:
        UserError: the first fault.
    """
    check_denominator(cfg.TEST.MIOU_DENOMINATOR)
    check_choice("INPUT.DATASET_MAPPER_NAME", cfg.INPUT.DATASET_MAPPER_NAME, MAPPERS)
    regions = isinstance(model, ProposalClipClassifier)
    if regions != (cfg.INPUT.DATASET_MAPPER_NAME == REGIONS):
        given, wanted = cfg.INPUT.DATASET_MAPPER_NAME, REGIONS if regions else "mask_former_semantic"
        raise UserError(f"INPUT.DATASET_MAPPER_NAME is {given!r}; {cfg.MODEL.META_ARCHITECTURE} needs {wanted}")
    ViewOptions.from_config(cfg)
    if cfg.ORACLE and not regions:
        OracleSegmenter(model)  # refuses a segmenter that cannot name regions
    if cfg.SOLVER.TEST_IMS_PER_BATCH < 1:
        raise UserError(f"SOLVER.TEST_IMS_PER_BATCH is {cfg.SOLVER.TEST_IMS_PER_BATCH}; expected 1 or more")
    for name in (*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST):
        records = check_labels(name)
        if not records:
            raise UserError(f"data set {name!r} has no images")
        if regions and "category_id" not in records[0]:
            raise UserError(f"data set {name!r} has whole label maps; prompt tuning needs one of …_classification")
        check_names(model, name)
    for name in cfg.DATASETS.TEST:
        check_closed_classes(model, name)
    if training:
        dataset_labels(cfg.DATASETS.TRAIN)
        for name in cfg.DATASETS.TRAIN:
            _check_count(cfg, model, name)
            _check_ignored_value(model, name)
            _check_own_labels(cfg, name)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(
                f"nothing of {cfg.MODEL.META_ARCHITECTURE} learns with PROMPT_LEARNER "
                f"{cfg.MODEL.CLIP_ADAPTER.PROMPT_LEARNER!r}; set learnable, pomp or pomp_tuned, or use --eval-only"
            )


def check_names(model: nn.Module, dataset: str) -> None:
    """Check that the model's own classes, if it has any, are those of a data set, in its order.

    Raises:
        UserError: naming the first difference.
    """
    given: Any = getattr(model, "classes", None)
    if given is None:
        return
    names = [name.strip() for name in registered_metadata(dataset).stuff_classes]
    if len(names) != len(given.names):
        raise UserError(
            f"MODEL.VOCABULARY has {len(given.names)} classes, data set {dataset!r} has {len(names)}; leave it empty "
            "to take those of the data set"
        )
    for row, (asked, name) in enumerate(zip(given.names, names, strict=True)):
        if asked != name:
            raise UserError(
                f"class {row} is {asked!r} in MODEL.VOCABULARY and {name!r} in data set {dataset!r}; leave "
                "MODEL.VOCABULARY empty to take those of the data set"
            )


def _check_count(cfg: CfgNode, model: nn.Module, dataset: str) -> None:
    """Check that ``NUM_CLASSES``, which the loss uses, is the data set's."""
    count = len(registered_metadata(dataset).stuff_classes)
    if isinstance(model, MaskFormer) and count != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
        raise UserError(
            f"data set {dataset!r} has {count} classes, MODEL.SEM_SEG_HEAD.NUM_CLASSES is "
            f"{cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}; set both alike"
        )


def _check_ignored_value(model: nn.Module, dataset: str) -> None:
    """Check that the value that the pixel loss ignores is that of the labels."""
    if not isinstance(model, (ZeroShotPerPixelModel, GeneratedFeatureModel)):
        return
    head: Any = model.sem_seg_head
    ignored = registered_metadata(dataset).ignore_label
    if head.ignore_value != ignored:
        raise UserError(
            f"data set {dataset!r} ignores the label value {ignored}, MODEL.SEM_SEG_HEAD.IGNORE_VALUE is "
            f"{head.ignore_value}; set it to {ignored}"
        )


def _check_own_labels(cfg: CfgNode, dataset: str) -> None:
    """Check a user's data set: labels of all classes would teach the classes declared as unseen."""
    flags = registered_metadata(dataset).get("trainable_flag")
    if dataset in [row[0] for row in cfg.DATASETS.FILES] and flags is not None and not all(flags):
        raise UserError(
            f"training set {dataset!r} has a file of seen classes that leaves some out, and labels of all; train on "
            "labels and names of the seen classes alone, with the ignored value elsewhere, and test on the set with all"
        )


def check_closed_classes(model: nn.Module, dataset: str) -> None:
    """Check that a segmenter with a closed list of classes is tested on as many.

    Raises:
        UserError: when the data set has another number of classes.
    """
    if isinstance(model, MaskFormer) and not isinstance(model, ZeroShotMaskFormer):
        head: Any = model.sem_seg_head
        count = len(registered_metadata(dataset).stuff_classes)
        if head.num_classes != count:
            raise UserError(
                f"the segmenter was built for {head.num_classes} classes, data set {dataset!r} has {count}; an open "
                "vocabulary needs META_ARCHITECTURE ZeroShotMaskFormer"
            )
