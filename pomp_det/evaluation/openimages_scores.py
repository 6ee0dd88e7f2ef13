"""AP50 as Open Images defines it: only classes that were looked for, groups counted once, a hierarchy of classes.

Source: the challenge's protocol (storage.googleapis.com/openimages/web/evaluation.html), as Detic's
``detic/evaluation/oideval.py`` computes it on annotations that the hierarchy has expanded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pomp_det.data.openimages_classes import HIERARCHY, Labelled, read_ancestors
from prompt_core.documents.schema import Int64, check_each
from prompt_core.errors import UserError

IOU = 0.5
Detection = Mapping[str, Any]


class LookedFor(msgspec.Struct, gc=False):
    """A photo of Open Images."""

    id: Int64
    pos_category_ids: list[Int64]
    neg_category_ids: list[Int64]


def read_category_ancestors(annotations: Path, document: Mapping[str, Any]) -> dict[int, list[int]]:
    """Category ids above each one, by the hierarchy beside the annotations.

    Raises:
        UserError: when the hierarchy is absent or malformed, categories have no ``freebase_id``, or images do not say
            what was looked for.
    """
    path, categories = annotations.with_name(HIERARCHY), document["categories"]
    check_each(document["images"], LookedFor, annotations, "images")
    check_each(categories, Labelled, annotations, "categories")
    if not path.is_file():
        raise UserError(f"{path} does not exist; Open Images' AP50 needs the hierarchy of its classes")
    ids = [category["id"] for category in categories]
    above = read_ancestors(path, [category["freebase_id"] for category in categories])
    return {own: [ids[row] for row in sorted(rows)] for own, rows in zip(ids, above, strict=True)}


def score_openimages(
    annotations: Path, document: Mapping[str, Any], detections: Callable[[], Iterable[Detection]]
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """``AP50``, and ``AP50-expanded`` where detections count for the classes above theirs too; (C,) of the latter.

    All in percent. Raises UserError as :func:`read_category_ancestors`.
    """
    ancestors = read_category_ancestors(annotations, document)
    plain, expanded = (
        100 * open_images_average_precision(document, detections(), above) for above in (None, ancestors)
    )
    means = {name: _mean(values) for name, values in (("AP50", plain), ("AP50-expanded", expanded))}
    return {"bbox": means}, {"bbox": expanded}


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def open_images_average_precision(
    document: Mapping[str, Any],
    detections: Iterable[Detection],
    ancestors: Mapping[int, Iterable[int]] | None = None,
) -> np.ndarray:
    """AP50 of each class.

    A detection counts in a photo only for a class of the photo's ``pos_category_ids`` or ``neg_category_ids``. In the
    order of scores it is right where the box that it overlaps most, with an IoU of at least 0.5, is not taken. A wrong
    one that lies in a group (at least half of its own area) is left out, and the best of these finds the group.

    Args:
        document: COCO's ``images``, ``annotations`` (``iscrowd`` for a group) and ``categories``.
        detections: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score``.
        ancestors: category ids above each one: a detection then counts for these as well.

    Returns:
        (C,) in [0, 1] in the order of category ids; NaN for classes without a box.
    """
    asked = {
        image["id"]: {*image["pos_category_ids"], *image["neg_category_ids"]} for image in document["images"]
    }  # of each photo, the classes that were looked for
    truth: dict[int, dict[int, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for annotation in document["annotations"]:
        truth[annotation["category_id"]][annotation["image_id"]].append(annotation)
    found: dict[int, dict[int, list[Detection]]] = defaultdict(lambda: defaultdict(list))
    for detection in detections:
        image, own = detection["image_id"], detection["category_id"]
        for category in (own, *(ancestors or {}).get(own, ())):
            if category in asked[image]:
                found[category][image].append(detection)
    categories = sorted(category["id"] for category in document["categories"])
    return np.array([_of_class(truth.get(category, {}), found.get(category, {})) for category in categories])


def _of_class(truth: Mapping[int, Sequence[Mapping[str, Any]]], found: Mapping[int, Sequence[Detection]]) -> float:
    count = sum(map(len, truth.values()))
    if not count:
        return float("nan")
    scores, right = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for image in sorted(found):
        of_image = match_photo(found[image], truth.get(image, ()))
        scores.append(of_image[0])
        right.append(of_image[1])
    return area_under_curve(np.concatenate(scores), np.concatenate(right), count)


def match_photo(
    detections: Sequence[Detection], annotations: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """What counts of the detections of one class in one photo.

    Returns:
        scores (n,) and whether each is right (n,): of single boxes, and one for each group that was found.
    """
    from pycocotools.mask import iou

    values = np.array([detection["score"] for detection in detections], dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    values, boxes = values[order], np.array([detections[row]["bbox"] for row in order], dtype=np.float64)
    crowd = [bool(annotation.get("iscrowd")) for annotation in annotations]
    single = np.array([a["bbox"] for a, group in zip(annotations, crowd, strict=True) if not group], dtype=np.float64)
    groups = np.array([a["bbox"] for a, group in zip(annotations, crowd, strict=True) if group], dtype=np.float64)
    right = np.zeros(len(values), dtype=bool)
    if len(single):
        overlaps = iou(boxes, single, [0] * len(single))  # (n, boxes)
        taken = np.zeros(len(single), dtype=bool)
        for row, place in enumerate(overlaps.argmax(axis=1)):
            if overlaps[row, place] >= IOU and not taken[place]:
                right[row] = taken[place] = True
    if not len(groups):
        return values, right
    inside = iou(boxes, groups, [1] * len(groups))  # (n, groups), by the area of the detection
    place = inside.argmax(axis=1)
    left_out = ~right & (inside[np.arange(len(values)), place] >= IOU)
    of_groups = np.zeros(len(groups))
    np.maximum.at(of_groups, place[left_out], values[left_out])
    of_groups = of_groups[of_groups > 0]
    return np.concatenate([values[~left_out], of_groups]), np.r_[right[~left_out], np.ones(len(of_groups), dtype=bool)]


def area_under_curve(scores: np.ndarray, right: np.ndarray, count: int) -> float:
    """Area under the precision that is not below that of any higher recall, as in VOC's development kit since 2010.

    Args:
        scores: (n,).
        right: (n,) bool.
        count: boxes there are, found or not.
    """
    hits = right[np.argsort(-scores, kind="stable")].cumsum()
    precision = hits / (np.arange(len(hits)) + 1)
    recall = np.r_[0.0, hits / count]
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * best).sum())
