"""From a record of one class in one photo to an example of its region, for tuning the prompt on masked regions.

``INPUT.DATASET_MAPPER_NAME: mask_former_binary_semantic`` of published files (ZSSeg, arXiv 2112.14757, first stage).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.structures import Instances

from pomp_engine.data.photos import read_record_photo
from pomp_seg.data.augmentation import (
    IMAGE_PADDING,
    LabelResizeTransform,
    ResizeShortestEdge,
    centre_crop_or_pad,
    drawn_generator,
    nearest_positions,
    random_flip,
)
from pomp_seg.data.label_maps import check_ignore_label, read_record_labels
from pomp_seg.data.registration import dataset_labels
from pomp_seg.regions.crops import check_expansion, expanded_box
from prompt_core.data.augment import crop_box
from prompt_core.errors import UserError

CROP_AREA = (0.08, 1.0)
# Windows that are tried before one is placed on the mask.
MOST_DRAWS = 10

Window = tuple[int, int, int, int]  # left, upper, width, height in pixels


class RegionMapper:
    """Examples of masked regions. An example is the record, and

    - ``image``: (3, H, W) uint8, cut from the photo around the mask; pixels outside the mask are left as they are;
    - ``sem_seg``: (H, W) bool, the pixels of the class;
    - ``category_id``: class index of the region, as in the record;
    - ``instances``: the same as ``gt_classes`` (1,) int64 and ``gt_masks`` (1, H, W) bool.

    Photo and mask are cut to the mask's bounding box first, enlarged by ``expand``. In training a random window follows
    (8 % to 100 % of the box, aspect ratio 3/4 to 4/3), which is resized to ``train_size`` whatever its shape, and a
    flip. In evaluation the centre is cut out, or padded.

    A training mask is never empty: a window without any pixel of the mask is drawn again. A test mask can be empty,
    where the class is not in the centre of its bounding box.

    Args:
        is_train: random windows, or the centre.
        num_classes: label values are 0..num_classes-1 and ``ignore_label``.
        ignore_label: value of pixels without a class.
        train_size: width and height of training examples, in this order as published, where (224, 244) gives examples
            244 pixels high.
        test_size: H = W of test examples.
        resize_test: resize the shorter side to ``test_size`` before the centre is cut out; False, as published, cuts it
            out without resizing.
        test_longest: largest length of the longer side then, in pixels.
        expand: enlargement of the bounding box about its centre.
        flip: ``horizontal``, ``vertical`` or ``none``.
        image_format: order of the channels.

    Raises:
        UserError: for an unknown choice, or a number out of its range.
    """

    def __init__(
        self,
        is_train: bool,
        num_classes: int,
        ignore_label: int = 255,
        *,
        train_size: Sequence[int] = (224, 244),
        test_size: int = 224,
        resize_test: bool = False,
        test_longest: int = 2560,
        expand: float = 1.0,
        flip: str = "horizontal",
        image_format: str = "RGB",
    ) -> None:
        check_ignore_label(num_classes, ignore_label)
        check_expansion(expand)
        if is_train and (len(train_size) != 2 or min(train_size) < 1):
            raise UserError(
                f"INPUT.MIN_SIZE_TRAIN is {tuple(train_size)}; examples of regions need (width, height) in pixels, "
                "such as (224, 244)"
            )
        if not is_train and not 1 <= test_size <= test_longest:
            raise UserError(
                f"INPUT.MIN_SIZE_TEST is {test_size}, INPUT.MAX_SIZE_TEST {test_longest}; expected positive numbers of "
                "pixels, the second not below the first"
            )
        self.is_train = is_train
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.train_size = tuple(train_size)[::-1]  # height and width
        self.test_size = test_size
        self.resize_test, self.expand = resize_test, expand
        self.image_format = image_format
        self._flip = T.AugmentationList(random_flip(flip))
        self._test_resize = ResizeShortestEdge(test_size, test_longest)

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Read, cut and convert one record with ``category_id``; the record is not changed.

        Raises:
            UnreadableImage: a UserError that names the file, when the photo cannot be read or has another size than the
                record says.
            UserError: as :func:`pomp_seg.data.label_maps.read_record_labels`; when the record has no class, or its
                label map no pixel of that class.
        """
        example = dict(record)
        category = example.get("category_id")
        if category is None or not 0 <= category < self.num_classes:
            raise UserError(
                f"image {example['file_name']} has the class (category_id) {category}; expected "
                f"0..{self.num_classes - 1}, as in a …_classification data set"
            )
        photo = read_record_photo(example, self.image_format)
        labels = read_record_labels(example, photo.shape, self.num_classes, self.ignore_label)
        mask = labels == category
        if not mask.any():
            raise UserError(
                f"label file {example['sem_seg_file_name']} has no pixel of class {category}, which the list of labels "
                "says it has; prepare the data set again"
            )
        left, upper, width, height = mask_box(mask)
        left, upper, right, lower = expanded_box((left, upper, left + width, upper + height), self.expand, *mask.shape)
        inside = T.AugInput(photo[upper:lower, left:right], sem_seg=mask[upper:lower, left:right])
        image, mask = self._train(inside) if self.is_train else self._test(inside)
        example["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))  # (3, H, W)
        example["sem_seg"] = torch.as_tensor(np.ascontiguousarray(mask))  # (H, W)
        example["instances"] = Instances((mask.shape[0], mask.shape[1]))
        example["instances"].gt_classes = torch.tensor([category])
        example["instances"].gt_masks = example["sem_seg"][None]  # (1, H, W)
        return example

    def _train(self, region: T.AugInput) -> tuple[np.ndarray, np.ndarray]:
        left, upper, width, height = draw_window(region.sem_seg, self.train_size, drawn_generator())
        region.transform(T.CropTransform(left, upper, width, height))
        region.transform(LabelResizeTransform(height, width, *self.train_size))
        self._flip(region)
        return region.image, region.sem_seg

    def _test(self, region: T.AugInput) -> tuple[np.ndarray, np.ndarray]:
        if self.resize_test:
            self._test_resize(region)
        image = centre_crop_or_pad(region.image, self.test_size, IMAGE_PADDING)
        return image, centre_crop_or_pad(region.sem_seg, self.test_size, False)


def mask_box(mask: np.ndarray) -> Window:
    """The bounding box of a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, upper = int(columns[0]), int(rows[0])
    return left, upper, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - upper


def draw_window(mask: np.ndarray, size: Sequence[int], generator: random.Random) -> Window:
    """A random window of a mask (H, W) that shows some of it at ``size`` (height, width).

    Args:
        mask: with at least one pixel.
        size: the size that the window is resized to.
        generator: random generator.
    """
    height, width = mask.shape
    for _ in range(MOST_DRAWS):
        left, upper, right, lower = crop_box(width, height, CROP_AREA, generator)
        across, down = right - left, lower - upper
        rows, columns = nearest_positions(down, size[0]) + upper, nearest_positions(across, size[1]) + left
        if mask[rows[:, None], columns].any():
            return left, upper, across, down
    # A window that is not larger than ``size`` loses no pixel in resizing.
    across, down = min(width, size[1]), min(height, size[0])
    pixels = np.argwhere(mask)
    row, column = pixels[int(generator.random() * len(pixels))].tolist()
    left, upper = (
        min(max(place - side // 2, 0), whole - side)
        for place, side, whole in ((column, across, width), (row, down, height))
    )
    return left, upper, across, down


def build_region_mapper(cfg: CfgNode, is_train: bool = True, dataset_name: str = "") -> RegionMapper:
    """The mapper of masked regions by ``INPUT``.

    Args:
        is_train: for ``DATASETS.TRAIN``, else for evaluation.
        dataset_name: the test set; empty takes ``DATASETS.TEST``.

    Raises:
        UserError: as :class:`RegionMapper` and :func:`pomp_seg.data.registration.dataset_labels`.
    """
    tests = [dataset_name] if dataset_name else cfg.DATASETS.TEST
    num_classes, ignore_label = dataset_labels(cfg.DATASETS.TRAIN if is_train else tests)
    return RegionMapper(
        is_train,
        num_classes,
        ignore_label,
        train_size=cfg.INPUT.MIN_SIZE_TRAIN,
        test_size=cfg.INPUT.MIN_SIZE_TEST,
        test_longest=cfg.INPUT.MAX_SIZE_TEST,
        resize_test=cfg.INPUT.REGION_TEST_RESIZE,
        expand=cfg.MODEL.CLIP_ADAPTER.MASK_EXPAND_RATIO,
        flip=cfg.INPUT.RANDOM_FLIP,
        image_format=cfg.INPUT.FORMAT,
    )
