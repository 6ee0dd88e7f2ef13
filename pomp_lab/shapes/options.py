"""The options of the embedded data set, and each of its images by index.

Each image has its own random numbers, seeded by (seed, part, split, class or nothing, index): a set with more images
or more classification classes starts with the images of the smaller one. Training scenes draw classes with the weights
of the long tail, validation scenes uniformly, so that a few scenes are enough to measure rare ones. Distractors of
training images are base classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from pomp_lab.shapes.annotations import federated_fields
from pomp_lab.shapes.classes import ShapeClass, class_names, sample_classes, shape_classes
from pomp_lab.shapes.render import Scene, render_classification_image, render_scene
from pomp_lab.shapes.variants import VARIANTS
from prompt_core.errors import UserError, nearest

VERSION = 1
PARTS = ("classification", "scenes")
MASKS = ("polygons", "rle")
# Image ids of the validation scenes start here, so that both splits can be merged.
VAL_IMAGE_IDS = 1_000_000
SPLITS = {"train": 0, "val": 1}
_CLASSIFICATION, _SCENES, _FEDERATED = 10, 11, 12


@dataclass(frozen=True)
class ShapesOptions:
    """Everything that the bytes of the data set depend on.

    Attributes:
        classes: size of the vocabulary, None for all.
        classification_classes: how many of them have classification images, None for 200 or all.
        train_images_per_class, val_images_per_class: classification images of each class.
        classification_size, scene_size: side in pixels.
        scenes, val_scenes: how many scenes for training and validation.
        masks: ``"polygons"`` or ``"rle"`` (uncompressed) in the COCO files; LVIS files always hold polygons.

    Raises:
        UserError: when a value is out of range.
    """

    seed: int = 0
    classes: int | None = None
    classification_classes: int | None = None
    train_images_per_class: int = 16
    val_images_per_class: int = 4
    classification_size: int = 96
    scenes: int = 500
    val_scenes: int = 100
    scene_size: int = 256
    parts: tuple[str, ...] = PARTS
    variant: str = "plain"
    masks: str = "polygons"

    def __post_init__(self) -> None:
        total = len(class_names())
        object.__setattr__(self, "classes", total if self.classes is None else self.classes)
        assert self.classes is not None
        if self.classification_classes is None:
            object.__setattr__(self, "classification_classes", min(200, self.classes))
        for name, least, most in (
            ("seed", 0, 2**32 - 1),
            ("classes", 2, total),
            ("classification_classes", 2, self.classes),
            ("train_images_per_class", 1, 100_000),
            ("val_images_per_class", 1, 100_000),
            ("classification_size", 32, 1024),
            ("scenes", 1, VAL_IMAGE_IDS - 1),
            ("val_scenes", 1, VAL_IMAGE_IDS - 1),
            ("scene_size", 64, 2048),
        ):
            if not least <= getattr(self, name) <= most:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} is {getattr(self, name)}; expected a number from {least} to {most}")
        for name, value, known in (
            *(("--parts", part, PARTS) for part in self.parts or ("",)),
            ("--variant", self.variant, tuple(VARIANTS)),
            ("--masks", self.masks, MASKS),
        ):
            if value not in known:
                raise UserError(f"{name}: {value!r} is unknown; expected {', '.join(known)}{nearest(value, known)}")
        object.__setattr__(self, "parts", tuple(part for part in PARTS if part in self.parts))

    def manifest(self) -> dict[str, Any]:
        """What ``shapes.json`` holds."""
        return {"data_set": "shapes", "version": VERSION, "options": {**asdict(self), "parts": list(self.parts)}}


@lru_cache(maxsize=4)
def vocabulary(count: int | None, seed: int) -> tuple[ShapeClass, ...]:
    """:func:`pomp_lab.shapes.classes.shape_classes`, remembered."""
    return tuple(shape_classes(count, seed))


@lru_cache(maxsize=4)
def _base_vocabulary(count: int | None, seed: int) -> tuple[ShapeClass, ...]:
    return tuple(item for item in vocabulary(count, seed) if not item.novel)


def classification_classes(options: ShapesOptions) -> list[ShapeClass]:
    """The classes that have classification images, sorted by name, with their ids in the whole vocabulary."""
    assert options.classification_classes is not None
    everything = list(vocabulary(options.classes, options.seed))
    return sample_classes(everything, options.classification_classes, options.seed)


def classification_image(options: ShapesOptions, split: str, shown: ShapeClass, index: int) -> np.ndarray:
    """Image ``index`` of a class in a split: (S, S, 3) uint8."""
    rng = np.random.default_rng([options.seed, _CLASSIFICATION, SPLITS[split], shown.key, index])
    others = (vocabulary if split == "val" else _base_vocabulary)(options.classes, options.seed)
    image = render_classification_image(shown, others, options.classification_size, rng)
    return VARIANTS[options.variant](image)


def scene(options: ShapesOptions, split: str, index: int) -> Scene:
    """Scene ``index`` of a split."""
    classes = vocabulary(options.classes, options.seed)
    weights = np.array([item.weight if split == "train" else 1.0 for item in classes])
    rng = np.random.default_rng([options.seed, _SCENES, SPLITS[split], index])
    drawn = render_scene(classes, weights / weights.sum(), options.scene_size, rng)
    return replace(drawn, image=VARIANTS[options.variant](drawn.image))


def federated(options: ShapesOptions, split: str, index: int, drawn: Scene) -> tuple[list[int], list[int], list[int]]:
    """:func:`pomp_lab.shapes.annotations.federated_fields` of scene ``index``, already rendered as ``drawn``."""
    rng = np.random.default_rng([options.seed, _FEDERATED, SPLITS[split], index])
    return federated_fields(drawn, vocabulary(options.classes, options.seed), rng)
