"""CLIP features of masked regions, each distinct one once, in batches; and of images of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from pomp_seg.regions.crops import check_expansion, distinct_masks, mask_boxes, masked_crops
from pomp_seg.regions.single_pass import SinglePassEncoder
from prompt_core.clip import Clip
from prompt_core.errors import UserError, nearest
from prompt_core.towers.placement import upload

BATCH = 32
REGION_FEATURES = ("crops", "one_by_one", "single_pass")
FILLS = ("mean", "zero")
LOGIT_SCALE = 100.0  # published segmenters use it, not CLIP's own


@dataclass(frozen=True)
class RegionOptions:
    """How CLIP encodes regions.

    Attributes:
        features: ``crops``; ``one_by_one``, its plain reference; or ``single_pass``, see
            :mod:`pomp_seg.regions.single_pass`.
        fill, expand, threshold, matting, batch_size: see :class:`RegionEncoder`.
        first_block: see :class:`pomp_seg.regions.single_pass.SinglePassEncoder`.
    """

    features: str = "crops"
    fill: str = "mean"
    expand: float = 1.0
    threshold: float = 0.5
    matting: bool = False
    batch_size: int = 0
    first_block: int = -3


def build_region_encoder(clip: Clip, options: RegionOptions) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The encoder that the options name: calls as :meth:`RegionEncoder.__call__`.

    Raises:
        UserError: an unknown fill or kind of region features, a box without extent, an image tower that
            ``single_pass`` cannot pool.
    """
    fill, features = options.fill, options.features
    if fill not in FILLS:
        raise UserError(f"MASK_FILL is {fill!r}; expected {' or '.join(FILLS)}{nearest(fill, FILLS)}")
    check_expansion(options.expand)
    if features not in REGION_FEATURES:
        raise UserError(
            f"REGION_FEATURES is {features!r}; expected {', '.join(REGION_FEATURES)}"
            f"{nearest(features, REGION_FEATURES)}"
        )
    if features == "single_pass":
        return SinglePassEncoder(clip, options.threshold, options.first_block)
    encoder = RegionEncoder(clip, fill, options.expand, options.threshold, options.matting, options.batch_size)
    return encoder.one_by_one if features == "one_by_one" else encoder


