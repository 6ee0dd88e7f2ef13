"""Small documents in the forms of the published annotations."""

from __future__ import annotations

from typing import Any

import numpy as np

from prompt_core.vocabulary import Vocabulary


def lvis_document(split: str = "train") -> dict[str, Any]:
    """LVIS v1 with all its classes and three photos."""
    vocabulary = Vocabulary.load("lvis")
    assert vocabulary.ids is not None
    assert vocabulary.frequency is not None
    categories = [
        {"id": number, "name": name, "frequency": letter, "synset": "x.n.01"}
        for number, name, letter in zip(vocabulary.ids, vocabulary.names, vocabulary.frequency, strict=True)
    ]
    lists: dict[str, Any] = {"neg_category_ids": [], "not_exhaustive_category_ids": [], "width": 50, "height": 40}
    places = ["train2017", "val2017" if split == "val" else "train2017", "train2017"]
    images = [
        {"id": number, "coco_url": f"http://images.cocodataset.org/{place}/{number}.jpg", **lists}
        for number, place in enumerate(places, start=1)
    ]
    rare = vocabulary.frequency.index("r") + 1
    frequent = vocabulary.frequency.index("f") + 1
    marked = [(1, frequent), (1, frequent), (2, frequent), (2, rare), (3, rare)]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": [1, 1, 9, 9],
            "area": 81,
            "segmentation": [[1, 1, 9, 1, 9, 9]],
        }
        for number, (image, category) in enumerate(marked, start=1)
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def coco_document() -> dict[str, Any]:
    """COCO with all its classes and four photos."""
    vocabulary = Vocabulary.load("coco")
    assert vocabulary.ids is not None
    of_name = dict(zip(vocabulary.names, vocabulary.ids, strict=True))
    images = [{"id": number, "width": 50, "height": 40, "file_name": f"{number}.jpg"} for number in range(1, 5)]
    marked = [(1, "person"), (1, "dog"), (2, "dog"), (3, "wine glass"), (3, "person")]
    annotations = [
        {"id": number, "image_id": image, "category_id": of_name[name], "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
        for number, (image, name) in enumerate(marked, start=1)
    ]
    categories = [{"id": number, "name": name} for name, number in of_name.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def objects365_document() -> dict[str, Any]:
    """Objects365 v2 with its published names and three photos."""
    from pomp_det.data.prepare.objects365 import CORRECTIONS

    published = {new: old for old, new in CORRECTIONS.items()}
    vocabulary = Vocabulary.load("objects365")
    assert vocabulary.ids is not None
    categories = [
        {"id": number, "name": published.get(name, name)}
        for number, name in zip(vocabulary.ids, vocabulary.names, strict=True)
    ]
    names = ("images/v1/patch0/a.jpg", "images/v1/patch0/b.jpg", "images/v2/patch16/c.jpg")
    images = [{"id": n, "width": 20, "height": 10, "file_name": name} for n, name in enumerate(names)]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0} for n in range(3)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask as COCO compresses it."""
    import pycocotools.mask as mask_utils

    encoded = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(length) for length in encoded["size"]], "counts": encoded["counts"].decode()}
