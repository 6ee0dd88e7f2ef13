"""The known data sets: names as published YAML files use them, files below one data root, and how to get each.

One table serves registration, preparation and ``datasets/check.py``. Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prompt_core.errors import UserError, nearest

GROUPS = ("lvis", "coco", "coco_small", "objects365", "imagenet_lvis", "shapes")

_LVIS_ZIP = "download lvis_v1_{split}.json.zip from lvisdataset.org/dataset and unzip it into {root}/lvis"
_COCO_ZIP = "download annotations_trainval2017.zip from cocodataset.org/#download and unzip it into {root}/coco"
_COCO_PHOTOS = "download {split}2017.zip from cocodataset.org/#download and unzip it into {root}/coco"
_O365_PHOTOS = "download the {split} patches of Objects365 v2 from objects365.org and unpack them into {root}/{images}"


@dataclass(frozen=True)
class DatasetEntry:
    """One data set under the name that configurations use.

    Attributes:
        name: the name in ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        group: what ``datasets/check.py`` calls it.
        kind: annotation format: ``lvis`` (federated boxes), ``coco`` (boxes) or ``image_labels`` (classes per photo).
        annotations: file below the data root; further ones are accepted places of the same content.
        images: folder below the data root.
        how: how to get the annotation file; ``{root}`` is the data root.
        images_how: how to get the photos.
        vocabulary: published vocabulary that the classes come from; None reads them from the annotation file.
        image_count: photos that the published file lists, or None when it depends on the source.
        class_groups: named sets of classes that are scored apart.
    """

    name: str
    group: str
    kind: str
    annotations: tuple[str, ...]
    images: str
    how: str
    images_how: str
    vocabulary: str | None = None
    image_count: int | None = None
    class_groups: tuple[str, ...] = ()

    def annotation_file(self, root: Path) -> Path:
        """The accepted annotation file that exists, else the first accepted place."""
        places = [root / place for place in self.annotations]
        return next((place for place in places if place.is_file()), places[0])

    def advice(self, root: Path) -> str:
        """How to get the annotation file, with the paths of this root."""
        return self.how.format(root=root, images=self.images)

    def images_advice(self, root: Path) -> str:
        """How to get the photos, with the paths of this root."""
        return self.images_how.format(root=root, images=self.images)


def _lvis(name: str, file: str | tuple[str, ...], how: str, count: int | None) -> DatasetEntry:
    files = (file,) if isinstance(file, str) else file
    photos = "download train2017.zip and val2017.zip from cocodataset.org/#download and unzip them into {root}/coco"
    return DatasetEntry(
        name, "lvis", "lvis", tuple(f"lvis/{each}" for each in files), "coco", how, photos, "lvis", count
    )


def _coco(name: str, file: str, split: str, how: str = _COCO_ZIP, **more: object) -> DatasetEntry:
    photos = _COCO_PHOTOS.replace("{split}", split)
    values: dict[str, object] = {"kind": "coco", "vocabulary": "coco"} | more
    return DatasetEntry(
        name,
        "coco",
        annotations=(f"coco/{file}",),
        images=f"coco/{split}2017",
        how=how,
        images_how=photos,
        **values,  # type: ignore[arg-type]
    )


def _objects365(split: str, file: str, count: int | None) -> DatasetEntry:
    return DatasetEntry(
        f"objects365_v2_{split}",
        "objects365",
        "coco",
        (f"objects365/annotations/{file}", f"objects365/{file}"),
        f"objects365/{split}",
        f"put zhiyuan_objv2_{split}.json of Objects365 v2 (objects365.org) into {{root}}/objects365/annotations and "
        "run python datasets/prepare.py objects365",
        _O365_PHOTOS.replace("{split}", split),
        "objects365",
        count,
    )


def _coco_small(split: str, count: int) -> DatasetEntry:
    return DatasetEntry(
        f"coco_small_{split}",
        "coco_small",
        "coco",
        (f"coco_small/instances_{split}.json",),
        ".",
        "put coco128, coco128_val and coco_more into {root} and run python datasets/prepare.py coco_small",
        "put the folders coco128, coco128_val and coco_more into {root}",
        "coco",
        count,
    )


def _shapes(name: str, kind: str, file: str, images: str) -> DatasetEntry:
    how = "python datasets/make_shapes.py --output {root}/shapes"
    return DatasetEntry(name, "shapes", kind, (f"shapes/annotations/{file}",), f"shapes/{images}", how, how)


_ZERO_SHOT = "python datasets/prepare.py coco"
_FROM_TRAIN = _LVIS_ZIP.replace("{split}", "train") + " and run python datasets/prepare.py lvis"
_FROM_VAL = _LVIS_ZIP.replace("{split}", "val") + " and run python datasets/prepare.py lvis"

ENTRIES = (
    _lvis("lvis_v1_train", "lvis_v1_train.json", _LVIS_ZIP.replace("{split}", "train"), 100_170),
    _lvis("lvis_v1_train_norare", "lvis_v1_train_norare.json", _FROM_TRAIN, 100_170),
    _lvis("lvis_v1_val", "lvis_v1_val.json", _LVIS_ZIP.replace("{split}", "val"), 19_809),
    _lvis("lvis_v1_minival", ("lvis_v1_minival.json", "lvis_v1_minival_inserted_image_name.json"), _FROM_VAL, None),
    _coco("coco_2017_train", "annotations/instances_train2017.json", "train", image_count=118_287),
    _coco("coco_2017_val", "annotations/instances_val2017.json", "val", image_count=5_000),
    _coco(
        "coco_zeroshot_train_oriorder",
        "zero-shot/instances_train2017_seen_2_oriorder.json",
        "train",
        _ZERO_SHOT,
        class_groups=("seen",),
    ),
    _coco(
        "coco_generalized_zeroshot_val",
        "zero-shot/instances_val2017_all_2_oriorder.json",
        "val",
        _ZERO_SHOT,
        image_count=4_836,
        class_groups=("seen", "unseen"),
    ),
    _coco(
        "coco_caption_train_tags",
        "annotations/captions_train2017_tags_allcaps.json",
        "train",
        _ZERO_SHOT,
        kind="image_labels",
    ),
    _coco_small("train", 288),
    _coco_small("val", 203),
    _coco_small("val_masks", 175),
    _objects365("train", "zhiyuan_objv2_train_fixname_fixmiss.json", None),
    _objects365("val", "zhiyuan_objv2_val_fixname.json", 80_000),
    DatasetEntry(
        "imagenet_lvis_v1",
        "imagenet_lvis",
        "image_labels",
        ("imagenet/annotations/imagenet_lvis_image_info.json",),
        "imagenet/ImageNet-LVIS",
        "python datasets/prepare.py imagenet_lvis",
        "put the folders (WNID/*.JPEG) or archives (WNID.tar) of ImageNet-21K (image-net.org) into {root}/{images}",
        "lvis",
    ),
    _shapes("shapes_train", "coco", "instances_train.json", "scenes/train"),
    _shapes("shapes_val", "coco", "instances_val.json", "scenes/val"),
    _shapes("shapes_lvis_train", "lvis", "lvis_train.json", "scenes"),
    _shapes("shapes_lvis_train_norare", "lvis", "lvis_train_norare.json", "scenes"),
    _shapes("shapes_lvis_val", "lvis", "lvis_val.json", "scenes"),
    _shapes("shapes_image_labels", "image_labels", "image_labels.json", "classification/val"),
)

_BY_NAME = {entry.name: entry for entry in ENTRIES}


def dataset_entry(name: str) -> DatasetEntry:
    """The entry of a data set name.

    Raises:
        UserError: for an unknown name, with the nearest known ones.
    """
    if name not in _BY_NAME:
        raise UserError(f"data set {name!r} is unknown{nearest(name, _BY_NAME)}; known: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def entries_of(group: str) -> Iterator[DatasetEntry]:
    """The entries that ``datasets/check.py GROUP`` looks at; ``all`` leaves drawn shapes and small sets out.

    Raises:
        UserError: for an unknown group.
    """
    if group != "all" and group not in GROUPS:
        known = (*GROUPS, "all")
        raise UserError(f"{group!r} is no group of data sets{nearest(group, known)}; expected {', '.join(known)}")
    return (
        entry
        for entry in ENTRIES
        if entry.group == group or (group == "all" and entry.group not in ("shapes", "coco_small"))
    )
