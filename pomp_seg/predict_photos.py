"""The output of the predict tool for a segmenter: coloured photos, label maps and one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pomp_engine.data.photos import read_photo
from pomp_seg.data.label_maps import write_label_map
from pomp_seg.pictures import class_colour, draw_segmentation
from pomp_seg.predictor import OpenVocabularySegmenter, Segmentation
from prompt_core.files import atomic_path, write_json

DOCUMENT, LABELS = "segmentation.json", "labels"


def segment_photos(
    predictor: OpenVocabularySegmenter, photos: Sequence[Path], folder: Path, hide_photo: bool = False
) -> str:
    """Write ``0001_NAME.png`` and ``labels/0001_NAME.png`` for each photo, and ``segmentation.json``.

    A label map has the class index of each pixel, in the size of the photo: 8 bits for at most 255 classes, else 16.

    Args:
        hide_photo: draw plain colours, for photos that must not be shown.

    Returns:
        one line that says what was written.

    Raises:
        UserError: a file that is not a photo; a folder that cannot be written.
    """
    names = predictor.class_names
    images: list[dict[str, Any]] = []
    flags: tuple[bool, ...] = (False,) * len(names)
    for number, photo in enumerate(photos, start=1):
        pixels = read_photo(photo)
        segmentation = predictor(pixels)
        flags, file = segmentation.background, f"{number:04d}_{photo.stem}.png"
        write_label_map(folder / LABELS / file, segmentation.labels, len(names))
        drawn = draw_segmentation(segmentation.labels, names, None if hide_photo else pixels, flags)
        with atomic_path(folder / file) as temporary:
            Image.fromarray(drawn).save(temporary, format="PNG")
        images.append({"file_name": str(photo), "picture": file, **_description(segmentation, f"{LABELS}/{file}")})
    classes = [
        {"index": index, "name": name, "color": list(class_colour(name)), "background": background}
        for index, (name, background) in enumerate(zip(names, flags, strict=True))
    ]
    write_json(folder / DOCUMENT, {"classes": classes, "images": images})
    occurring = {entry["index"] for image in images for entry in image["classes"]}
    return f"{len(occurring)} of {len(names)} classes in {len(photos)} photos, written to {folder}"


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
