"""From a record with a label map to an example of a mask-classification or per-pixel model: training and evaluation.

``INPUT.DATASET_MAPPER_NAME: mask_former_semantic`` of published files (MaskFormer, arXiv 2107.06278, section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.structures import Instances
from torch import Tensor

from pomp_engine.data.photos import read_record_photo
from pomp_seg.data.augmentation import (
    CROP_TYPES,
    IMAGE_PADDING,
    RESIZE_SAMPLINGS,
    ColorJitter,
    ResizeShortestEdge,
    check_choice,
    pad_to_multiple,
    random_flip,
)
from pomp_seg.data.label_maps import check_ignore_label, present_classes, read_record_labels
from pomp_seg.data.registration import dataset_labels
from prompt_core.errors import UserError


class SemanticMapper:
    """Training examples with the whole label map. An example is the record, and

    - ``image``: (3, H, W) uint8, augmented and padded;
    - ``sem_seg``: (H, W) int64 class indices, ``ignore_label`` in the padding;
    - ``instances``: ``gt_classes`` (K,) int64, the K classes that occur, ascending, and ``gt_masks`` (K, H, W) bool,
      all pixels of each of them. K may be 0.

    Args:
        augmentations: of photo and labels, in order; see :func:`semantic_augmentations`.
        num_classes: label values are 0..num_classes-1 and ``ignore_label``.
        ignore_label: value of pixels without a class; 65535 where there are more than 255 classes.
        size_divisibility: H and W are padded to multiples of it, at the lower and right edge; -1 pads nothing.
        image_format: order of the channels.

    Raises:
        UserError: when ``ignore_label`` is a class, or there is none.
    """

    def __init__(
        self,
        augmentations: Sequence[Any],
        num_classes: int,
        ignore_label: int = 255,
        size_divisibility: int = -1,
        image_format: str = "RGB",
    ) -> None:
        check_ignore_label(num_classes, ignore_label)
        self.augmentations = T.AugmentationList(list(augmentations))
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.size_divisibility = size_divisibility
        self.image_format = image_format

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Read, augment and convert one record with ``file_name`` and ``sem_seg_file_name``; it is not changed.

        Raises:
            UnreadableImage: a UserError that names the file, when the photo cannot be read or has another size than the
                record says.
            UserError: as :func:`pomp_seg.data.label_maps.read_record_labels`.
        """
        example = dict(record)
        photo = read_record_photo(example, self.image_format)
        labels = read_record_labels(example, photo.shape, self.num_classes, self.ignore_label)
        augmented = T.AugInput(photo, sem_seg=labels)
        self.augmentations(augmented)
        image = pad_to_multiple(augmented.image, self.size_divisibility, IMAGE_PADDING)
        labels = pad_to_multiple(augmented.sem_seg, self.size_divisibility, self.ignore_label)
        example["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))  # (3, H, W)
        example["sem_seg"] = torch.as_tensor(labels.astype(np.int64))  # (H, W)
        example["instances"] = semantic_regions(example["sem_seg"], self.ignore_label)
        return example


def semantic_regions(labels: Tensor, ignore_label: int) -> Instances:
    """The region of each class that occurs in a label map (H, W): ``gt_classes`` (K,), ``gt_masks`` (K, H, W) bool."""
    classes = torch.as_tensor(present_classes(labels.numpy(), ignore_label))
    regions = Instances((labels.shape[0], labels.shape[1]))
    regions.gt_classes = classes
    regions.gt_masks = labels == classes[:, None, None]  # (K, H, W)
    return regions


def semantic_augmentations(
    short_sides: Sequence[int],
    longest: int,
    sampling: str = "choice",
    *,
    crop: tuple[str, Sequence[float]] | None = None,
    largest_share: float = 1.0,
    ignore_label: int = 255,
    color_jitter: bool = False,
    flip: str = "horizontal",
    image_format: str = "RGB",
) -> list[Any]:
    """Resize, crop, colour jitter and flip, as MaskFormer and ZSSeg train.

    Args:
        short_sides: length of the shorter side in pixels: one of them (``choice``) or between two (``range``).
        longest: largest length of the longer side in pixels.
        sampling: ``choice`` or ``range``.
        crop: type and size (height, width) of Detectron2's random crop; None crops nothing.
        largest_share: up to ten crops are tried until no class has more than this share of the labelled pixels; 1.0
            takes the first.
        ignore_label: value of pixels without a class, which do not count.
        color_jitter: SSD's.
        flip: ``horizontal``, ``vertical`` or ``none``.
        image_format: order of the channels.

    Raises:
        UserError: for an unknown choice, or a number out of its range.
    """
    check_choice("INPUT.MIN_SIZE_TRAIN_SAMPLING", sampling, RESIZE_SAMPLINGS)
    if not short_sides or min(short_sides) < 1 or longest < 1 or (sampling == "range" and len(short_sides) != 2):
        raise UserError(
            f"INPUT.MIN_SIZE_TRAIN is {tuple(short_sides)}, INPUT.MAX_SIZE_TRAIN {longest}; expected positive numbers "
            "of pixels, two of them with INPUT.MIN_SIZE_TRAIN_SAMPLING 'range'"
        )
    steps: list[Any] = [ResizeShortestEdge(tuple(short_sides), longest, sampling)]
    if crop is not None:
        steps.append(_crop(*crop, largest_share, ignore_label))
    if color_jitter:
        steps.append(ColorJitter(image_format))
    return steps + random_flip(flip)


def _crop(kind: str, size: Sequence[float], largest_share: float, ignore_label: int) -> T.Augmentation:
    check_choice("INPUT.CROP.TYPE", kind, CROP_TYPES)
    if not 0 < largest_share <= 1:
        raise UserError(f"INPUT.CROP.SINGLE_CATEGORY_MAX_AREA is {largest_share}; expected a share, 0 < share <= 1")
    relative = kind.startswith("relative")
    if len(size) != 2 or min(size) <= 0 or (relative and max(size) > 1):
        expected = "two shares of height and width, up to 1" if relative else "two positive numbers of pixels"
        raise UserError(f"INPUT.CROP.SIZE is {tuple(size)} for INPUT.CROP.TYPE {kind!r}; expected {expected}")
    return T.RandomCrop_CategoryAreaConstraint(kind, list(size), largest_share, ignore_label)


def build_semantic_mapper(cfg: CfgNode) -> SemanticMapper:
    """The mapper of training by ``INPUT``, for the classes of ``DATASETS.TRAIN``.

    Raises:
        UserError: as :class:`SemanticMapper`, :func:`semantic_augmentations` and
            :func:`pomp_seg.data.registration.dataset_labels`.
    """
    num_classes, ignore_label = dataset_labels(cfg.DATASETS.TRAIN)
    crop = cfg.INPUT.CROP
    augmentations = semantic_augmentations(
        cfg.INPUT.MIN_SIZE_TRAIN,
        cfg.INPUT.MAX_SIZE_TRAIN,
        cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
        crop=(crop.TYPE, crop.SIZE) if crop.ENABLED else None,
        largest_share=crop.SINGLE_CATEGORY_MAX_AREA,
        ignore_label=ignore_label,
        color_jitter=cfg.INPUT.COLOR_AUG_SSD,
        flip=cfg.INPUT.RANDOM_FLIP,
        image_format=cfg.INPUT.FORMAT,
    )
    return SemanticMapper(augmentations, num_classes, ignore_label, cfg.INPUT.SIZE_DIVISIBILITY, cfg.INPUT.FORMAT)


class EvaluationMapper:
    """Examples for evaluation: the record, and ``image``, (3, h, w) uint8, resized.

    ``height`` and ``width`` are those of the original photo, which predictions are resized to. Label files are read
    only for ``instances``, the resized regions of the ground truth (see :func:`semantic_regions`), where these are
    asked for: the evaluator reads them in their own size.

    Args:
        short_side: length of the shorter side, unless the longer one would exceed ``longest``; 0 keeps the size.
        longest: pixels.
        image_format: order of the channels.
        labels: number of classes and ignored value of the label files; None reads none of them.

    Raises:
        UserError: when a size is negative.
    """

    def __init__(
        self, short_side: int, longest: int, image_format: str = "RGB", labels: tuple[int, int] | None = None
    ) -> None:
        if short_side < 0 or longest < 1:
            raise UserError(
                f"INPUT.MIN_SIZE_TEST is {short_side}, INPUT.MAX_SIZE_TEST {longest}; expected positive numbers of "
                "pixels"
            )
        self.resize = ResizeShortestEdge(short_side, longest)
        self.image_format, self.labels = image_format, labels

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Read and resize the photo of a record; the record is not changed.

        Raises:
            UnreadableImage: a UserError that names the file, when the photo cannot be read or has another size than the
                record says.
            UserError: as :func:`pomp_seg.data.label_maps.read_record_labels`.
        """
        example = dict(record)
        photo = read_record_photo(example, self.image_format)  # also sets height and width
        truth = None if self.labels is None else read_record_labels(example, photo.shape, *self.labels)
        augmented = T.AugInput(photo, sem_seg=truth)
        self.resize(augmented)
        example["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))  # (3, h, w)
        if self.labels is not None:
            resized = torch.as_tensor(augmented.sem_seg.astype(np.int64))  # (h, w)
            example["instances"] = semantic_regions(resized, self.labels[1])
        return example


def build_test_mapper(cfg: CfgNode, dataset: str = "") -> EvaluationMapper:
    """The mapper of an evaluation by ``INPUT``, as published files set it.

    Args:
        dataset: whose label maps give the examples their regions, for
            :class:`pomp_seg.oracle_regions.OracleSegmenter`; empty reads no label maps.

    Raises:
        UserError: as :class:`EvaluationMapper`; an unknown data set.
    """
    labels = dataset_labels([dataset]) if dataset else None
    return EvaluationMapper(int(cfg.INPUT.MIN_SIZE_TEST), int(cfg.INPUT.MAX_SIZE_TEST), cfg.INPUT.FORMAT, labels)
