"""What prediction with a detector does with each photo: boxes and masks drawn, and one COCO document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from detectron2.structures import BoxMode, Instances
from pycocotools import mask as run_lengths

from pomp_det.box_masks import BOX_MASKS, encode_masks
from pomp_det.pictures import draw_detections
from pomp_engine.model_identity import model_identity
from prompt_core.photos.drawn_picture import write_picture
from prompt_core.photos.photo_crops import write_crops
from prompt_core.photos.photo_list import NamedPhoto
from prompt_core.photos.photo_task import PhotoTask, Records

if TYPE_CHECKING:
    from pomp_det.predictor import OpenVocabularyPredictor


class PhotoDetections(PhotoTask):
    """Detections: ``0001_NAME.png`` for each photo, and ``detections.json``.

    Args:
        predictor: with its words set.
        threshold: lowest score, one for each word, or one for all.
        hide_photo: draw on grey, for photos that may not be shown.
        pictures: draw at all.
        crops: also cut out what was found, into ``crops/WORD``.
        shape: of compressed run lengths, what the document has as ``segmentation``; None for themselves.
    """

    document = "detections.json"

    def __init__(
        self,
        predictor: OpenVocabularyPredictor,
        threshold: float | Sequence[float],
        hide_photo: bool = False,
        *,
        pictures: bool = True,
        crops: bool = False,
        shape: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self._predictor = predictor
        self._names = predictor.class_names
        self._threshold = threshold
        self._hide_photo = hide_photo
        self._pictures = pictures
        self._crops = crops
        self._shape = shape

    def identity(self) -> dict[str, Any]:
        """Model, words and options."""
        model = model_identity(self._predictor.model, self._predictor.cfg)
        files = {"no-photo": self._hide_photo, "pictures": self._pictures, "crops": self._crops}
        return {**model, "words": self._names, "threshold": self._threshold, **files}

    def predict(self, pixels: np.ndarray) -> Instances:
        """Detections of at least the threshold, with masks on their boxes."""
        return self._predictor.detect(pixels, self._threshold)

    def predict_named(self, prepared: np.ndarray, name: str) -> Instances:
        """The same, in the regions that ``MODEL.PROPOSALS.FILE`` has of the photo, where it is set."""
        if not self._predictor.cfg.MODEL.PROPOSALS.FILE:
            return self.predict(prepared)
        return self._predictor.detect(prepared, self._threshold, name)

    def write(self, photo: NamedPhoto, pixels: np.ndarray, prediction: Instances, folder: Path) -> dict[str, Any]:
        """Write the picture; the record has the detections as in the document, without ids."""
        rows = coco_rows(prediction)
        if self._pictures:
            canvas = np.full_like(pixels, 235) if self._hide_photo else pixels
            write_picture(folder / photo.picture, draw_detections(canvas, rows, self._names))
        if self._crops:
            write_crops(folder, photo, pixels, [(self._names[row["category_id"] - 1], row["bbox"]) for row in rows])
        return {"height": pixels.shape[0], "width": pixels.shape[1], "detections": rows}

    def lists(self, records: Records) -> Mapping[str, Iterable[Any]]:
        """A COCO document, whose ``annotations`` carry a ``score`` each; the id of an image is its photo's number."""
        return {
            "images": (
                {"id": photo.number, "file_name": photo.name, "height": record["height"], "width": record["width"]}
                for photo, record in records()
            ),
            "categories": ({"id": number, "name": name} for number, name in enumerate(self._names, start=1)),
            "annotations": _annotations(records, self._shape or (lambda mask: mask)),
        }

    def summary(self, records: Records) -> str:
        """Detections and classes."""
        total = sum(len(record["detections"]) for _, record in records())
        return f"{total} detections of {len(self._names)} classes"


def coco_rows(detections: Instances) -> list[dict[str, Any]]:
    """Detections as COCO annotations without ids.

    Args:
        detections: on the CPU, with ``box_masks`` where the model has masks.

    Returns:
        ``category_id`` from 1, ``bbox`` x, y, width, height in pixels, ``score``, ``segmentation`` in compressed run
        lengths where there are masks, and ``area``: that of the mask in pixels, else of the box.
    """
    boxes = BoxMode.convert(detections.pred_boxes.tensor.numpy(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    found = zip(detections.pred_classes.tolist(), boxes, detections.scores.tolist(), strict=True)
    rows: list[dict[str, Any]] = [
        {"category_id": label + 1, "bbox": box, "score": score, "area": box[2] * box[3]} for label, box, score in found
    ]
    if detections.has(BOX_MASKS):
        for row, rle in zip(rows, encode_masks(detections), strict=True):
            row |= {"segmentation": rle, "area": int(run_lengths.area(rle))}
    return rows


def _annotations(records: Records, shape: Callable[[dict[str, Any]], Any]) -> Iterator[dict[str, Any]]:
    identity = 0
    for photo, record in records():
        for row in record["detections"]:
            identity += 1
            mask = {"segmentation": shape(row["segmentation"])} if "segmentation" in row else {}
            yield {
                "image_id": photo.number,
                "category_id": row["category_id"],
                "bbox": row["bbox"],
                "score": row["score"],
                **mask,
                "id": identity,
                "iscrowd": 0,
                "area": row["area"],
            }
