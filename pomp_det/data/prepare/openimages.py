"""Open Images' boxes of the 2019 challenge: those for training, and those to score, with what the hierarchy adds."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pomp_det.data.openimages_classes import HIERARCHY, class_labels, descendants_of, read_ancestors
from pomp_det.data.prepare.lvis import category_info
from pomp_det.data.prepare.photo_lists import with_sizes
from pomp_det.data.usable_boxes import Problems
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.documents.csv_tables import Table, listed
from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_json
from prompt_core.visible import shortened
from prompt_core.vocabulary import Vocabulary

BOXES = "challenge-2019-{split}-detection-bbox.csv"
LABELS = "challenge-2019-{split}-detection-human-imagelabels.csv"
TRAIN, COUNTS = "oid_challenge_2019_train_bbox.json", "oid_challenge_2019_train_bbox_cat_info.json"
VAL = "oid_challenge_2019_val_expanded.json"
# Below oid/images, in the order in which they are looked for: Detic's folders, those of Open Images' archives, and what
# its downloader fills.
TRAIN_FOLDERS = ("{first}", "train_{first}", "train")
Row = Mapping[str, str]


def prepare_openimages(root: Path, overwrite: bool = False) -> tuple[dict[Path, Outcome], Problems]:
    """Make the annotation files that the tables in ``oid/annotations`` allow; a split's fault does not stop the other.

    Of the validation tables ``oid_challenge_2019_val_expanded.json``, with boxes of the classes above each one's own.
    Of the training tables ``oid_challenge_2019_train_bbox.json``, the boxes as they are labelled, of the photos that
    have some; and ``…_cat_info.json``, the images of each class, for the federated loss.

    Returns:
        what was done, and the photos that are left out because they cannot be read.

    Raises:
        UserError: when no boxes are there, another table of a split is absent or damaged, or a split has no photos.
    """
    folder, problems = root / "oid/annotations", Problems()
    made: dict[Path, Outcome] = {}
    tables = {split: folder / BOXES.format(split=split) for split in ("validation", "train")}
    if not any(table.is_file() for table in tables.values()):
        names = " nor ".join(map(str, tables.values()))
        raise UserError(f"neither {names} exists; python datasets/check.py openimages says how to get them")
    failed = []
    for split, table in tables.items():
        if table.is_file():
            try:
                made |= _prepare(root, split, overwrite, problems)
            except UserError as error:
                failed.append(str(error))
    if failed:
        done = "".join(f"; {path} is {outcome}" for path, outcome in made.items())
        raise UserError("; ".join(failed) + done)
    return made, problems


def _prepare(root: Path, split: str, overwrite: bool, problems: Problems) -> dict[Path, Outcome]:
    folder, train = root / "oid/annotations", split == "train"
    tables = [folder / name.format(split=split) for name in (BOXES, LABELS)]
    inputs = file_inputs(root, *tables, *([] if train else [folder / HIERARCHY]))
    boxes, image_labels = (_table(path) for path in tables)
    # A photo without a box teaches nothing; in a test set it may hold false detections.
    listed = sorted({row["ImageID"] for table in ([boxes] if train else [boxes, image_labels]) for row in table})
    _check_ids(tables[0], listed)
    photos = root / "oid/images" / ("" if train else split)
    places = _training_places(photos, listed) if train else [f"{name}.jpg" for name in listed]
    images = with_sizes(photos, [{"file_name": place} for place in places], problems)
    if not images:
        raise UserError(f"{photos} holds no photo of {tables[0].name}; python datasets/check.py openimages says more")
    inputs["photos"] = sha256_of_json([[image["file_name"], image["width"], image["height"]] for image in images])
    labels = class_labels()

    def build() -> dict[str, Any]:
        ancestors = [frozenset[int]()] * len(labels) if train else read_ancestors(folder / HIERARCHY, labels)
        return annotations_of(images, boxes, image_labels, ancestors)

    output, recipe = (TRAIN, "open images, 1") if train else (VAL, "open images, expanded, 1")
    made = {folder / output: derive_json(folder / output, inputs, recipe, build, overwrite)}
    if train:
        source, counts = folder / TRAIN, folder / COUNTS
        count = partial(_counts, source)
        made[counts] = derive_json(counts, file_inputs(root, source), "category counts, 1", count, overwrite)
    return made


def _counts(source: Path) -> list[dict[str, Any]]:
    return category_info(read_json(source))


def _training_places(photos: Path, names: Sequence[str]) -> list[str]:
    """Where each photo is below ``oid/images``, or would be in the first of the folders.

    A folder is listed once: to ask for millions of files takes long on a disk of the network.
    """
    content: dict[str, set[str]] = {}
    places = []
    for name in names:
        folders = [folder.format(first=name[0]) for folder in TRAIN_FOLDERS]
        for folder in folders:
            if folder not in content:
                exists = (photos / folder).is_dir()
                content[folder] = {path.name for path in (photos / folder).iterdir()} if exists else set()
        found = next((folder for folder in folders if f"{name}.jpg" in content[folder]), folders[0])
        places.append(f"{found}/{name}.jpg")
    return places


def annotations_of(
    images: Sequence[Mapping[str, Any]],
    boxes: Iterable[Row],
    image_labels: Iterable[Row],
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
        ancestors: of each class, see :func:`pomp_det.data.openimages_classes.read_ancestors`; empty sets leave boxes
            and labels as they are.

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
        if row["ImageID"] in known:
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


def _table(path: Path) -> Table:
    table = Table(path)
    needed = {"ImageID", "LabelName"}
    if not needed <= set(table.columns):
        raise UserError(f"{path}: columns {listed(sorted(needed))} are expected, found {listed(table.columns)}")
    return table


def _check_ids(table: Path, names: Iterable[str]) -> None:
    bad = next((name for name in names if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)), None)
    if bad is not None:
        raise UserError(f"{table}: ImageID {shortened(bad)} is none; a file name without its ending is expected")


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
