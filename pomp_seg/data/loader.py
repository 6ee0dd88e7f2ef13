"""The training loader of a segmenter: one or several data sets of the same classes, resumable at any iteration."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch.utils.data import DataLoader

from pomp_engine.loader import Records, images_per_rank, seed_of_run, seeded_loader
from pomp_seg.data.label_values import dataset_labels
from pomp_seg.data.mapper import build_mapper
from pomp_seg.data.sample_per_class import configured_sample


def training_records(cfg: CfgNode) -> Records:
    """Records of ``DATASETS.TRAIN``, with ``DATASETS.SAMPLE_PER_CLASS`` some of each class.

    Raises:
        UserError: an unknown data set, classes that differ between data sets, missing files.
    """
    dataset_labels(cfg.DATASETS.TRAIN)
    records: Records = []
    for name in cfg.DATASETS.TRAIN:
        records.extend(DatasetCatalog.get(name))
    return configured_sample(cfg, records)


def build_train_loader(cfg: CfgNode, start: int = 0) -> DataLoader[Any]:
    """Endless batches of ``SOLVER.IMS_PER_BATCH`` examples, shared out among the processes.

    Args:
        start: iteration that the run begins or goes on with.

    Raises:
        UserError: as :func:`training_records`, and for a batch that cannot be shared out.
    """
    return seeded_loader(
        training_records(cfg),
        build_mapper(cfg),
        images_per_rank(cfg),
        seed_of_run(cfg, start),
        start=start,
        workers=cfg.DATALOADER.NUM_WORKERS,
    )
