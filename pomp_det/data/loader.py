"""The training loader: one or several data sets, grouped batches, resumable at any iteration."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from torch.utils.data import DataLoader, Sampler

from pomp_det.data.mapper import MixedDatasetMapper, annotation_kinds, check_per_dataset
from pomp_det.data.registration import registered_metadata
from pomp_engine.loader import Records, images_per_rank, seed_of_run, seeded_loader
from pomp_engine.samplers import MultiDatasetSampler, batch_groups, sample_weights
from prompt_core.errors import UserError, nearest

SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", "MultiDatasetSampler", "ClassAwareSampler")

_logger = logging.getLogger(__name__)


def training_records(cfg: CfgNode) -> tuple[Records, list[int]]:
    """Records of ``DATASETS.TRAIN``, each with ``dataset_source``, and the number of images of each data set.

    ``FILTER_EMPTY_ANNOTATIONS`` leaves out images without boxes, of data sets with boxes.

    Raises:
        UserError: an unknown data set, classes that differ between data sets, masks of another format than
            ``INPUT.MASK_FORMAT``, or nothing to train on.
    """
    kinds = annotation_kinds(cfg)
    if len(set(kinds)) > 1 and not cfg.DATALOADER.MULTI_DATASET_GROUPING:
        raise UserError("boxes and image labels cannot share a batch; set DATALOADER.MULTI_DATASET_GROUPING True")
    records: Records = []
    sizes: list[int] = []
    classes: list[str] | None = None
    for source, (name, kind) in enumerate(zip(cfg.DATASETS.TRAIN, kinds, strict=True)):
        metadata = registered_metadata(name)
        records_of_set = DatasetCatalog.get(name)
        if kind == "box":
            if metadata.get("evaluator_type") == "image_labels":
                raise UserError(f"data set {name!r} has image labels; DATALOADER.DATASET_ANN says 'box' for it")
            if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
                records_of_set = filter_images_with_only_crowd_annotations(records_of_set)
            if cfg.MODEL.MASK_ON:
                _check_masks(name, records_of_set, cfg.INPUT.MASK_FORMAT)
        elif any("pos_category_ids" not in record for record in records_of_set[:1]):
            raise UserError(f"data set {name!r} has no image labels; DATALOADER.DATASET_ANN says {kind!r} for it")
        elif kind.startswith("caption"):
            bare = next((record["image_id"] for record in records_of_set if not record.get("captions")), None)
            if bare is not None:
                raise UserError(
                    f"data set {name!r} has no captions for image {bare}; DATALOADER.DATASET_ANN says {kind!r} for it"
                )
        if not records_of_set:
            raise UserError(f"data set {name!r} has no images to train on")
        of_set = list(metadata.thing_classes)
        # With a dynamic classifier one may have the first classes of the other, as LVIS of LVIS with ImageNet-21K.
        common = min(len(of_set), len(classes or of_set)) if cfg.MODEL.DYNAMIC_CLASSIFIER else None
        if classes is not None and of_set[:common] != classes[:common]:
            raise UserError(f"data set {name!r} has other classes than {cfg.DATASETS.TRAIN[0]!r}; they share one head")
        classes = of_set
        records.extend({**record, "dataset_source": source} for record in records_of_set)
        sizes.append(len(records_of_set))
    return records, sizes


def _check_masks(name: str, records: Records, mask_format: str) -> None:
    """Images without masks train only the boxes; a data set without any is an error, as is another mask format."""
    annotated = [
        [annotation for annotation in record["annotations"] if not annotation.get("iscrowd", 0)] for record in records
    ]
    without = [
        record["image_id"]
        for record, instances in zip(records, annotated, strict=True)
        if any("segmentation" not in annotation for annotation in instances)
    ]
    with_boxes = sum(bool(instances) for instances in annotated)
    if without and len(without) == with_boxes:
        raise UserError(f"data set {name!r} has no masks, but MODEL.MASK_ON is True; set it to False")
    if without:
        _logger.warning(
            "data set %r: %d of %d images have boxes and no masks (the first is %s); they train the boxes alone",
            name, len(without), with_boxes, without[0],
        )  # fmt: skip
    if mask_format != "polygon":
        return
    for record, instances in zip(records, annotated, strict=True):
        if any(isinstance(annotation.get("segmentation"), dict) for annotation in instances):
            raise UserError(
                f"data set {name!r} has run-length masks (image {record['image_id']}), but INPUT.MASK_FORMAT is "
                "'polygon'; set it to 'bitmask'"
            )


def index_sampler(cfg: CfgNode, records: Records, sizes: Sequence[int], seed: int) -> Sampler[int]:
    """The index stream that ``DATALOADER.SAMPLER_TRAIN`` names; repeat factors are counted within each data set.

    Raises:
        UserError: for an unknown sampler.
    """
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return TrainingSampler(len(records), seed=seed)
    if name == "RepeatFactorTrainingSampler":
        return RepeatFactorTrainingSampler(_repeat_factors(cfg, records), seed=seed)
    if name == "MultiDatasetSampler":
        check_per_dataset("DATALOADER.DATASET_RATIO", cfg.DATALOADER.DATASET_RATIO, len(sizes))
        check_per_dataset("DATALOADER.USE_RFS", cfg.DATALOADER.USE_RFS, len(sizes))
        factors = [
            _repeat_factors(cfg, part, kind) if use else None
            for (part, kind), use in zip(_parts(cfg, records, sizes), cfg.DATALOADER.USE_RFS, strict=False)
        ]
        ratios = list(cfg.DATALOADER.DATASET_RATIO)[: len(sizes)]
        return MultiDatasetSampler(sample_weights(sizes, ratios, factors), seed)
    if name == "ClassAwareSampler":
        labelled = [_labelled(part, kind) for part, kind in _parts(cfg, records, sizes)]
        weights = class_aware_weights(list(chain(*labelled)))
        for part, dataset in zip(weights.split(list(sizes)), cfg.DATASETS.TRAIN, strict=True):
            if not bool(part.any()):
                raise UserError(
                    f"DATALOADER.SAMPLER_TRAIN ClassAwareSampler would never draw a photo of {dataset!r}, which has no "
                    "classes; take MultiDatasetSampler"
                )
        return MultiDatasetSampler(weights, seed)
    raise UserError(f"DATALOADER.SAMPLER_TRAIN is {name!r}; expected {', '.join(SAMPLERS)}{nearest(name, SAMPLERS)}")


def _parts(cfg: CfgNode, records: Records, sizes: Sequence[int]) -> Iterator[tuple[Records, str]]:
    """The records of each data set, and the kind of their annotations."""
    for size, end, kind in zip(sizes, np.cumsum(sizes), annotation_kinds(cfg), strict=True):
        yield records[end - size : end], kind


def _repeat_factors(cfg: CfgNode, records: Records, kind: str = "box") -> torch.Tensor:
    """Of each record, by how many images of the data set have its classes: their boxes, or their image labels."""
    factors: torch.Tensor = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        _labelled(records, kind), cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
    )
    return factors


def _labelled(records: Records, kind: str) -> Records:
    """Records whose annotations are what their data set labels: boxes, or classes of the image."""
    if kind == "box":
        return records
    return [{"annotations": [{"category_id": label} for label in record["pos_category_ids"]]} for record in records]


def class_aware_weights(records: Records) -> torch.Tensor:
    """Weights (n,) that draw as if a class were drawn first, all equally likely, and then one of its images.

    They are the sum of 1 / images of the class over an image's classes, for data sets in which a few classes are in
    most photos, as in Open Images. Source: UniDet's ``ClassAwareSampler`` (arXiv 2102.13086), after Shen et al., arXiv
    1512.05830.
    """
    classes = [{annotation["category_id"] for annotation in record["annotations"]} for record in records]
    images = Counter(label for labels in classes for label in labels)
    return torch.tensor([sum(1 / images[label] for label in labels) for labels in classes], dtype=torch.float64)


def images_per_batch(cfg: CfgNode, datasets: int) -> int | list[int]:
    """Images per rank and batch: ``DATASET_BS`` with ``USE_DIFF_BS_SIZE``, else ``IMS_PER_BATCH`` shared out.

    Raises:
        UserError: when the batch cannot be shared out evenly, or a size is missing.
    """
    if cfg.DATALOADER.USE_DIFF_BS_SIZE:
        if not cfg.DATALOADER.MULTI_DATASET_GROUPING:
            raise UserError("DATALOADER.USE_DIFF_BS_SIZE needs DATALOADER.MULTI_DATASET_GROUPING True")
        check_per_dataset("DATALOADER.DATASET_BS", cfg.DATALOADER.DATASET_BS, datasets)
        return [int(size) for size in cfg.DATALOADER.DATASET_BS][:datasets]
    return images_per_rank(cfg)


def build_train_loader(
    cfg: CfgNode, start: int = 0, mapper: Callable[[dict[str, Any]], Any] | None = None
) -> DataLoader[Any]:
    """An endless loader of batches (lists of examples) for this rank.

    Args:
        cfg: with ``DATASETS.TRAIN``, ``DATALOADER``, ``INPUT`` and ``SOLVER`` as in published files.
        start: iteration that the run starts or continues with; the batches before it are skipped. Give ``SEED`` a value
            to get the same batches as the run that is resumed.
        mapper: record to example; default :class:`MixedDatasetMapper`.

    Raises:
        UserError: as :func:`training_records`, :func:`index_sampler`, :func:`images_per_batch`.
    """
    seed = seed_of_run(cfg, start)
    records, sizes = training_records(cfg)
    groups = batch_groups(
        [record["dataset_source"] for record in records],
        [record["width"] > record["height"] for record in records],
        by_dataset=cfg.DATALOADER.MULTI_DATASET_GROUPING,
        by_orientation=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
    )
    indices = index_sampler(cfg, records, sizes, seed)
    sizes_of_batches = images_per_batch(cfg, len(sizes))
    mapper = mapper or MixedDatasetMapper(cfg, True)
    workers = cfg.DATALOADER.NUM_WORKERS
    return seeded_loader(
        records, mapper, sizes_of_batches, seed, start=start, workers=workers, indices=indices, groups=groups
    )
