"""The known data sets: names as published YAML files use them, files below one data root, and how to get each.

One table serves registration, preparation and ``datasets/check.py``. Nothing is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pomp_engine.data.catalog import Catalog, CatalogEntry

_LVIS_ZIP = "python tools/fetch.py lvis_v1_{split}.json.zip --root {root}"
_COCO_ZIP = "python tools/fetch.py annotations_trainval2017.zip --root {root}"
_COCO_PHOTOS = "python tools/fetch.py {split}2017.zip --root {root}"


@dataclass(frozen=True, kw_only=True)
class DatasetEntry(CatalogEntry):
    """One data set of boxes, masks or classes of photos.

    Attributes:
        kind: annotation format: ``lvis`` (federated boxes), ``coco`` (boxes), ``openimages`` (boxes and what was
            looked for) or ``image_labels`` (classes per photo).
        annotations: file below the data root; further ones are accepted places of the same content.
        images: folder below the data root.
        vocabulary: published vocabulary that the classes come from; None reads them from the annotation file.
        image_count: photos that the published file lists, or None when it depends on the source.
        class_groups: named sets of classes that are scored apart.
    """

    kind: str
    annotations: tuple[str, ...]
    images: str
    vocabulary: str | None = None
    image_count: int | None = None
    class_groups: tuple[str, ...] = ()

    def annotation_file(self, root: Path) -> Path:
        """The accepted annotation file that exists, else the first accepted place."""
        places = [root / place for place in self.annotations]
        return next((place for place in places if place.is_file()), places[0])


def _lvis(name: str, files: tuple[str, ...], how: str, count: int | None, group: str = "lvis") -> DatasetEntry:
    return DatasetEntry(
        name=name,
        group=group,
        kind="lvis",
        annotations=tuple(f"lvis/{file}" for file in files),
        images="coco",
        how=how,
        images_how="python tools/fetch.py coco_photos --root {root}",
        vocabulary="lvis",
        image_count=count,
    )


def _coco(
    name: str,
    file: str,
    split: str,
    how: str = _COCO_ZIP,
    kind: str = "coco",
    count: int | None = None,
    class_groups: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
) -> DatasetEntry:
    return DatasetEntry(
        name=name,
        group="coco",
        kind=kind,
        annotations=tuple(f"coco/{place}" for place in (file, *also)),
        images=f"coco/{split}2017",
        how=how,
        images_how=_COCO_PHOTOS.replace("{split}", split),
        vocabulary="coco",
        image_count=count,
        class_groups=class_groups,
    )


def _coco_small(split: str, count: int) -> DatasetEntry:
    return DatasetEntry(
        name=f"coco_small_{split}",
        group="coco_small",
        kind="coco",
        annotations=(f"coco_small/instances_{split}.json",),
        images=".",
        how="python datasets/prepare.py coco_small, with the folders coco128, coco128_val and coco_more in {root}, or "
        "with --from-coco {root}/coco and COCO 2017 there (python tools/fetch.py coco coco_photos --root {root})",
        images_how="put the folders coco128, coco128_val and coco_more into {root}; or take COCO 2017: "
        "python tools/fetch.py coco_photos --root {root}",
        vocabulary="coco",
        image_count=count,
    )


def _objects365(split: str, file: str, count: int | None, how: str = "") -> DatasetEntry:
    folder = split.removesuffix("_rare")
    return DatasetEntry(
        name=f"objects365_v2_{split}",
        group="objects365",
        kind="coco",
        annotations=(f"objects365/annotations/{file}", f"objects365/{file}"),
        images=f"objects365/{folder}",
        how=how
        or f"put zhiyuan_objv2_{split}.json of Objects365 v2 (objects365.org) into {{root}}/objects365/annotations "
        "and run python datasets/prepare.py objects365",
        images_how=f"download the {folder} patches of Objects365 v2 from objects365.org and unpack them into "
        f"{{root}}/objects365/{folder}",
        vocabulary="objects365",
        image_count=count,
    )


def _openimages(name: str, file: str, how: str, train: bool = False) -> DatasetEntry:
    split, folder = ("training", "") if train else ("validation", "/validation")
    into = "folders 0 to f, by the first character of their names, train_0 to train_f or train, below " if train else ""
    return DatasetEntry(
        name=name,
        group="openimages",
        kind="openimages",
        annotations=(f"oid/annotations/{file}",),
        images=f"oid/images{folder}",
        how=how,
        images_how=f"download the {split} photos of Open Images (storage.googleapis.com/openimages) and unpack them "
        f"into {into}{{root}}/oid/images{folder}",
        vocabulary="openimages",
    )


def _shapes(name: str, kind: str, file: str, images: str) -> DatasetEntry:
    how = "python datasets/make_shapes.py --output {root}/shapes"
    return DatasetEntry(
        name=name,
        group="shapes",
        kind=kind,
        annotations=(f"shapes/annotations/{file}",),
        images=f"shapes/{images}",
        how=how,
        images_how=how,
    )


def _imagenet(name: str, group: str, file: str, folder: str, vocabulary: str | None = None) -> DatasetEntry:
    return DatasetEntry(
        name=name,
        group=group,
        kind="image_labels",
        annotations=(f"imagenet/annotations/{file}",),
        images="imagenet/ImageNet-LVIS",  # of both, as in Detic: a list leads from there to another folder
        how=f"python datasets/prepare.py {group}",
        images_how="put the folders (WNID/*.JPEG) or archives (WNID.tar) of ImageNet-21K (image-net.org) into "
        f"{{root}}/imagenet/{folder}",
        vocabulary=vocabulary,
    )


def _conceptual_captions(name: str, file: str) -> DatasetEntry:
    return DatasetEntry(
        name=name,
        group="cc3m",
        kind="image_labels",
        annotations=(f"cc3m/{file}",),
        images="cc3m/training",
        how="put Train_GCC-training.tsv (ai.google.com/research/ConceptualCaptions) into {root}/cc3m and run python "
        "datasets/prepare.py cc3m",
        images_how="download the photo of line n of Train_GCC-training.tsv as {root}/cc3m/training/n.jpg",
        vocabulary="lvis",
    )


_OPEN_IMAGES_TABLES = (
    "put the boxes, human image labels and hierarchy of the Open Images Challenge 2019 (challenge-2019-{split}-"
    "detection-bbox.csv, challenge-2019-{split}-detection-human-imagelabels.csv, challenge-2019-label500-hierarchy."
    "json from storage.googleapis.com/openimages) into {root}/oid/annotations and run python datasets/prepare.py "
    "openimages"
)
_OPEN_IMAGES = _OPEN_IMAGES_TABLES.replace("{split}", "validation")
_OPEN_IMAGES_TRAIN = _OPEN_IMAGES_TABLES.replace("{split}", "train")
_OBJECTS365_VAL = "objects365/annotations/zhiyuan_objv2_val_fixname.json"
_OPEN_IMAGES_VAL = "oid/annotations/oid_challenge_2019_val_expanded.json"
_OPEN_IMAGES_RARE = "oid_challenge_2019_val_expanded_rare.json"
_RARE_CLASSES = (
    "leave the other classes out of {root}/%s; Detic names this file, and neither it nor what makes it is published"
)
_ZERO_SHOT = "python datasets/prepare.py coco"
_FROM_TRAIN = _LVIS_ZIP.replace("{split}", "train") + " && python datasets/prepare.py lvis"
_FROM_VAL = _LVIS_ZIP.replace("{split}", "val") + " && python datasets/prepare.py lvis"

_ENTRIES = (
    _lvis("lvis_v1_train", ("lvis_v1_train.json",), _LVIS_ZIP.replace("{split}", "train"), 100_170),
    _lvis("lvis_v1_train_norare", ("lvis_v1_train_norare.json",), _FROM_TRAIN, 100_170),
    _lvis(
        "lvis_v1_train+coco",
        ("lvis_v1_train+coco_mask.json",),
        f"{_LVIS_ZIP.replace('{split}', 'train')}, {_COCO_ZIP}, and run python datasets/prepare.py lvis_coco",
        100_170,
        group="lvis_coco",
    ),
    _lvis("lvis_v1_val", ("lvis_v1_val.json",), _LVIS_ZIP.replace("{split}", "val"), 19_809),
    _lvis("lvis_v1_minival", ("lvis_v1_minival.json", "lvis_v1_minival_inserted_image_name.json"), _FROM_VAL, None),
    _coco("coco_2017_train", "annotations/instances_train2017.json", "train", count=118_287),
    _coco("coco_2017_val", "annotations/instances_val2017.json", "val", count=5_000),
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
        count=4_836,
        class_groups=("seen", "unseen"),
    ),
    _coco(
        "coco_caption_train_tags",
        "annotations/captions_train2017_tags_allcaps.json",
        "train",
        _ZERO_SHOT,
        kind="image_labels",
        also=("captions_train2017_tags_allcaps.json",),  # where Detic's instructions write it
    ),
    _coco_small("train", 288),
    _coco_small("val", 203),
    _coco_small("val_masks", 175),
    _objects365("train", "zhiyuan_objv2_train_fixname_fixmiss.json", None),
    _objects365("val", "zhiyuan_objv2_val_fixname.json", 80_000),
    _objects365("val_rare", "zhiyuan_objv2_val_fixname_rare.json", None, _RARE_CLASSES % _OBJECTS365_VAL),
    _openimages("oid_train", "oid_challenge_2019_train_bbox.json", _OPEN_IMAGES_TRAIN, train=True),
    _openimages("oid_val_expanded", "oid_challenge_2019_val_expanded.json", _OPEN_IMAGES),
    _openimages("oid_val_expanded_rare", _OPEN_IMAGES_RARE, _RARE_CLASSES % _OPEN_IMAGES_VAL),
    _imagenet("imagenet_lvis_v1", "imagenet_lvis", "imagenet_lvis_image_info.json", "ImageNet-LVIS", "lvis"),
    _imagenet("imagenet_lvis-22k", "imagenet_21k", "imagenet-22k_image_info_lvis-22k.json", "ImageNet-21K"),
    _conceptual_captions("cc3m_v1_train", "train_image_info.json"),
    _conceptual_captions("cc3m_v1_train_tags", "train_image_info_tags.json"),
    _shapes("shapes_train", "coco", "instances_train.json", "scenes/train"),
    _shapes("shapes_val", "coco", "instances_val.json", "scenes/val"),
    _shapes("shapes_lvis_train", "lvis", "lvis_train.json", "scenes"),
    _shapes("shapes_lvis_train_norare", "lvis", "lvis_train_norare.json", "scenes"),
    _shapes("shapes_lvis_val", "lvis", "lvis_val.json", "scenes"),
    _shapes("shapes_image_labels", "image_labels", "image_labels.json", "classification/val"),
)

CATALOG = Catalog(_ENTRIES, small_groups=("shapes", "coco_small"))
ENTRIES, GROUPS = CATALOG.entries, CATALOG.groups
dataset_entry, entries_of = CATALOG.entry, CATALOG.of_group
