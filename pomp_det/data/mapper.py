"""From a record to a training example, with each data set's own input size and kind of annotation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from fvcore.transforms.transform import CropTransform, Transform

from pomp_det.data.region_cache import CachedRegions, RegionCache
from pomp_det.data.tar_index import TarIndex
from pomp_engine.data.photos import read_record_photo
from prompt_core.data.open_photo import UnreadableImage
from prompt_core.errors import UserError, nearest
from prompt_core.files import resolve_path

VISIBLE = 0.7  # the share of a region that a crop of the photo has to keep
SMALLEST_SIDE = 8  # pixels; a crop of less is mostly what resizing makes of it
# Boxes; classes of the image; captions; captions and the classes that they name.
ANNOTATION_KINDS = ("box", "image", "caption", "captiontag")


class MixedDatasetMapper(DatasetMapper):
    """Detectron2's mapper for records of several data sets.

    A record's ``dataset_source`` picks augmentations and annotation kind. An example has Detectron2's keys and

    - ``ann_type``: one of :data:`ANNOTATION_KINDS`;
    - ``pos_category_ids``: class indices that are in the image (empty for boxes);
    - ``captions``: texts, where the record has them;
    - ``dataset_source``: number of the data set;
    - ``regions``: boxes with a ``region_cache``, see :func:`moved_regions`.

    Examples of image labels carry ``instances`` without any instance.
    """

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentations_per_dataset: Sequence[Sequence[Any]],
        annotation_kinds: Sequence[str],
        image_format: str,
        use_instance_mask: bool = False,
        instance_mask_format: str = "polygon",
        tar_index: TarIndex | None = None,
        region_cache: RegionCache | None = None,
        max_regions: int = 32,
    ) -> None:
        """
        Args:
            tar_index: where photos are that records only number.
            region_cache: embeddings of regions that box examples carry.
            max_regions: the best of them in an example.
        """
        super().__init__(
            is_train,
            augmentations=augmentations_per_dataset[0],
            image_format=image_format,
            use_instance_mask=use_instance_mask,
            instance_mask_format=instance_mask_format,
        )
        self.augmentations_per_dataset = [
            T.AugmentationList(list(augmentations)) for augmentations in augmentations_per_dataset
        ]
        self.annotation_kinds = list(annotation_kinds)
        self.tar_index = tar_index
        self.region_cache, self.max_regions = region_cache, max_regions

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments by ``INPUT`` and ``DATALOADER``, as published files set them."""
        head = cfg.MODEL.ROI_BOX_HEAD
        return {
            "is_train": is_train,
            "augmentations_per_dataset": augmentations_of_config(cfg),
            "annotation_kinds": annotation_kinds(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "tar_index": _tar_index(cfg) if cfg.DATALOADER.USE_TAR_DATASET else None,
            "region_cache": _region_cache(head) if head.DISTILLATION_FILE else None,
            "max_regions": head.DISTILLATION_PROPOSALS,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read, augment and convert one record.

        Raises:
            UnreadableImage: when the photo cannot be read or has another size than the record says.
        """
        record = copy.deepcopy(dataset_dict)
        source = record.setdefault("dataset_source", 0)
        kind = self.annotation_kinds[source]
        self._find_photo(record)
        image = read_record_photo(record, self.image_format)
        augmented = T.AugInput(image)
        transforms = self.augmentations_per_dataset[source](augmented)
        shape = augmented.image.shape[:2]
        record["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))  # (3, H, W)
        record.pop("tar", None)
        record["ann_type"] = kind
        record.setdefault("pos_category_ids", [])
        if kind == "box":
            self._transform_annotations(record, transforms, shape)
            if self.region_cache is not None:
                cached = self.region_cache.regions(record["image_id"]) or self.region_cache.nothing
                record["regions"] = moved_regions(cached, transforms, shape, self.max_regions)
        else:
            record.pop("annotations", None)
            record["instances"] = _no_instances(shape)
        return record

    def _find_photo(self, record: dict[str, Any]) -> None:
        if "tar_index" not in record:
            return
        if self.tar_index is None:
            raise UserError(
                "photos are known by their number in ImageNet-21K's archives (tar_index); set "
                "DATALOADER.USE_TAR_DATASET to True"
            )
        try:
            record["tar"] = self.tar_index.place(record["tar_index"])
        except OSError as error:
            raise UnreadableImage(record["file_name"], str(error)) from error
        record["file_name"] = f"{record['tar'][0]}, photo {record['tar_index']}"


def _tar_index(cfg: CfgNode) -> TarIndex:
    return TarIndex(resolve_path(cfg.DATALOADER.TARFILE_PATH), resolve_path(cfg.DATALOADER.TAR_INDEX_DIR))


def _region_cache(head: CfgNode) -> RegionCache:
    cache = RegionCache(resolve_path(head.DISTILLATION_FILE))
    if cache.width != head.ZEROSHOT_WEIGHT_DIM:
        raise UserError(
            f"{head.DISTILLATION_FILE} has embeddings of width {cache.width}, MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM "
            f"is {head.ZEROSHOT_WEIGHT_DIM}; make them with the CLIP of the class matrix"
        )
    return cache


def _no_instances(shape: tuple[int, int]) -> Instances:
    empty = Instances(shape)
    empty.gt_boxes = Boxes(torch.zeros(0, 4))
    empty.gt_classes = torch.zeros(0, dtype=torch.int64)
    return empty


def moved_regions(cached: CachedRegions, transforms: Transform, shape: tuple[int, int], limit: int) -> Instances:
    """The best regions that an augmentation leaves whole, with the embeddings that they had in the photo.

    Args:
        cached: of the photo.
        transforms: from the photo to the example.
        shape: height and width of the example.

    Returns:
        ``proposal_boxes`` in pixels of the example and ``embeddings``. A region of which less than
        :data:`VISIBLE` is left, or less than :data:`SMALLEST_SIDE` pixels of a side, is left out: it shows something
        else now.
    """
    boxes = torch.as_tensor(transforms.apply_box(cached.boxes.numpy()), dtype=torch.float32)  # (R, 4)
    clipped = Boxes(boxes.clone())
    clipped.clip(shape)
    sides = clipped.tensor[:, 2:] - clipped.tensor[:, :2]
    left = clipped.area() >= VISIBLE * Boxes(boxes).area()
    rows = (left & (sides >= SMALLEST_SIDE).all(dim=1)).nonzero().squeeze(1)[:limit]
    return Instances(shape, proposal_boxes=clipped[rows], embeddings=cached.embeddings[rows])


def annotation_kinds(cfg: CfgNode) -> list[str]:
    """Kind of annotation of each training set: ``DATASET_ANN`` with ``WITH_IMAGE_LABELS``, else boxes.

    Raises:
        UserError: for an unknown kind, too few of them, or captions that nothing would learn from.
    """
    count = len(cfg.DATASETS.TRAIN)
    kinds = list(cfg.DATALOADER.DATASET_ANN) if cfg.WITH_IMAGE_LABELS else ["box"] * count
    check_per_dataset("DATALOADER.DATASET_ANN", kinds, count)
    for kind in kinds[:count]:
        if kind not in ANNOTATION_KINDS:
            raise UserError(
                f"DATALOADER.DATASET_ANN has {kind!r}; expected {', '.join(ANNOTATION_KINDS)}"
                f"{nearest(kind, ANNOTATION_KINDS)}"
            )
        if kind.startswith("caption") and not cfg.MODEL.WITH_CAPTION:
            raise UserError(f"DATALOADER.DATASET_ANN has {kind!r}, and MODEL.WITH_CAPTION is False; set it to True")
    return kinds[:count]


def augmentations_of_config(cfg: CfgNode) -> list[list[Any]]:
    """Augmentations of each training set.

    ``INPUT.CUSTOM_AUG`` is ``EfficientDetResizeCrop`` (scale jitter and crop), ``ResizeShortestEdge``, or empty for
    Detectron2's own. With ``USE_DIFF_BS_SIZE`` the sizes are those of each data set, as in Detic
    (``DATASET_INPUT_SIZE``, ``DATASET_INPUT_SCALE``, ``DATASET_MIN_SIZES``, ``DATASET_MAX_SIZES``).

    Raises:
        UserError: for an unknown augmentation, or too few sizes.
    """
    count, loader = len(cfg.DATASETS.TRAIN), cfg.DATALOADER
    name = cfg.INPUT.CUSTOM_AUG
    known = ("EfficientDetResizeCrop", "ResizeShortestEdge", "")
    if name not in known:
        raise UserError(f"INPUT.CUSTOM_AUG is {name!r}; expected {', '.join(map(repr, known))}{nearest(name, known)}")
    style = cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    if name == "EfficientDetResizeCrop":
        if not loader.USE_DIFF_BS_SIZE:
            return [scale_jitter(cfg.INPUT.TRAIN_SIZE, cfg.INPUT.SCALE_RANGE)] * count
        check_per_dataset("DATALOADER.DATASET_INPUT_SIZE", loader.DATASET_INPUT_SIZE, count)
        check_per_dataset("DATALOADER.DATASET_INPUT_SCALE", loader.DATASET_INPUT_SCALE, count)
        sizes = zip(loader.DATASET_INPUT_SIZE, loader.DATASET_INPUT_SCALE, strict=False)
        return [scale_jitter(size, scale) for size, scale in sizes][:count]
    if name == "ResizeShortestEdge" and loader.USE_DIFF_BS_SIZE:
        check_per_dataset("DATALOADER.DATASET_MIN_SIZES", loader.DATASET_MIN_SIZES, count)
        check_per_dataset("DATALOADER.DATASET_MAX_SIZES", loader.DATASET_MAX_SIZES, count)
        ranges = zip(loader.DATASET_MIN_SIZES, loader.DATASET_MAX_SIZES, strict=False)
        return [shortest_edge(short, longest, style) for short, longest in ranges][:count]
    configured: list[Any] = detection_utils.build_augmentation(cfg, is_train=True)
    return [configured] * count


def check_per_dataset(key: str, values: Sequence[Any], count: int) -> None:
    """Check that a key of one value for each training set has enough of them.

    Raises:
        UserError: when it has fewer.
    """
    if len(values) < count:
        raise UserError(f"{key} has {len(values)} values for {count} data sets in DATASETS.TRAIN; give one for each")


class ShiftingCrop(CropTransform):
    """A crop that shifts polygons with the image and does not cut them.

    fvcore's crop intersects polygons with the crop, which needs shapely and time. Masks are only ever drawn inside a
    box, and boxes are cut at the edge, so what hangs over an edge changes nothing.
    """

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Polygons (n, 2) each, in coordinates of the crop; points may be outside it."""
        return [self.apply_coords(polygon) for polygon in polygons]


class RandomCropToSize(T.Augmentation):
    """A square crop at a random place, without padding. Smaller images stay as they are.

    Detectron2's ``FixedSizeCrop`` draws one number for both directions, so that its crops lie on a diagonal of the
    image; here each direction has its own, as in Detic.

    Args:
        size: side of the crop in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def get_transform(self, image: np.ndarray) -> Transform:
        """A crop at a random place of ``image`` (H, W, C)."""
        height, width = image.shape[:2]
        y, x = (int(np.random.randint(max(side - self.size, 0) + 1)) for side in (height, width))  # noqa: NPY002
        return ShiftingCrop(x, y, self.size, self.size, width, height)


def scale_jitter(size: int, scale: Sequence[float]) -> list[Any]:
    """Fit into ``size`` times a random number, keep the aspect ratio, crop to ``size``, flip half of the time.

    Args:
        size: side of the training image in pixels.
        scale: least and greatest factor, as in ``DATASET_INPUT_SCALE`` (0.1, 2.0).
    """
    return [T.ResizeScale(scale[0], scale[1], size, size), RandomCropToSize(size), T.RandomFlip()]


def shortest_edge(short_sides: Sequence[int], longest: int, style: str = "range") -> list[Any]:
    """Resize the shorter side into a range (or to one of a choice), the longer one to ``longest`` at most; flip."""
    return [T.ResizeShortestEdge(tuple(short_sides), longest, style), T.RandomFlip()]
