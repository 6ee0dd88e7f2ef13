"""LVIS's training boxes and those of COCO on the same photos, in LVIS's classes (Zhou et al. 2022, Detic)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import read_annotation_file
from pomp_det.data.coco_lvis import lvis_classes_of_coco
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.errors import UserError

SAME_OBJECT = 0.7  # intersection over union from which two boxes of one class are of one object


def with_coco(lvis: Mapping[str, Any], coco: Mapping[str, Any]) -> dict[str, Any]:
    """LVIS with COCO's annotations of its photos, as Detic's ``tools/merge_lvis_coco.py`` adds them.

    Left out are those of a class that LVIS has verified to be absent, and those that LVIS has itself (of the same
    class, with an IoU of at least 0.7). Annotations are renumbered; only photos that LVIS has annotated get any.
    """
    ids = [category["id"] for category in sorted(lvis["categories"], key=lambda category: category["id"])]
    lvis_id = {category: ids[row] for category, row in lvis_classes_of_coco().items()}
    images = {image["id"]: image for image in lvis["images"]}
    of_photo = {_photo(image): image["id"] for image in lvis["images"]}
    here = {image["id"]: of_photo[_photo(image)] for image in coco["images"] if _photo(image) in of_photo}
    added: dict[int, list[dict[str, Any]]] = {}
    for annotation in coco["annotations"]:
        category, image = lvis_id[annotation["category_id"]], here.get(annotation["image_id"])
        if image is not None and category not in images[image]["neg_category_ids"]:
            added.setdefault(image, []).append({**annotation, "category_id": category, "image_id": image})
    annotated: dict[int, list[dict[str, Any]]] = {}
    for annotation in lvis["annotations"]:
        annotated.setdefault(annotation["image_id"], []).append(annotation)
    merged: list[dict[str, Any]] = []
    for image, own in annotated.items():
        merged += own
        merged += _new(added.get(image, []), own)
    numbered = [{**annotation, "id": number} for number, annotation in enumerate(merged, start=1)]
    return {**lvis, "annotations": numbered}


def _photo(image: Mapping[str, Any]) -> str:
    return str(image.get("coco_url") or image["file_name"]).rpartition("/")[2]


def _new(candidates: list[dict[str, Any]], own: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The candidates that are not one of the photo's own annotations."""
    from pycocotools.mask import iou

    if not candidates:
        return
    boxes = [annotation["bbox"] for annotation in own]
    overlaps = iou([candidate["bbox"] for candidate in candidates], boxes, [0] * len(boxes))  # (candidates, own)
    for candidate, row in zip(candidates, overlaps, strict=True):
        same = [
            overlap >= SAME_OBJECT and candidate["category_id"] == annotation["category_id"]
            for overlap, annotation in zip(row, own, strict=True)
        ]
        if not any(same):
            yield candidate


def prepare_lvis_coco(root: Path, overwrite: bool = False) -> dict[Path, Outcome]:
    """Write ``lvis/lvis_v1_train+coco_mask.json``.

    Raises:
        UserError: when one of the two training files is absent.
    """
    lvis, coco = root / "lvis/lvis_v1_train.json", root / "coco/annotations/instances_train2017.json"
    for path, group in ((lvis, "lvis"), (coco, "coco")):
        if not path.is_file():
            raise UserError(f"{path} does not exist; python datasets/check.py {group} says how to get it")
    output = root / "lvis/lvis_v1_train+coco_mask.json"

    def build() -> dict[str, Any]:
        return with_coco(read_annotation_file(lvis, federated=True), read_annotation_file(coco))

    return {output: derive_json(output, file_inputs(root, lvis, coco), "lvis with coco, 1", build, overwrite)}
