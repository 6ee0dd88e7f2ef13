"""The known segmentation data sets: names as published YAML files use them, folders below one data root.

One table serves registration, preparation and ``datasets/check.py``. Nothing is read here. Names and folders are those
of ZSSeg (arXiv 2112.14757) and POMP, so that trees prepared for them serve as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prompt_core.errors import UserError, nearest

GROUPS = (
    *("coco_stuff", "voc_seg", "pcontext", "ade20k", "ade20k_full", "cityscapes"),
    *("coco_small_seg", "semseg_samples", "shapes_seg"),
)
# Not looked at by "all": samples for a laptop.
SMALL_GROUPS = ("coco_small_seg", "semseg_samples", "shapes_seg")

_COCO_PHOTOS = "download {split}2017.zip from cocodataset.org/#download and unzip it into {root}/coco"
_VOC_PHOTOS = (
    "download VOCtrainval_11-May-2012.tar (host.robots.ox.ac.uk/pascal/VOC/voc2012) and move VOC2012 to {root}"
)
_PCONTEXT_PHOTOS = (
    "download VOCtrainval_03-May-2010.tar (host.robots.ox.ac.uk/pascal/VOC/voc2010) and move VOC2010 to {root}"
)
_ADE20K_PHOTOS = "download ADEChallengeData2016.zip (sceneparsing.csail.mit.edu) and unzip it into {root}"
_ADE20K_FULL_PHOTOS = "download ADE20K_2021_17_01.zip (groups.csail.mit.edu/vision/datasets/ADE20K) into {root}"
_CITYSCAPES = (
    "download leftImg8bit and gtFine (cityscapes-dataset.com) into {root}/cityscapes, and make *_labelTrainIds.png "
    "with csCreateTrainIdLabelImgs of cityscapesscripts"
)


@dataclass(frozen=True)
class SegmentationEntry:
    """One data set under the name that configurations use.

    Attributes:
        name: in ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        group: what ``datasets/check.py`` calls it.
        labels: folder of label images below the data root; they decide which photos belong to the set.
        images: accepted folders of the photos, the first that exists is taken; photos may lie deeper.
        label_set: classes, a name of :data:`pomp_seg.data.label_sets.LABEL_SETS`; or a JSON file below the root.
        how: how to get the labels; ``{root}`` is the data root.
        images_how: how to get the photos.
        label_suffix, image_suffix: what the names of label and photo have behind their common part.
        label_counts: JSON ``{label file: [classes]}`` below the root, for one record of each image and class.
        image_count: labels that the published set has, those without any labelled pixel included.
        base_of_file: of a ``label_set`` file, only the seen classes.
    """

    name: str
    group: str
    labels: str
    images: tuple[str, ...]
    label_set: str
    how: str
    images_how: str
    label_suffix: str = ""
    image_suffix: str = ""
    label_counts: str | None = None
    image_count: int | None = None
    base_of_file: bool = False

    @property
    def classes_in_file(self) -> bool:
        """Whether the classes are listed in a file below the root."""
        return self.label_set.endswith(".json")

    def image_folder(self, root: Path) -> Path:
        """The accepted folder of photos that exists, else the first one."""
        places = [root / place for place in self.images]
        return next((place for place in places if place.is_dir()), places[0])

    def advice(self, root: Path) -> str:
        """How to get the labels, with the paths of this root."""
        return self.how.format(root=root)

    def images_advice(self, root: Path) -> str:
        """How to get the photos, with the paths of this root."""
        return self.images_how.format(root=root)


def _coco_stuff(name: str, split: str, base: bool = False, counts: bool = False) -> SegmentationEntry:
    folder = f"coco/stuffthingmaps_detectron2/{split}2017{'_base' if base else ''}"
    return SegmentationEntry(
        name,
        "coco_stuff",
        folder,
        (f"coco/{split}2017",),
        "coco_stuff_base" if base else "coco_stuff",
        "download stuffthingmaps_trainval2017.zip (github.com/nightrome/cocostuff), unzip it into "
        "{root}/coco/stuffthingmaps and run python datasets/prepare.py coco_stuff",
        _COCO_PHOTOS.replace("{split}", split),
        label_counts=f"{folder}_label_count.json" if counts else None,
        image_count=None if base else {"train": 118_287, "val": 5_000}[split],
    )


def _voc(name: str, split: str, base: bool = False, counts: bool = False) -> SegmentationEntry:
    folder = f"VOC2012/annotations_detectron2/{split}{'_base' if base else ''}"
    return SegmentationEntry(
        name,
        "voc_seg",
        folder,
        ("VOC2012/JPEGImages",),
        "voc_base" if base else "voc",
        "put SegmentationClassAug, train.txt (10,582 names) and val.txt into {root}/VOC2012 and run "
        "python datasets/prepare.py voc_seg",
        _VOC_PHOTOS,
        label_counts=f"{folder}_label_count.json" if counts else None,
        image_count=None if base else {"train": 10_582, "val": 1_449}[split],
    )


def _pcontext(split: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        f"pcontext_sem_seg_{split}",
        "pcontext",
        f"pcontext/{split}/label",
        (f"pcontext/{split}/image", "VOC2010/JPEGImages", "VOCdevkit/VOC2010/JPEGImages"),
        "pascal_context",
        "put trainval_merged.json of PASCAL in Detail into {root}/VOC2010 and run python datasets/prepare.py pcontext",
        _PCONTEXT_PHOTOS,
        image_count=count,
    )


def _ade20k(split: str, folder: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        f"ade20k_sem_seg_{split}",
        "ade20k",
        f"ADEChallengeData2016/annotations_detectron2/{folder}",
        (f"ADEChallengeData2016/images/{folder}",),
        "ade20k",
        _ADE20K_PHOTOS + " and run python datasets/prepare.py ade20k",
        _ADE20K_PHOTOS,
        image_count=count,
    )


def _ade20k_full(split: str, folder: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        f"ade20k_full_sem_seg_{split}",
        "ade20k_full",
        f"ADE20K_2021_17_01/annotations_detectron2/{folder}",
        (f"ADE20K_2021_17_01/images/ADE/{folder}", f"ADE20K_2021_17_01/images_detectron2/{folder}"),
        "ADE20K_2021_17_01/classes_detectron2.json",
        _ADE20K_FULL_PHOTOS + " and run python datasets/prepare.py ade20k_full",
        _ADE20K_FULL_PHOTOS,
        image_count=count,
    )


def _cityscapes(split: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        f"cityscapes_fine_sem_seg_{split}",
        "cityscapes",
        f"cityscapes/gtFine/{split}",
        (f"cityscapes/leftImg8bit/{split}",),
        "cityscapes",
        _CITYSCAPES,
        _CITYSCAPES,
        label_suffix="_gtFine_labelTrainIds",
        image_suffix="_leftImg8bit",
        image_count=count,
    )


def _coco_small(name: str, split: str, base: bool = False, counts: bool = False) -> SegmentationEntry:
    folder, pack = f"coco_small_seg/{split}{'_base' if base else ''}", "coco128" if split == "train" else "coco128_val"
    return SegmentationEntry(
        name,
        "coco_small_seg",
        folder,
        (f"{pack}/{split}2017",),
        "coco_small_base" if base else "coco_small",
        "put coco128 and coco128_val into {root} and run python datasets/prepare.py coco_small_seg",
        f"put the folder {pack} into {{root}}",
        label_counts=f"{folder}_label_count.json" if counts else None,
        image_count={"train": 100, "val": 60}[split],
    )


def _sample(name: str, folder: str, images: str, classes: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        name,
        "semseg_samples",
        f"semseg_samples_detectron2/{folder}",
        (f"semseg_samples/{images}",),
        classes,
        "put the folder semseg_samples into {root} and run python datasets/prepare.py semseg_samples",
        "put the folder semseg_samples into {root}",
        image_count=count,
    )


def _shapes(name: str, split: str, base: bool = False, counts: bool = False) -> SegmentationEntry:
    folder = f"shapes/semantic/{split}{'_base' if base else ''}"
    how = "python datasets/make_shapes.py --output {root}/shapes"
    return SegmentationEntry(
        name,
        "shapes_seg",
        folder,
        (f"shapes/scenes/{split}",),
        "shapes/semantic_classes.json",
        how + " and python datasets/prepare.py shapes_seg",
        how,
        label_counts=f"{folder}_label_count.json" if counts else None,
        base_of_file=base,
    )


ENTRIES = (
    _coco_stuff("coco_2017_train_stuff_sem_seg", "train"),
    _coco_stuff("coco_2017_test_stuff_sem_seg", "val"),
    _coco_stuff("coco_2017_train_stuff_base_sem_seg", "train", base=True),
    _coco_stuff("coco_2017_train_stuff_base_sem_seg_classification", "train", base=True, counts=True),
    _coco_stuff("coco_2017_test_stuff_sem_seg_classification", "val", counts=True),
    _voc("voc_sem_seg_train", "train"),
    _voc("voc_sem_seg_test", "val"),
    _voc("voc_base_sem_seg_train", "train", base=True),
    _voc("voc_base_sem_seg_train_classification", "train", base=True, counts=True),
    _voc("voc_sem_seg_test_classification", "val", counts=True),
    _pcontext("train", 4_998),
    _pcontext("val", 5_105),
    _ade20k("train", "training", 20_210),
    _ade20k("val", "validation", 2_000),
    _ade20k_full("train", "training", 25_574),
    _ade20k_full("val", "validation", 2_000),
    _cityscapes("train", 2_975),
    _cityscapes("val", 500),
    _coco_small("coco_small_sem_seg_train", "train"),
    _coco_small("coco_small_sem_seg_val", "val"),
    _coco_small("coco_small_base_sem_seg_train", "train", base=True),
    _coco_small("coco_small_base_sem_seg_train_classification", "train", base=True, counts=True),
    _coco_small("coco_small_sem_seg_val_classification", "val", counts=True),
    _sample("ade20k_sample_sem_seg_val", "ade20k/val", "ade20k_150/images", "ade20k", 3),
    _sample("camvid_sem_seg_train", "camvid/train", "camvid/train", "camvid", 12),
    _sample("camvid_sem_seg_val", "camvid/val", "camvid/val", "camvid", 8),
    _sample("camvid_sem_seg_test", "camvid/test", "camvid/test", "camvid", 10),
    _shapes("shapes_sem_seg_train", "train"),
    _shapes("shapes_sem_seg_val", "val"),
    _shapes("shapes_base_sem_seg_train", "train", base=True),
    _shapes("shapes_base_sem_seg_train_classification", "train", base=True, counts=True),
    _shapes("shapes_sem_seg_val_classification", "val", counts=True),
)

_BY_NAME = {entry.name: entry for entry in ENTRIES}


def segmentation_entry(name: str) -> SegmentationEntry:
    """The entry of a data set name.

    Raises:
        UserError: for an unknown name, with the nearest known ones.
    """
    if name not in _BY_NAME:
        raise UserError(f"data set {name!r} is unknown{nearest(name, _BY_NAME)}; known: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def entries_of(group: str) -> Iterator[SegmentationEntry]:
    """The entries that ``datasets/check.py GROUP`` looks at; ``all`` leaves small sets out.

    Raises:
        UserError: for an unknown group.
    """
    if group != "all" and group not in GROUPS:
        known = (*GROUPS, "all")
        raise UserError(f"{group!r} is no group of data sets{nearest(group, known)}; expected {', '.join(known)}")
    return (entry for entry in ENTRIES if entry.group == group or (group == "all" and entry.group not in SMALL_GROUPS))
