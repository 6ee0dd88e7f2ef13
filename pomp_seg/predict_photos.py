"""What prediction with a segmenter does with each photo: classes in colour, a label map, and one JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pomp_engine.model_identity import model_identity
from pomp_seg.data.label_maps import write_label_map
from pomp_seg.pictures import class_colour, draw_segmentation
from pomp_seg.predictor import OpenVocabularySegmenter, Segmentation
from prompt_core.photos.drawn_picture import write_picture
from prompt_core.photos.photo_crops import write_crops
from prompt_core.photos.photo_list import NamedPhoto
from prompt_core.photos.photo_task import PhotoTask, Records

LABELS = "labels"


class PhotoSegmentations(PhotoTask):
    """Label maps of photos.

    It writes ``0001_NAME.png`` and ``labels/0001_NAME.png`` for each photo, and ``segmentation.json``. A label map has
    the class index of each pixel, in the size of the photo: 8 bits for at most 255 classes, else 16.

    Args:
        predictor: with its words set.
        hide_photo: draw plain colours, for photos that must not be shown.
        pictures: draw at all.
        crops: also cut out what was found, into ``crops/WORD``.

    Raises:
        UserError: when the segmenter has no classes.
    """

    document = "segmentation.json"

    def __init__(
        self,
        predictor: OpenVocabularySegmenter,
        hide_photo: bool = False,
        *,
        pictures: bool = True,
        crops: bool = False,
    ) -> None:
        self._predictor = predictor
        self._names = predictor.class_names
        self._background = predictor.background
        self._hide_photo = hide_photo
        self._pictures = pictures
        self._crops = crops

    def identity(self) -> dict[str, Any]:
        """Model, words and options."""
        model = model_identity(self._predictor.model, self._predictor.cfg)
        words = {"words": self._names, "background": list(self._background)}
        files = {"no-photo": self._hide_photo, "pictures": self._pictures, "crops": self._crops}
        return {**model, **words, **files}

    def predict(self, pixels: np.ndarray) -> Segmentation:
        """The classes of a photo's pixels."""
        return self._predictor(pixels)

    def predict_named(self, prepared: np.ndarray, name: str) -> Segmentation:
        """The same, in the regions that ``MODEL.PROPOSALS.FILE`` has of the photo, where it is set."""
        return self._predictor(prepared, name) if self._predictor.cfg.MODEL.PROPOSALS.FILE else self.predict(prepared)

    def write(self, photo: NamedPhoto, pixels: np.ndarray, prediction: Segmentation, folder: Path) -> dict[str, Any]:
        """Write label map and picture; the record is the photo's entry in the document."""
        write_label_map(folder / LABELS / photo.picture, prediction.labels, len(self._names))
        files = {"file_name": photo.name}
        if self._pictures:
            shown = None if self._hide_photo else pixels
            drawn = draw_segmentation(prediction.labels, self._names, shown, self._background)
            write_picture(folder / photo.picture, drawn)
            files["picture"] = photo.picture
        if self._crops:
            found = [row for row in prediction.present if not self._background[row]]
            boxes = [(self._names[row], _box(prediction.labels == row)) for row in found]
            write_crops(folder, photo, pixels, boxes)
        return {**files, **_description(prediction, f"{LABELS}/{photo.picture}")}

    def lists(self, records: Records) -> Mapping[str, Iterable[Any]]:
        """``classes`` with their colours, and ``images``."""
        return {
            "classes": (
                {"index": index, "name": name, "color": list(class_colour(name)), "background": background}
                for index, (name, background) in enumerate(zip(self._names, self._background, strict=True))
            ),
            "images": (record for _, record in records()),
        }

    def summary(self, records: Records) -> str:
        """How many classes occur."""
        occurring = {entry["index"] for _, record in records() for entry in record["classes"]}
        return f"{len(occurring)} of {len(self._names)} classes"


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width and height of what is True in (H, W), where anything is."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def _description(segmentation: Segmentation, label_map: str) -> dict[str, Any]:
    height, width = segmentation.labels.shape
    return {
        "label_map": label_map,
        "height": height,
        "width": width,
        "classes": [
            {
                "index": row,
                "name": segmentation.class_names[row],
                "share": float(segmentation.shares[row]),
                "score": float(segmentation.scores[row]),
            }
            for row in segmentation.present
        ],
    }
