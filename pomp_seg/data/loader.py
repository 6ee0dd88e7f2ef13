"""The mapper that a configuration names, and the resumable training loader over data sets of the same classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch.utils.data import DataLoader

from pomp_engine.loader import Records, images_per_rank, seed_of_run, seeded_loader
from pomp_seg.data.augmentation import check_choice
from pomp_seg.data.region_mapper import build_region_mapper
from pomp_seg.data.registration import dataset_labels
from pomp_seg.data.semantic_mapper import build_semantic_mapper, build_test_mapper
from prompt_core.errors import UserError

Mapper = Callable[[Mapping[str, Any]], dict[str, Any]]
MAPPERS = ("mask_former_semantic", "mask_former_binary_semantic")


def training_records(cfg: CfgNode) -> Records:
    """Records of ``DATASETS.TRAIN``, sampled by class if ``DATASETS.SAMPLE_PER_CLASS`` is set.

    Raises:
        UserError: an unknown data set, classes that differ between data sets, missing files.
    """
    dataset_labels(cfg.DATASETS.TRAIN)
    records: Records = []
    for name in cfg.DATASETS.TRAIN:
        records.extend(DatasetCatalog.get(name))
    return configured_sample(cfg, records)


def build_train_loader(cfg: CfgNode, start: int = 0) -> DataLoader[Any]:
    """Infinite batches of ``SOLVER.IMS_PER_BATCH`` examples, divided among the processes.

    Args:
        start: iteration that the run starts or continues with.

    Raises:
        UserError: as :func:`training_records`, and for a batch that cannot be divided.
    """
    return seeded_loader(
        training_records(cfg),
        build_mapper(cfg),
        images_per_rank(cfg),
        seed_of_run(cfg, start),
        start=start,
        workers=cfg.DATALOADER.NUM_WORKERS,
    )


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
    return build_semantic_mapper(cfg) if is_train else build_test_mapper(cfg, dataset_name if cfg.ORACLE else "")


def sample_per_class(records: Sequence[Mapping[str, Any]], count: int, seed: int = 0) -> list[Any]:
    """``count`` records of each class that has at least as many, all records of the other classes (ZSSeg).

    As published, the ``count`` are drawn WITH replacement, so that some occur twice and others never. The draw of a
    class depends only on its own records and the seed, not on their order.

    Args:
        records: with ``category_id`` and ``file_name``.
        count: of each class.
        seed: of the draw; published runs use 0.

    Returns:
        records in the order of their classes.

    Raises:
        UserError: when ``count`` is below 1, or a record has no ``category_id``.
    """
    if count < 1:
        raise UserError(f"DATASETS.SAMPLE_PER_CLASS is {count}; expected a positive number, or -1 for all records")
    by_class: dict[int, list[Mapping[str, Any]]] = {}
    for record in records:
        if "category_id" not in record:
            raise UserError(
                f"image {record['file_name']} has no class (category_id); DATASETS.SAMPLE_PER_CLASS needs a data set "
                "of one class per record (…_classification), or set it to -1"
            )
        by_class.setdefault(int(record["category_id"]), []).append(record)
    sampled: list[Mapping[str, Any]] = []
    for category in sorted(by_class):
        of_class = sorted(by_class[category], key=lambda record: str(record["file_name"]))
        if len(of_class) >= count:
            places = np.random.default_rng([seed, category]).integers(len(of_class), size=count)
            of_class = [of_class[place] for place in places]
        sampled.extend(of_class)
    return sampled


def configured_sample(cfg: CfgNode, records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """:func:`sample_per_class` by ``DATASETS.SAMPLE_PER_CLASS`` and ``SAMPLE_SEED``; -1 leaves the records as they are.

    Raises:
        UserError: as :func:`sample_per_class`.
    """
    count = int(cfg.DATASETS.SAMPLE_PER_CLASS)
    return list(records) if count == -1 else sample_per_class(records, count, int(cfg.DATASETS.SAMPLE_SEED))
