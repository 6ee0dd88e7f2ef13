"""The mapper that a configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config import CfgNode

from pomp_seg.data.augmentation import check_choice
from pomp_seg.data.evaluation_mapper import build_test_mapper
from pomp_seg.data.region_mapper import build_region_mapper
from pomp_seg.data.semantic_mapper import build_semantic_mapper

Mapper = Callable[[Mapping[str, Any]], dict[str, Any]]
MAPPERS = ("mask_former_semantic", "mask_former_binary_semantic")


def build_mapper(cfg: CfgNode, is_train: bool = True, dataset_name: str = "") -> Mapper:
    """The mapper of ``INPUT.DATASET_MAPPER_NAME``, for training or evaluation.

    Args:
        is_train: for ``DATASETS.TRAIN``, else for evaluation.
        dataset_name: the test set; empty takes ``DATASETS.TEST``.

    Raises:
        UserError: for an unknown name, and as the mappers.
    """
    name = cfg.INPUT.DATASET_MAPPER_NAME
    check_choice("INPUT.DATASET_MAPPER_NAME", name, MAPPERS)
    if name == "mask_former_binary_semantic":
        return build_region_mapper(cfg, is_train, dataset_name)
    return build_semantic_mapper(cfg) if is_train else build_test_mapper(cfg)
