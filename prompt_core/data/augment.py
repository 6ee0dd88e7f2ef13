"""Training augmentation: random resized crop, flip, RandAugment2; every draw comes from an explicit generator.

The recipe is that of POMP (arXiv 2304.04704): crop of 8-100 % of the area, horizontal flip, then two operations
drawn with replacement, each applied with probability 0.6 at a uniform magnitude.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json

if TYPE_CHECKING:
    import torch

# raised whenever the same settings would give different pixels, so that cached features are recomputed
RECIPE_VERSION = 1
OPERATIONS_PER_IMAGE = 2
OPERATION_PROBABILITY = 0.6
FLIP_PROBABILITY = 0.5
ASPECT_RATIO = (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One image operation with its magnitude range; ``signed`` flips the magnitude's sign at random."""

    apply: Callable[[Image.Image, float], Image.Image]
    low: float = 0.0
    high: float = 1.0
    signed: bool = False


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": Operation(lambda image, _: ImageOps.autocontrast(image)),
    "Brightness": Operation(lambda image, value: ImageEnhance.Brightness(image).enhance(value), 0.1, 1.9),
    "Color": Operation(lambda image, value: ImageEnhance.Color(image).enhance(value), 0.1, 1.9),
    "Contrast": Operation(lambda image, value: ImageEnhance.Contrast(image).enhance(value), 0.1, 1.9),
    "Equalize": Operation(lambda image, _: ImageOps.equalize(image)),
    "Identity": Operation(lambda image, _: image),
    "Invert": Operation(lambda image, _: ImageOps.invert(image)),
    "Posterize": Operation(lambda image, value: ImageOps.posterize(image, int(value)), 4, 8),
    "Rotate": Operation(lambda image, value: image.rotate(value), 0, 30, signed=True),
    "Sharpness": Operation(lambda image, value: ImageEnhance.Sharpness(image).enhance(value), 0.1, 1.9),
    "ShearX": Operation(lambda image, value: _affine(image, 1, value, 0, 0, 1, 0), 0, 0.3, signed=True),
    "ShearY": Operation(lambda image, value: _affine(image, 1, 0, 0, value, 1, 0), 0, 0.3, signed=True),
    "Solarize": Operation(lambda image, value: ImageOps.solarize(image, math.ceil(value)), 0, 256),
    "TranslateX": Operation(
        lambda image, value: _affine(image, 1, 0, value * image.width, 0, 1, 0), 0, 0.3, signed=True
    ),
    "TranslateY": Operation(
        lambda image, value: _affine(image, 1, 0, 0, 0, 1, value * image.height), 0, 0.3, signed=True
    ),
}
OPERATION_NAMES: tuple[str, ...] = tuple(OPERATIONS)


def view_generator(seed: int, key: str, view: int) -> random.Random:
    """The generator of one view of one photo: a function of its arguments only, in any order, process or machine.

    ``random.Random`` rather than a numpy generator: its ``random()`` stream is promised to stay the same.
    """
    text = json.dumps([int(seed), key, int(view)])
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))


def draw_operations(generator: random.Random) -> list[tuple[str, float]]:
    """The operations that are applied to one view, as (name, magnitude); between none and two."""
    drawn: list[tuple[str, float]] = []
    names = [OPERATION_NAMES[int(generator.random() * len(OPERATION_NAMES))] for _ in range(OPERATIONS_PER_IMAGE)]
    for name in names:
        if generator.random() >= OPERATION_PROBABILITY:
            continue
        operation = OPERATIONS[name]
        magnitude = operation.low + (operation.high - operation.low) * generator.random()
        if operation.signed and generator.random() < 0.5:
            magnitude = -magnitude
        drawn.append((name, magnitude))
    return drawn


def crop_box(width: int, height: int, scale: Sequence[float], generator: random.Random) -> tuple[int, int, int, int]:
    """A random (left, upper, right, lower) box in pixels: area within ``scale``, aspect ratio 3/4 to 4/3.

    Ten tries; after that the largest centred box of a permitted aspect ratio (Inception-style cropping, as in
    torchvision's RandomResizedCrop).
    """
    low, high = math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])
    for _ in range(10):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * generator.random())
        ratio = math.exp(low + (high - low) * generator.random())
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left = int(generator.random() * (width - across + 1))
            upper = int(generator.random() * (height - down + 1))
            return left, upper, left + across, upper + down
    ratio = min(max(width / height, ASPECT_RATIO[0]), ASPECT_RATIO[1])
    across, down = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    left, upper = (width - across) // 2, (height - down) // 2
    return left, upper, left + across, upper + down


@dataclasses.dataclass(frozen=True)
class TrainTransform:
    """Crop, flip, RandAugment2, normalise: ``(image, generator)`` to a (3, size, size) float32 tensor.

    Picklable; holds no state.

    Attributes:
        size: output side in pixels.
        mean, std: of each channel, in [0, 1] units.
        rand_augment: False leaves crop and flip only.
        scale: range of the crop's share of the image area; raise the lower end for small photos (Tiny-ImageNet),
            where 8 % of 64 x 64 pixels is only 18 pixels across.

    Raises:
        UserError: when a setting is out of range.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]
    rand_augment: bool = True
    scale: Sequence[float] = (0.08, 1.0)

    def __post_init__(self) -> None:
        # normalised types, since the fingerprint is computed from them
        for name, kind in (("size", int), ("rand_augment", bool)):
            object.__setattr__(self, name, kind(getattr(self, name)))
        for name in ("mean", "std", "scale"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if self.size < 1:
            raise UserError(f"image size {self.size}: expected a positive number of pixels")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(f"mean {self.mean}, std {self.std}: expected three numbers each, std above 0")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"crop scale {self.scale}: expected two shares of the image area, 0 < low <= high <= 1")

    def augment(self, image: Image.Image, generator: random.Random) -> Image.Image:
        """The augmented RGB photo, ``size`` x ``size``, before it becomes a tensor."""
        image = image.convert("RGB").crop(crop_box(image.width, image.height, self.scale, generator))
        image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        if generator.random() < FLIP_PROBABILITY:
            image = ImageOps.mirror(image)
        if self.rand_augment:
            for name, magnitude in draw_operations(generator):
                image = OPERATIONS[name].apply(image, magnitude)
        return image

    def __call__(self, image: Image.Image, generator: random.Random) -> torch.Tensor:
        import torch

        pixels = np.asarray(self.augment(image, generator), dtype=np.float32) / np.float32(255)
        pixels = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    @property
    def fingerprint(self) -> str:
        """sha256 of every setting that changes the pixels."""
        return sha256_of_json(["train_transform", RECIPE_VERSION, dataclasses.asdict(self)])