class RegionEncoder:
    """Crops regions and encodes them with a frozen CLIP image tower.

    Attributes:
        threshold: a pixel belongs to a region where the mask's probability is above it.
        expand: enlargement of the bounding boxes.
        matting: multiply by the probabilities instead of the binary mask.
        batch_size: regions that the image tower is given at once; 0 for :data:`BATCH`. A CPU takes them in smaller
            parts, see :meth:`prompt_core.clip.Clip.encode_image`.
    """

    def __init__(
        self,
        clip: Clip,
        fill: str = "mean",
        expand: float = 1.0,
        threshold: float = 0.5,
        matting: bool = False,
        batch_size: int = 0,
    ) -> None:
        """
        Args:
            fill: colour of pixels outside the mask: ``mean`` (the mean of CLIP's training images) or ``zero`` (black).
        """
        self.clip, self.expand, self.threshold, self.matting = clip, expand, threshold, matting
        self.batch_size = batch_size
        self._fill_is_mean = fill == "mean"

    @torch.no_grad()
    def __call__(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-norm features of the regions that are not empty.

        Equal regions are encoded once. Features equal those of :meth:`one_by_one` up to rounding.

        Args:
            image: (3, H, W) RGB in 0..255.
            masks: probabilities (Q, H, W).

        Returns:
            Features (V, E), and which of the Q regions they belong to: bool (Q,), V of them true.
        """
        binary = masks > self.threshold
        valid = binary.flatten(1).any(dim=1)
        if not bool(valid.any()):
            return masks.new_zeros(0, self.clip.embed_dim), valid
        inside = binary[valid]
        # Soft masks of equal binary masks may still differ.
        first, inverse = distinct_masks(masks[valid] if self.matting else inside)
        first, inverse = upload(first, masks.device), upload(inverse, masks.device)
        crops = self.crops(image, (masks[valid] if self.matting else inside)[first], inside[first])
        size = self.batch_size or BATCH
        features = torch.cat([self.clip.encode_image(part) for part in crops.split(size)])
        return features[inverse], valid

    @torch.no_grad()
    def one_by_one(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The plain reference: every region, even an empty one, cropped and encoded by itself.

        Returns:
            As :meth:`__call__`.
        """
        binary = masks > self.threshold
        valid = binary.flatten(1).any(dim=1)
        features = [
            self.clip.encode_image(self.crops(image, soft[None] if self.matting else hard[None], hard[None]))
            for soft, hard in zip(masks, binary, strict=True)
        ]
        return torch.cat(features)[valid], valid

    def crops(self, image: Tensor, masks: Tensor, binary: Tensor) -> Tensor:
        """Normalised crops (R, 3, S, S) of regions (R, H, W); an empty region is cropped to the whole image."""
        clip = self.clip
        mean, std = (
            255.0 * upload(torch.tensor(values, dtype=torch.float32), image.device)
            for values in (clip.image_mean, clip.image_std)
        )
        fill = mean if self._fill_is_mean else torch.zeros_like(mean)
        boxes = mask_boxes(binary)
        empty = ~binary.flatten(1).any(dim=1)[:, None]
        boxes[:, 2:3].masked_fill_(empty, image.shape[-1])
        boxes[:, 3:].masked_fill_(empty, image.shape[-2])
        return masked_crops(image, masks, boxes, clip.image_size, fill, mean, std, self.expand)


def similarity_logits(features: Tensor, class_features: Tensor, temperature: float = LOGIT_SCALE) -> Tensor:
    """Cosines (..., C) of features (..., E) of any norm with unit-norm class features (C, E), times ``temperature``."""
    return temperature * F.normalize(features, dim=-1) @ class_features.to(features).T


@torch.no_grad()
def encode_any_size(clip: Clip, images: Tensor) -> Tensor:
    """Unit-norm features (B, E) of normalised images (B, 3, H, W).

    Published prompt tuning crops regions to 224 x 244 pixels, which ZSSeg's copy of CLIP accepts
    (``third_party/CLIP/clip/model.py``); open_clip's towers accept only their own square. So vision transformers and
    CLIP's ResNets get position embeddings resized by bicubic interpolation. Towers without position embeddings accept
    any size; others get the images squeezed into their square.
    """
    square = (clip.image_size, clip.image_size)
    if tuple(images.shape[-2:]) == square:
        return clip.encode_image(images)
    visual: Any = clip.model.visual
    if hasattr(visual, "conv1") and hasattr(visual, "class_embedding"):
        side = visual.conv1.kernel_size[0]
        return _with_positions(clip, images, "positional_embedding", side)
    if hasattr(visual, "attnpool"):
        return _with_positions(clip, images, "attnpool.positional_embedding", 32)
    if any(name.split(".")[-1] in ("pos_embed", "positional_embedding") for name, _ in visual.named_parameters()):
        images = F.interpolate(images, size=square, mode="bicubic", align_corners=False)
    return clip.encode_image(images)


def _with_positions(clip: Clip, images: Tensor, key: str, stride: int) -> Tensor:
    """Features with the tower's position embeddings ``key`` resized to the image; ``stride`` pixels per position."""
    visual: Any = clip.model.visual
    positions = visual.get_parameter(key)
    grid = (images.shape[-2] // stride, images.shape[-1] // stride)
    resized = {key: resize_positions(positions, grid)}
    features = functional_call(visual, resized, (images.to(clip.device, clip.dtype),))
    return F.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1 + S * S, D), the class token's first, for another grid: (1 + h * w, D)."""
    side = round((len(positions) - 1) ** 0.5)
    places = positions[1:].T.reshape(1, -1, side, side)  # (1, D, S, S)
    places = F.interpolate(places, size=grid, mode="bicubic", align_corners=False)
    return torch.cat((positions[:1], places.flatten(2)[0].T))
