"""What COCO and LVIS annotation documents have to hold; keys that are not named here are left alone."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from pomp_engine.data.annotation_masks import RunLengths, Side
from prompt_core.documents.schema import Count, Int64

# Coordinates in pixels, which may lie a little outside.
Coordinate = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
Extent = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
Area = Annotated[float, msgspec.Meta(ge=0.0, le=1e18)]
CategoryIds = list[Int64]


class Image(msgspec.Struct, gc=False):
    """A photo: a file, a member of an archive, or a number in ImageNet-21K's archives."""

    id: Int64
    width: Side
    height: Side
    file_name: str | None = None
    coco_url: str | None = None
    tar: str | None = None
    offset: Count | None = None
    size: Count | None = None
    tar_index: Count | None = None
    pos_category_ids: CategoryIds | None = None
    captions: list[str] | None = None


class FederatedImage(Image, gc=False, kw_only=True):
    """A photo of LVIS."""

    neg_category_ids: CategoryIds = msgspec.field()
    not_exhaustive_category_ids: CategoryIds = msgspec.field()


class Category(msgspec.Struct, gc=False):
    """A class; ``frequency`` is LVIS's."""

    id: Int64
    name: str
    synset: str | None = None
    synonyms: list[str] | None = None
    frequency: str | None = None


class FederatedCategory(Category, gc=False, kw_only=True):
    """A class of LVIS."""

    frequency: str = msgspec.field()


class Annotation(msgspec.Struct, gc=False):
    """What it is of; whether box and mask can be used is for :class:`Shapes` to say."""

    id: Int64
    image_id: Int64
    category_id: Int64
    bbox: Any


class Shapes(msgspec.Struct, gc=False):
    """Box and mask that are numbers."""

    bbox: tuple[Coordinate, Coordinate, Coordinate, Coordinate]
    segmentation: list[list[Coordinate]] | RunLengths | None = None
    iscrowd: int | bool = 0


class ScoredAnnotation(msgspec.Struct, gc=False):
    """Ground truth as scorers take it."""

    bbox: tuple[Coordinate, Coordinate, Extent, Extent]
    segmentation: list[list[Coordinate]] | RunLengths | None = None
    area: Area | None = None
    iscrowd: Annotated[int, msgspec.Meta(ge=0, le=1)] | bool = 0
