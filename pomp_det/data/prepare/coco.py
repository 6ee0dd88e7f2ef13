"""Files derived from COCO: the 48/17 zero-shot splits of OVR-CNN, class counts, caption tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pomp_det.data.annotation_files import read_annotation_file
from pomp_det.data.class_splits import COCO_SEEN, COCO_UNSEEN
from pomp_det.data.prepare.captions import coco_caption_tags
from pomp_det.data.prepare.lvis import category_info
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.errors import UserError


def keep_classes(document: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """COCO with the annotations of some classes and the images that have one; all 80 categories stay.

    Keeping the categories keeps every class index, which is what the suffix ``_oriorder`` of the published files means.

    Raises:
        UserError: when a class is not among the categories.
    """
    of_name = {category["name"]: category["id"] for category in document["categories"]}
    missing = [name for name in names if name not in of_name]
    if missing:
        raise UserError(f"the annotations have no category {missing[0]!r}; COCO's instances_*2017.json is expected")
    category_ids = {of_name[name] for name in names}
    annotations = [annotation for annotation in document["annotations"] if annotation["category_id"] in category_ids]
    present = {annotation["image_id"] for annotation in annotations}
    images = [image for image in document["images"] if image["id"] in present]
    return {**document, "images": images, "annotations": annotations}


def prepare_coco(root: Path, overwrite: bool = False) -> dict[Path, Outcome]:
    """Make every derived file whose source exists.

    Raises:
        UserError: when no source exists.
    """
    annotations, zero_shot = root / "coco/annotations", root / "coco/zero-shot"
    train, val = annotations / "instances_train2017.json", annotations / "instances_val2017.json"
    captions = annotations / "captions_train2017.json"
    if not train.is_file() and not val.is_file():
        raise UserError(f"neither {train} nor {val} exists; python datasets/check.py coco says how to get them")
    made: dict[Path, Outcome] = {}

    def derive(output: Path, recipe: str, sources: Sequence[Path], build: Callable[[], Any]) -> None:
        made[output] = derive_json(output, file_inputs(root, *sources), recipe, build, overwrite)

    if train.is_file():
        seen = zero_shot / "instances_train2017_seen_2_oriorder.json"
        derive(seen, "coco 48 seen classes, 1", [train], lambda: keep_classes(read_annotation_file(train), COCO_SEEN))
        counts = seen.with_name(seen.stem + "_cat_info.json")
        derive(counts, "category counts, 1", [seen], lambda: category_info(read_annotation_file(seen)))
    if val.is_file():
        names = (*COCO_SEEN, *COCO_UNSEEN)
        both = zero_shot / "instances_val2017_all_2_oriorder.json"
        derive(both, "coco 48 + 17 classes, 1", [val], lambda: keep_classes(read_annotation_file(val), names))
    if train.is_file() and captions.is_file():
        derive(
            annotations / "captions_train2017_tags_allcaps.json",
            "caption tags, 2",
            [captions, train],
            lambda: coco_caption_tags(captions, read_annotation_file(train)["categories"]),
        )
    return made
