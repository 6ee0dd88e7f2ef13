"""Annotations of the embedded data set's scenes in the formats of COCO and LVIS v1.

LVIS is *federated*: for each image, the presence of only some classes is known. ``neg_category_ids`` were looked for
and are absent, ``not_exhaustive_category_ids`` are present with some instances left out; classes without an annotation
that are in neither list are unknown and not scored (Gupta et al., 2019, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pomp_lab.shapes.classes import ShapeClass
from pomp_lab.shapes.masks import encode_run_lengths, mask_box, mask_polygons
from pomp_lab.shapes.render import Scene

NEGATIVES_PER_IMAGE = 12
IGNORE_8_BIT, IGNORE_16_BIT = 255, 65535


def scene_annotations(scene: Scene, masks: str) -> list[dict[str, Any]]:
    """COCO annotations of a scene without ``id`` and ``image_id``: visible masks, boxes in whole pixels.

    Args:
        masks: ``"polygons"``, or ``"rle"`` for uncompressed run lengths.
    """
    annotations = []
    for index, placed in enumerate(scene.objects):
        mask = scene.mask(index)
        annotations.append(
            {
                "category_id": placed.shape_class.id + 1,
                "bbox": mask_box(mask),
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": mask_polygons(mask) if masks == "polygons" else encode_run_lengths(mask),
            }
        )
    return annotations


def semantic_map(scene: Scene, class_count: int) -> np.ndarray:
    """(S, S) class index 0 .. N-1 of each pixel; uint8 with 255 for background, for N > 255 uint16 with 65535."""
    background: int
    background, kind = (IGNORE_8_BIT, np.uint8) if class_count <= IGNORE_8_BIT else (IGNORE_16_BIT, np.uint16)
    lookup = np.array([placed.shape_class.id for placed in scene.objects] + [background], dtype=kind)
    return lookup[scene.owner]


def federated_fields(
    scene: Scene, classes: Sequence[ShapeClass], rng: np.random.Generator
) -> tuple[list[int], list[int], list[int]]:
    """The classes that an annotator of LVIS would have looked for, and the instances left out, in a scene.

    Half of the negatives resemble a present class (two of colour, pattern and shape agree), half are arbitrary. Half of
    the classes that occur more than once in an image are not exhaustive: their last instance is left out.

    Returns:
        negative: category ids (class id + 1) that are absent, sorted.
        not_exhaustive: category ids that are present but incompletely annotated.
        left_out: indices into ``scene.objects`` that LVIS's annotations omit.
    """
    present = {placed.shape_class.id: placed.shape_class for placed in scene.objects}
    absent = [item for item in classes if item.id not in present]
    similar = [item for item in absent if any(_agreements(item, other) == 2 for other in present.values())]
    negative: set[int] = set()
    for pool, size in ((similar, NEGATIVES_PER_IMAGE // 2), (absent, NEGATIVES_PER_IMAGE)):
        for position in rng.permutation(len(pool)):
            if len(negative) >= size:
                break
            negative.add(pool[int(position)].id + 1)
    indices: dict[int, list[int]] = {}
    for index, placed in enumerate(scene.objects):
        indices.setdefault(placed.shape_class.id, []).append(index)
    incomplete = [ids[-1] for ids in indices.values() if len(ids) > 1 and rng.random() < 0.5]
    return sorted(negative), sorted(scene.objects[i].shape_class.id + 1 for i in incomplete), sorted(incomplete)


def _agreements(first: ShapeClass, second: ShapeClass) -> int:
    return (first.colour == second.colour) + (first.pattern == second.pattern) + (first.shape == second.shape)


def coco_categories(classes: Sequence[ShapeClass]) -> list[dict[str, Any]]:
    """COCO categories: ids 1..N in the order of names, names with spaces as in COCO."""
    return [{"id": item.id + 1, "name": item.name, "supercategory": item.shape} for item in classes]


def lvis_categories(classes: Sequence[ShapeClass], train: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """LVIS v1 categories: names with underscores and counts of the *training* annotations, as in LVIS's own files.

    ``frequency`` is the class's planned group (:func:`pomp_lab.shapes.classes.long_tail`), not a function of the
    counts, which are small in a small set.
    """
    images: dict[int, set[int]] = {}
    instances: dict[int, int] = {}
    for annotation in train:
        category = annotation["category_id"]
        images.setdefault(category, set()).add(annotation["image_id"])
        instances[category] = instances.get(category, 0) + 1
    return [
        {
            "id": item.id + 1,
            "name": item.folder,
            "synonyms": [synonym.replace(" ", "_") for synonym in item.synonyms],
            "synset": f"{item.folder}.n.01",
            "def": item.definition,
            "frequency": item.frequency,
            "image_count": len(images.get(item.id + 1, ())),
            "instance_count": instances.get(item.id + 1, 0),
        }
        for item in classes
    ]
