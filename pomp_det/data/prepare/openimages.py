"""Open Images' validation boxes of the 2019 challenge, with what the hierarchy of classes says besides."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pomp_det.data.openimages_classes import HIERARCHY, class_labels, descendants_of, read_ancestors
from pomp_det.data.prepare.photo_lists import with_sizes
from pomp_det.data.usable_boxes import Problems
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.documents.csv_tables import read_table
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json
from prompt_core.vocabulary import Vocabulary

BOXES = "challenge-2019-validation-detection-bbox.csv"
LABELS = "challenge-2019-validation-detection-human-imagelabels.csv"
Row = Mapping[str, str]


def prepare_openimages(root: Path, overwrite: bool = False) -> tuple[dict[Path, Outcome], Problems]:
    """Write ``oid/annotations/oid_challenge_2019_val_expanded.json``.

    Returns:
        what was done, and the photos that are left out because they cannot be read.

    Raises:
        UserError: when one of the three files is absent or damaged, or there are no photos.
    """
    folder, photos = root / "oid/annotations", root / "oid/images/validation"
    sources = [folder / name for name in (BOXES, LABELS, HIERARCHY)]
    inputs = file_inputs(root, *sources)
    boxes, image_labels = (_rows(path) for path in sources[:2])
    listed = [{"file_name": f"{name}.jpg"} for name in sorted({row["ImageID"] for row in (*boxes, *image_labels)})]
    problems = Problems()
    images = with_sizes(photos, listed, problems)
    if not images:
        raise UserError(f"{photos} holds no photo of {sources[0].name}; python datasets/check.py openimages says more")
    inputs["photos"] = sha256_of_json([[image["file_name"], image["width"], image["height"]] for image in images])
    output = folder / "oid_challenge_2019_val_expanded.json"

    def build() -> dict[str, Any]:
        return expanded(images, boxes, image_labels, read_ancestors(sources[2], class_labels()))

    return {output: derive_json(output, inputs, "open images, expanded, 1", build, overwrite)}, problems


def expanded(
    images: Sequence[Mapping[str, Any]],
    boxes: Sequence[Row],
    image_labels: Sequence[Row],
    ancestors: Sequence[frozenset[int]],
) -> dict[str, Any]:
    """A COCO document whose images say which classes were looked for.

    A box is also one of each class above its own. A class that people have seen in a photo is there with all above it
    (``pos_category_ids``), one that they have not found is absent with all below it (``neg_category_ids``); of other
    classes nothing is known. Source: Open Images' evaluation protocol of the challenge
    (storage.googleapis.com/openimages/web/evaluation.html).

    Args:
        images: with ``file_name``, ``width`` and ``height``; boxes of others are left out.
        boxes: rows with ``ImageID``, ``LabelName``, ``XMin``, ``XMax``, ``YMin``, ``YMax`` in parts of the photo, and
            ``IsGroupOf``, which becomes ``iscrowd``.
        image_labels: rows with ``ImageID``, ``LabelName`` and ``Confidence``, 1 or 0.
        ancestors: of each class, see :func:`pomp_det.data.openimages_classes.read_ancestors`.

    Raises:
        UserError: an unknown class, or a number that is none.
    """
    vocabulary, labels = Vocabulary.load("openimages"), class_labels()
    ids: list[Any] = list(vocabulary.ids or ())
    row_of = {label: row for row, label in enumerate(labels)}
    below = descendants_of(ancestors)
    known = {Path(image["file_name"]).stem: image for image in images}
    present: dict[str, set[int]] = defaultdict(set)
    absent: dict[str, set[int]] = defaultdict(set)
    for row in image_labels:
        there, where = _number(row, "Confidence") > 0, _class(row, row_of)
        (present if there else absent)[row["ImageID"]] |= {where, *(ancestors if there else below)[where]}
    annotations: list[dict[str, Any]] = []
    for row in boxes:
        image = known.get(row["ImageID"])
        if image is None:
            continue
        own = _class(row, row_of)
        left, right = (_number(row, side) * image["width"] for side in ("XMin", "XMax"))
        top, bottom = (_number(row, side) * image["height"] for side in ("YMin", "YMax"))
        shape = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
        crowd = int(_number(row, "IsGroupOf") > 0)
        present[row["ImageID"]] |= {own, *ancestors[own]}
        for where in (own, *sorted(ancestors[own])):
            place = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": ids[where]}
            annotations.append({**place, **shape, "iscrowd": crowd})
    listed = []
    for name, image in known.items():
        seen = present[name]
        sides = {"pos_category_ids": seen, "neg_category_ids": absent[name] - seen}
        listed.append({**image, **{key: [ids[row] for row in sorted(rows)] for key, rows in sides.items()}})
    named = zip(ids, vocabulary.names, labels, strict=True)
    categories = [{"id": number, "name": name, "freebase_id": label} for number, name, label in named]
    return {"images": listed, "annotations": annotations, "categories": categories}


def _rows(path: Path) -> list[Row]:
    columns, rows = read_table(path)
    needed = {"ImageID", "LabelName"}
    if not needed <= set(columns):
        raise UserError(f"{path}: columns {', '.join(sorted(needed))} are expected, found {', '.join(columns)}")
    return list(rows)


def _class(row: Row, row_of: Mapping[str, int]) -> int:
    if row["LabelName"] not in row_of:
        raise UserError(f"photo {row['ImageID']}: {row['LabelName']!r} is none of the {len(row_of)} challenge classes")
    return row_of[row["LabelName"]]


def _number(row: Row, column: str) -> float:
    try:
        value = float(row[column])
        if math.isfinite(value):
            return value
    except (KeyError, ValueError):
        pass
    given = repr(row[column]) if column in row else "no such column"
    raise UserError(f"photo {row['ImageID']}: {column} is a number, found {given}")
