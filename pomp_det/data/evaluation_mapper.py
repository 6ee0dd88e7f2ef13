"""From a record to a test example: the photo resized as in evaluation and, on request, its ground truth."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T

from pomp_engine.data.photos import read_record_photo
from prompt_core.errors import UserError, nearest

TEST_INPUT_TYPES = ("default", "square")


class GroundTruthMapper(DatasetMapper):
    """Detectron2's examples of an evaluation, with photos out of archives too, and on request their ground truth.

    An example is the record without its annotations, and

    - ``image``: (3, H, W) uint8, resized;
    - ``instances``, with ground truth only: ``gt_boxes`` and ``gt_classes`` in pixels of the resized image. Crowd
      regions are left out, as in training: they are no single object.
    """

    @configurable
    def __init__(self, *, resize: T.Augmentation, image_format: str, with_ground_truth: bool = False) -> None:
        """
        Args:
            resize: how a photo is resized.
            image_format: order of the channels, as ``INPUT.FORMAT``.
            with_ground_truth: give ``instances``.
        """
        super().__init__(is_train=False, augmentations=[resize], image_format=image_format)
        self.with_ground_truth = with_ground_truth

    @classmethod
    def from_config(cls, cfg: CfgNode, with_ground_truth: bool = False) -> dict[str, Any]:
        """Arguments by ``INPUT``, as published files set them."""
        return {
            "resize": evaluation_resize(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "with_ground_truth": with_ground_truth,
        }

    def __call__(self, dataset_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Read, resize and convert one record, which is left as it is.

        Raises:
            UnreadableImage: a UserError that names the file, when the photo cannot be read or has another size than the
                record says.
            UserError: when ground truth is requested and the record has no annotations.
        """
        example = dict(dataset_dict)
        if not self.with_ground_truth:
            example.pop("annotations", None)
        elif example.get("annotations") is None:
            raise UserError(f"image {example['file_name']} has no annotations; give a data set with boxes")
        augmented = T.AugInput(read_record_photo(example, self.image_format))
        example.pop("tar", None)
        transforms = self.augmentations(augmented)
        example["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))  # (3, H, W)
        if self.with_ground_truth:
            example["annotations"] = copy.deepcopy(example["annotations"])  # it is changed
            self._transform_annotations(example, transforms, augmented.image.shape[:2])
        return example


def evaluation_resize(cfg: CfgNode) -> T.Augmentation:
    """How photos are resized in evaluation, by ``INPUT.TEST_INPUT_TYPE``.

    ``default`` brings the shorter side to ``INPUT.MIN_SIZE_TEST`` unless the longer one would exceed
    ``INPUT.MAX_SIZE_TEST``; ``square`` brings the longer side to ``INPUT.TEST_SIZE``. Neither pads nor crops.

    Raises:
        UserError: for any other value.
    """
    kind = cfg.INPUT.TEST_INPUT_TYPE
    if kind not in TEST_INPUT_TYPES:
        raise UserError(
            f"INPUT.TEST_INPUT_TYPE is {kind!r}; expected {', '.join(TEST_INPUT_TYPES)}"
            f"{nearest(str(kind), TEST_INPUT_TYPES)}"
        )
    if kind == "square":
        return T.ResizeScale(1.0, 1.0, cfg.INPUT.TEST_SIZE, cfg.INPUT.TEST_SIZE)
    (shortest_edge,) = detection_utils.build_augmentation(cfg, is_train=False)
    return shortest_edge


def build_test_mapper(cfg: CfgNode, with_ground_truth: bool = False) -> GroundTruthMapper:
    """The mapper of an evaluation.

    Args:
        with_ground_truth: examples carry ``instances``, for :class:`pomp_det.oracle.OracleDetector`.

    Raises:
        UserError: as :func:`evaluation_resize`.
    """
    mapper: GroundTruthMapper = GroundTruthMapper(cfg, with_ground_truth=with_ground_truth)
    return mapper
