"""Federated annotations and detections from a random generator, for measuring and comparing scorers.

Modelled on LVIS v1 val: 19,809 images with about 12 annotations of 4 classes each, a long tail of classes, a few
classes of each image that are known to be absent and a few that are not annotated exhaustively.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from prompt_core.errors import UserError

HEIGHT, WIDTH = 480, 640  # pixels
PRESENT, ABSENT = 4, 8  # classes of an image
RARE, FREQUENT = 337 / 1203, 405 / 1203  # shares of LVIS v1's classes


def synthetic_annotations(images: int, classes: int, seed: int = 0) -> dict[str, Any]:
    """An LVIS annotation file as a dictionary; masks are octagons.

    Raises:
        UserError: fewer classes than an image names.
    """
    if classes < PRESENT + ABSENT:
        raise UserError(f"{classes} classes are too few: an image names {PRESENT + ABSENT} of them")
    rng = np.random.default_rng(seed)
    ids = np.arange(classes) + 1
    weights = 1.0 / (ids + 5.0)
    weights /= weights.sum()
    letters = np.where(ids > (1 - RARE) * classes, "r", np.where(ids <= FREQUENT * classes, "f", "c"))
    document: dict[str, Any] = {
        "info": {"description": f"synthetic, seed {seed}"},
        "licenses": [],
        "categories": [
            {"id": int(number), "name": f"class_{number}", "frequency": str(letter), "synset": f"class_{number}.n.01"}
            for number, letter in zip(ids, letters, strict=True)
        ],
        "images": [],
        "annotations": [],
    }
    for image_id in range(1, images + 1):
        present = rng.choice(ids, PRESENT, replace=False, p=weights)
        absent = rng.choice(np.setdiff1d(ids, present), ABSENT, replace=False)
        document["images"].append(
            {
                "id": image_id,
                "height": HEIGHT,
                "width": WIDTH,
                "file_name": f"{image_id:012d}.jpg",
                "neg_category_ids": absent.tolist(),
                "not_exhaustive_category_ids": present[:1].tolist() if image_id % 4 == 0 else [],
            }
        )
        counts = rng.geometric(1 / 3, PRESENT)  # three objects of a class on average
        boxes = _boxes(rng, int(counts.sum()))
        for category, box in zip(np.repeat(present, counts), boxes.tolist(), strict=True):
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": int(category),
                    "bbox": box,
                    "area": 0.875 * box[2] * box[3],  # the octagon's
                    "segmentation": [_octagon(box)],
                }
            )
    return document


def synthetic_detections(
    document: dict[str, Any], detections: int, masks: bool = False, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Rows of a COCO results file: objects found, found twice and missed, and false alarms up to ``detections``.

    Scores have three decimals, so that many are equal. Half of the false alarms are of classes that the image's
    annotations cover; the others do not count in federated scoring.

    Args:
        document: annotations of :func:`synthetic_annotations`.
        detections: of each image.
        masks: ``segmentation`` (compressed run lengths) instead of ``bbox``.
    """
    rng = np.random.default_rng(seed + 1)
    of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    ids = np.array([category["id"] for category in document["categories"]])
    for image in document["images"]:
        truths = of_image[image["id"]]
        chosen = np.repeat(np.arange(len(truths)), rng.choice([0, 1, 2], len(truths), p=[0.25, 0.5, 0.25]))[:detections]
        real = np.array([truth["bbox"] for truth in truths])[chosen]  # (n, 4)
        moved = real + rng.normal(0, 0.08, real.shape) * real[:, [2, 3, 2, 3]]
        alarms = detections - len(chosen)
        boxes = _inside(np.concatenate((moved, _boxes(rng, alarms))))
        named = np.array([truth["category_id"] for truth in truths])
        spoken_of = np.concatenate((named, image["neg_category_ids"]))
        alarm_classes = np.where(rng.random(alarms) < 0.5, rng.choice(spoken_of, alarms), rng.choice(ids, alarms))
        confused = rng.random(len(chosen)) < 0.15
        hit_classes = np.where(confused, rng.choice(spoken_of, len(chosen)), named[chosen])
        scores = np.concatenate((rng.beta(4, 3, len(chosen)), rng.beta(1, 8, alarms))).round(3)
        order = rng.permutation(detections)
        categories = np.concatenate((hit_classes, alarm_classes))[order]
        yield from _rows(image["id"], categories, boxes[order], scores[order], masks)


def _rows(
    image_id: int, categories: np.ndarray, boxes: np.ndarray, scores: np.ndarray, masks: bool
) -> Iterator[dict[str, Any]]:
    shapes: list[dict[str, Any]] = [{"bbox": box} for box in boxes.tolist()]
    if masks and shapes:
        from pycocotools import mask as mask_utils

        encoded = mask_utils.frPyObjects([_octagon(box) for box in boxes.tolist()], HEIGHT, WIDTH)
        shapes = [{"segmentation": {"size": mask["size"], "counts": mask["counts"].decode()}} for mask in encoded]
    for category, shape, score in zip(categories.tolist(), shapes, scores.tolist(), strict=True):
        yield {"image_id": image_id, "category_id": category, **shape, "score": score}


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes (count, 4) as x, y, width, height, from a few pixels to half the image, small ones most often."""
    size = np.exp(rng.uniform(np.log(6), np.log([WIDTH / 2, HEIGHT / 2]), (count, 2)))
    corner = rng.random((count, 2)) * ([WIDTH, HEIGHT] - size)
    return np.concatenate((corner, size), axis=1).round(2)


def _inside(boxes: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) clipped to the image, at least a pixel wide and high."""
    limit = np.array([WIDTH, HEIGHT], dtype=float)
    first = np.clip(boxes[:, :2], 0, limit - 1)
    last = np.clip(boxes[:, :2] + boxes[:, 2:], first + 1, limit)
    return np.concatenate((first, last - first), axis=1).round(2)


def _octagon(box: Sequence[float]) -> list[float]:
    """The octagon in a box, as a COCO polygon."""
    x, y, w, h = box
    corners = [(1, 0), (3, 0), (4, 1), (4, 3), (3, 4), (1, 4), (0, 3), (0, 1)]  # quarters of the box
    return [round(value, 2) for a, b in corners for value in (x + a * w / 4, y + b * h / 4)]
