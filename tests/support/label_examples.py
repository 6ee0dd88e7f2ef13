"""Small label maps with photos whose colours tell the labels, and what examples made from them must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

CLASSES = 6
IGNORE = 255
# Colour of each class, of ignored pixels last: far apart, so that mixtures at edges are no other class's.
COLOURS = np.array([[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0], [0, 250, 250], [250, 250, 250]])


def photo_of(labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 whose colours tell the labels."""
    return COLOURS[np.where(labels == IGNORE, CLASSES, labels)].astype(np.uint8)


def write_record(folder: Path, labels: np.ndarray, photo: np.ndarray | None = None, **keys: Any) -> dict[str, Any]:
    """A photo and its label image on disk, as a Detectron2 record."""
    paths = folder / "photo.png", folder / "labels.png"
    Image.fromarray(photo_of(labels) if photo is None else photo).save(paths[0])
    Image.fromarray(labels).save(paths[1])
    return {"file_name": str(paths[0]), "sem_seg_file_name": str(paths[1]), **keys}


def blocks(rows: int, columns: int, size: int = 12, seed: int = 0) -> np.ndarray:
    """(rows * size, columns * size) uint8 labels in squares of one class; some are ignored."""
    drawn = np.random.default_rng(seed).integers(0, CLASSES + 1, (rows, columns))
    drawn[drawn == CLASSES] = IGNORE
    return np.kron(drawn, np.ones((size, size), np.int64)).astype(np.uint8)


def seeded(mapper: Any, record: dict[str, Any], seed: int) -> dict[str, Any]:
    """An example of a given draw, as a loader makes it."""
    np.random.seed(seed)  # noqa: NPY002
    example: dict[str, Any] = mapper(record)
    return example


def interior(labels: np.ndarray, radius: int, beyond: str = "other") -> np.ndarray:
    """(H, W) bool: pixels that have only their own class within ``radius``; ``beyond`` says what the border has."""
    inside = np.ones(labels.shape, bool)
    height, width = labels.shape
    labels = labels.astype(np.int64)
    padded = np.pad(labels, radius, mode="edge") if beyond == "same" else np.pad(labels, radius, constant_values=-1)
    for row in range(2 * radius + 1):
        for column in range(2 * radius + 1):
            inside &= padded[row : row + height, column : column + width] == labels
    return inside


def assert_aligned(image: torch.Tensor, labels: np.ndarray, radius: int) -> int:
    """Colours tell the labels away from edges; returns the number of pixels that were compared."""
    inside = interior(labels, radius)
    assert np.array_equal(image.permute(1, 2, 0).numpy()[inside], photo_of(labels)[inside])
    return int(inside.sum())


def assert_partition(example: dict[str, Any], ignore_label: int = IGNORE) -> None:
    """The masks share out the pixels that are not ignored, each to the class of its pixels."""
    labels, regions = example["sem_seg"], example["instances"]
    assert labels.dtype == torch.int64
    assert regions.gt_masks.dtype == torch.bool
    assert regions.gt_classes.dtype == torch.int64
    assert regions.image_size == tuple(labels.shape) == tuple(example["image"].shape[1:])
    assert regions.gt_masks.shape == (len(regions.gt_classes), *labels.shape)
    assert regions.gt_masks.flatten(1).any(dim=1).all()
    assert torch.equal(regions.gt_masks.sum(dim=0), (labels != ignore_label).long())
    assert regions.gt_classes.tolist() == sorted(set(labels.unique().tolist()) - {ignore_label})
    for category, mask in zip(regions.gt_classes, regions.gt_masks, strict=True):
        assert (labels[mask] == category).all()
