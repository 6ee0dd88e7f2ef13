"""Regions of photos from outside, in the place of a model's own proposals (``MODEL.PROPOSALS.FILE``).

What is read:

- a list of COCO results, of any detector: ``[{"image_id", "bbox", "score", "segmentation"}, …]``; ``image_id`` is the
  data set's number of the photo, or a text with the photo's name;
- a COCO document with ``images`` and ``annotations``, such as ``detections.json`` of ``tools/predict.py``;
- what the automatic mask generator of Segment Anything gives (arXiv 2304.02643): a list of ``{"segmentation", "bbox",
  "predicted_iou", "stability_score"}`` for a photo, also under ``annotations`` as in SA-1B: a folder with one
  ``PHOTO.json`` for each photo, one such file, or an object of lists by the names of photos.

Boxes are x, y, width, height in pixels of the photo; masks are polygons or run lengths of the whole photo. A region's
score, in 0..1, is ``score``, else ``predicted_iou`` (at most 1), else 1. A region that is listed several times, as
detectors list a box once for each class that it may be, is one region with the best of its scores.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from detectron2.config import CfgNode
from pycocotools import mask as run_lengths

from pomp_engine.data.annotation_masks import RunLengths, is_polygon, mask_fault
from pomp_engine.data.photo_names import PhotoNames
from prompt_core.documents.bounds import SMALL_BYTES
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import Finite, Int64, check_each
from prompt_core.errors import UserError
from prompt_core.files import resolve_path
from prompt_core.visible import shortened, visible, visible_path

_Coordinate = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
_Extent = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
_KINDS = (
    "a list of COCO results with image_id, a COCO document with images and annotations, or the regions of Segment "
    "Anything as a list, by the names of photos, or in a folder of PHOTO.json"
)
_logger = logging.getLogger(__name__)


class Region(msgspec.Struct, gc=False):
    """A box, a mask or both."""

    bbox: tuple[_Coordinate, _Coordinate, _Extent, _Extent] | None = None
    segmentation: list[list[_Coordinate]] | RunLengths | None = None
    score: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None
    predicted_iou: Finite | None = None


class Result(Region, gc=False, kw_only=True):
    """A region and its photo."""

    image_id: Int64 | str


class Photo(msgspec.Struct, gc=False):
    """A photo of a COCO document."""

    id: Int64 | str
    file_name: str | None = None
    coco_url: str | None = None


class GivenRegions(NamedTuple):
    """The regions of one photo, by falling score.

    Attributes:
        boxes: (R, 4) float32, x0, y0, x1, y1 in pixels of the photo, inside it.
        scores: (R,) float32 in 0..1.
        masks: R compressed run lengths of the whole photo; None where no region of the file has a mask, else the mask
            of one that has none is its box.
    """

    boxes: np.ndarray
    scores: np.ndarray
    masks: list[dict[str, Any]] | None


class ProposalFile:
    """Regions by photo. Files of a folder are read when their photo comes.

    Args:
        path: see the top of this module.
        limit: the best regions of a photo that are used.

    Raises:
        UserError: when it is absent, too large, of no kind that is known, or of another schema.
    """

    def __init__(self, path: str | Path, limit: int = 300) -> None:
        self.path, self.limit, self._with_masks = Path(path), limit, False
        self._boxes_alone = False  # what comes later must not change what a photo's regions were before
        self._by_id: dict[int, list[Any]] = {}
        self._by_name: PhotoNames[Path | list[Any]] = PhotoNames(visible_path(self.path))
        if self.path.is_dir():
            files = sorted(self.path.rglob("*.json"))
            for file in files:
                self._by_name.add(file.relative_to(self.path).as_posix(), file)
            lists = (self._regions_of_file(read_json(file, SMALL_BYTES), file) for file in files)
            next(filter(None, lists), None)  # the first photo that has regions says whether they have masks
            self._boxes_alone = not self._with_masks
        else:
            self._take(read_json(self.path))
        if not self._by_id and not len(self._by_name):
            raise UserError(f"{visible_path(self.path)} has no regions; expected {_KINDS}")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ProposalFile | None:
        """That of ``MODEL.PROPOSALS``; None where no file is named."""
        file, limit = cfg.MODEL.PROPOSALS.FILE, cfg.MODEL.PROPOSALS.LIMIT
        return cls(resolve_path(file), limit) if file else None

    def regions(self, photo: Mapping[str, Any], height: int, width: int) -> GivenRegions | None:
        """The regions of a photo; None where there is no entry of it.

        Args:
            photo: with ``image_id``, ``file_name`` or both, as records of data sets have them.
            height, width: of the photo, in pixels.

        Raises:
            UserError: when several entries can be this photo's, or a mask is of another size than the photo.
        """
        items = self._find(photo)
        if isinstance(items, Path):
            items = self._regions_of_file(read_json(items, SMALL_BYTES), items)
        return None if items is None else self._usable(items, height, width, photo)

    def require(self, name: str) -> None:
        """Check that there is an entry of a photo.

        Raises:
            UserError: when there is none.
        """
        if self._find({"file_name": name}) is None:
            raise UserError(f"{visible_path(self.path)} has no regions of it")

    def say_absent(self, dataset: str, records: Iterable[Mapping[str, Any]]) -> int:
        """Count the photos of a data set without an entry, and log them; they are as photos without regions.

        Raises:
            UserError: when no photo has one.
        """
        names = [str(record.get("file_name", "?")) for record in records if self._find(record) is None]
        total = len(list(records)) if not isinstance(records, Sequence) else len(records)
        if total and len(names) == total:
            raise UserError(
                f"{visible_path(self.path)} has no regions of any of the {total} photos of data set {dataset!r}; "
                "photos are found by image_id or by name"
            )
        if names:
            _logger.warning(
                "%d of %d photos of %s have no entry in %s, such as %s; nothing is found in them",
                len(names), total, dataset, visible_path(self.path), names[0],
            )  # fmt: skip
        return len(names)

    def _find(self, photo: Mapping[str, Any]) -> Path | list[Any] | None:
        found = self._by_id.get(photo["image_id"]) if isinstance(photo.get("image_id"), int) else None
        if found is None and len(self._by_name) and "file_name" in photo:
            return self._by_name.find(str(photo["file_name"]))
        return found

    def _take(self, document: Any) -> None:
        if isinstance(document, dict) and isinstance(document.get("images"), list):
            self._take_document(document)
        elif isinstance(document, list) and any(isinstance(item, dict) and "image_id" in item for item in document):
            check_each(document, Result, self.path, "")
            self._with_masks = _some_mask(document)
            by_name: dict[str, list[Any]] = {}
            for item in document:
                place: Any = self._by_id if isinstance(item["image_id"], int) else by_name
                place.setdefault(item["image_id"], []).append(item)
            for name, items in by_name.items():
                self._by_name.add(name, items)
        elif isinstance(document, dict) and not isinstance(document.get("annotations"), list):
            for name, items in document.items():
                self._by_name.add(name, self._regions_of_file(items, self.path, f".{visible(name[:80])}"))
        elif document != []:
            self._by_name.add(self.path.name, self._regions_of_file(document, self.path))

    def _take_document(self, document: dict[str, Any]) -> None:
        annotations = document.get("annotations")
        if not isinstance(annotations, list):
            raise UserError(f"{visible_path(self.path)} has images and no list of annotations; expected {_KINDS}")
        check_each(annotations, Result, self.path, "annotations")
        check_each(document["images"], Photo, self.path, "images")
        self._with_masks = _some_mask(annotations)
        items: dict[Any, list[Any]] = {image["id"]: [] for image in document["images"]}
        if len(items) < len(document["images"]):
            raise UserError(f"{visible_path(self.path)}: several images have the same id; give each its own")
        for row, annotation in enumerate(annotations):
            if annotation["image_id"] not in items:
                raise UserError(
                    f"{visible_path(self.path)}: annotations[{row}].image_id is {shortened(annotation['image_id'])}, "
                    "the id of none of its images"
                )
            items[annotation["image_id"]].append(annotation)
        for image in document["images"]:
            url = image.get("coco_url") or ""  # of LVIS: http://images.cocodataset.org/val2017/000000397133.jpg
            name = image.get("file_name") or "/".join(url.split("/")[-2:])
            if not name:
                raise UserError(f"{visible_path(self.path)}: image {shortened(image['id'])} has no file_name")
            self._by_name.add(name, items[image["id"]])

    def _regions_of_file(self, document: Any, path: Path, place: str = "") -> list[Any]:
        regions = document.get("annotations") if isinstance(document, dict) else document
        if not isinstance(regions, list):
            raise UserError(
                f"{visible_path(path)}: no list of regions{place and ' at ' + place[1:]}; expected {_KINDS}"
            )
        check_each(regions, Region, path, place)
        masks = _some_mask(regions)
        if masks and self._boxes_alone:
            raise UserError(
                f"{visible_path(path)} has masks, and the first regions of {visible_path(self.path)} have none; keep "
                "boxes and masks in two folders"
            )
        self._with_masks = self._with_masks or masks
        return regions

    def _usable(self, items: Sequence[Any], height: int, width: int, photo: Mapping[str, Any]) -> GivenRegions:
        """The best regions inside the photo."""
        scores = np.array([_score(item) for item in items], np.float32)
        order = np.argsort(-scores, kind="stable")
        with_masks = self._with_masks
        boxes, kept, masks, seen = [], [], [], set()
        for row in order:
            item = items[row]
            fault = mask_fault(item.get("segmentation"), width, height)
            if fault is not None or not (item.get("segmentation") or item.get("bbox")):
                name = photo.get("file_name", photo.get("image_id"))
                raise UserError(
                    f"{visible_path(self.path)}: region {row + 1} of photo {name} ({width} x {height} pixels) cannot "
                    f"be used: {fault or 'neither box nor mask'}"
                )
            mask = compressed(item["segmentation"], height, width) if item.get("segmentation") else None
            x, y, w, h = item["bbox"] if item.get("bbox") else run_lengths.toBbox(mask).tolist()
            if mask is not None and not (w and h):  # Segment Anything's end at the centre of the last pixel
                x, y, w, h = run_lengths.toBbox(mask).tolist()
            corners = [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]
            box = np.array(corners, np.float32).tolist()  # a box may have no width at this precision
            if box[2] <= box[0] or box[3] <= box[1]:
                continue
            region = (*box, mask and mask["counts"])
            if region in seen:
                continue
            seen.add(region)
            boxes.append(box)
            kept.append(scores[row])
            if with_masks:
                masks.append(mask or compressed([_corners(box)], height, width))
            if len(boxes) == self.limit:
                break
        return GivenRegions(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(kept, np.float32), masks if with_masks else None
        )


def proposals_variant(cfg: CfgNode) -> dict[str, str]:
    """What is unusual about an evaluation with ``MODEL.PROPOSALS.FILE``, see pomp_engine.evaluation."""
    return {"proposals": "given"} if cfg.MODEL.PROPOSALS.FILE else {}


def compressed(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Polygons or run lengths of a photo, checked before, as compressed run lengths with a text of ``counts``."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return {"size": list(segmentation["size"]), "counts": segmentation["counts"]}
    given = segmentation
    if isinstance(given, list):
        given = [polygon for polygon in given if is_polygon(polygon)]
    encoded = run_lengths.frPyObjects(given, height, width)
    encoded = run_lengths.merge(encoded) if isinstance(encoded, list) else encoded
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def _some_mask(items: Sequence[Mapping[str, Any]]) -> bool:
    return any(item.get("segmentation") for item in items)


def _score(item: Mapping[str, Any]) -> float:
    if item.get("score") is not None:
        return float(item["score"])
    quality = item.get("predicted_iou")
    return 1.0 if quality is None else min(max(float(quality), 0.0), 1.0)


def _corners(box: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]
