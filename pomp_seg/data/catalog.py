"""The known segmentation data sets: names as published YAML files use them, folders below one data root.

One table serves registration, preparation and ``datasets/check.py``. Nothing is read here. Names and folders are those
of ZSSeg (arXiv 2112.14757) and POMP, so that folders prepared for them work unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pomp_engine.data.catalog import Catalog, CatalogEntry

_COCO_PHOTOS = "python tools/fetch.py {split}2017.zip --root {root}"
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
_SHAPES = "python datasets/make_shapes.py --output {root}/shapes"


@dataclass(frozen=True, kw_only=True)
class SegmentationEntry(CatalogEntry):
    """One data set of label images.

    Attributes:
        labels: folder of label images below the data root; they decide which photos belong to the set.
        images: accepted folders of the photos, the first that exists is taken; photos may lie deeper.
        label_set: classes, a name of :data:`pomp_seg.data.label_sets.LABEL_SETS`; or a JSON file below the root.
        label_suffix, image_suffix: what follows the common part in the names of label and photo.
        label_counts: JSON ``{label file: [classes]}`` below the root, for one record of each image and class.
        image_count: labels that the published set has, those without any labelled pixel included.
        base_of_file: of a ``label_set`` file, only the seen classes.
    """

    labels: str
    images: tuple[str, ...]
    label_set: str
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


@dataclass(frozen=True)
class _Split:
    """One part of a data set; ``name`` and ``folder`` are its word in names of data sets and in folders of labels."""

    name: str
    folder: str
    images: str
    images_how: str
    count: int | None = None
    base_count: int | None = None


def _with_seen_classes(
    group: str, name: str, folder: str, label_set: str, how: str, train: _Split, test: _Split
) -> list[SegmentationEntry]:
    """The five sets of data with a split into seen and unseen classes.

    Labels of all classes to train and test on, labels of the seen ones to train on, and for prompt tuning one record
    of each image and class (``…_classification``).

    Args:
        name, folder: with ``{split}`` and ``{base}`` (``_base`` for the seen classes); names also with ``{records}``.
    """
    variants = ((train, "", ""), (test, "", ""), (train, "_base", ""), (train, "_base", "_classification"),
                (test, "", "_classification"))  # fmt: skip
    in_file = label_set.endswith(".json")
    entries = []
    for split, base, records in variants:
        labels = folder.format(split=split.folder, base=base)
        entries.append(
            SegmentationEntry(
                name=name.format(split=split.name, base=base, records=records),
                group=group,
                labels=labels,
                images=(split.images,),
                label_set=label_set if in_file else label_set + base,
                how=how,
                images_how=split.images_how,
                label_counts=f"{labels}_label_count.json" if records else None,
                image_count=split.base_count if base else split.count,
                base_of_file=in_file and bool(base),
            )
        )
    return entries


def _pcontext(split: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        name=f"pcontext_sem_seg_{split}",
        group="pcontext",
        labels=f"pcontext/{split}/label",
        images=(f"pcontext/{split}/image", "VOC2010/JPEGImages", "VOCdevkit/VOC2010/JPEGImages"),
        label_set="pascal_context",
        how="put trainval_merged.json of PASCAL in Detail into {root}/VOC2010 and run "
        "python datasets/prepare.py pcontext",
        images_how=_PCONTEXT_PHOTOS,
        image_count=count,
    )


def _ade20k(split: str, folder: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        name=f"ade20k_sem_seg_{split}",
        group="ade20k",
        labels=f"ADEChallengeData2016/annotations_detectron2/{folder}",
        images=(f"ADEChallengeData2016/images/{folder}",),
        label_set="ade20k",
        how=_ADE20K_PHOTOS + " and run python datasets/prepare.py ade20k",
        images_how=_ADE20K_PHOTOS,
        image_count=count,
    )


def _ade20k_full(split: str, folder: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        name=f"ade20k_full_sem_seg_{split}",
        group="ade20k_full",
        labels=f"ADE20K_2021_17_01/annotations_detectron2/{folder}",
        images=(f"ADE20K_2021_17_01/images/ADE/{folder}", f"ADE20K_2021_17_01/images_detectron2/{folder}"),
        label_set="ADE20K_2021_17_01/classes_detectron2.json",
        how=_ADE20K_FULL_PHOTOS + " and run python datasets/prepare.py ade20k_full",
        images_how=_ADE20K_FULL_PHOTOS,
        image_count=count,
    )


def _cityscapes(split: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        name=f"cityscapes_fine_sem_seg_{split}",
        group="cityscapes",
        labels=f"cityscapes/gtFine/{split}",
        images=(f"cityscapes/leftImg8bit/{split}",),
        label_set="cityscapes",
        how=_CITYSCAPES,
        images_how=_CITYSCAPES,
        label_suffix="_gtFine_labelTrainIds",
        image_suffix="_leftImg8bit",
        image_count=count,
    )


def _sample(name: str, folder: str, images: str, label_set: str, count: int) -> SegmentationEntry:
    return SegmentationEntry(
        name=name,
        group="semseg_samples",
        labels=f"semseg_samples_detectron2/{folder}",
        images=(f"semseg_samples/{images}",),
        label_set=label_set,
        how="put the folder semseg_samples into {root} and run python datasets/prepare.py semseg_samples",
        images_how="put the folder semseg_samples into {root}",
        image_count=count,
    )


_ENTRIES = (
    *_with_seen_classes(
        "coco_stuff",
        "coco_2017_{split}_stuff{base}_sem_seg{records}",
        "coco/stuffthingmaps_detectron2/{split}2017{base}",
        "coco_stuff",
        "download stuffthingmaps_trainval2017.zip (github.com/nightrome/cocostuff), unzip it into "
        "{root}/coco/stuffthingmaps and run python datasets/prepare.py coco_stuff",
        _Split("train", "train", "coco/train2017", _COCO_PHOTOS.replace("{split}", "train"), 118_287),
        _Split("test", "val", "coco/val2017", _COCO_PHOTOS.replace("{split}", "val"), 5_000),
    ),
    *_with_seen_classes(
        "voc_seg",
        "voc{base}_sem_seg_{split}{records}",
        "VOC2012/annotations_detectron2/{split}{base}",
        "voc",
        "put SegmentationClassAug, train.txt (10,582 names) and val.txt into {root}/VOC2012 and run "
        "python datasets/prepare.py voc_seg",
        _Split("train", "train", "VOC2012/JPEGImages", _VOC_PHOTOS, 10_582),
        _Split("test", "val", "VOC2012/JPEGImages", _VOC_PHOTOS, 1_449),
    ),
    _pcontext("train", 4_998),
    _pcontext("val", 5_105),
    _ade20k("train", "training", 20_210),
    _ade20k("val", "validation", 2_000),
    _ade20k_full("train", "training", 25_574),
    _ade20k_full("val", "validation", 2_000),
    _cityscapes("train", 2_975),
    _cityscapes("val", 500),
    *_with_seen_classes(
        "coco_small_seg",
        "coco_small{base}_sem_seg_{split}{records}",
        "coco_small_seg/{split}{base}",
        "coco_small",
        "put coco128 and coco128_val into {root} and run python datasets/prepare.py coco_small_seg",
        _Split("train", "train", "coco128/train2017", "put the folder coco128 into {root}", 100, 100),
        _Split("val", "val", "coco128_val/val2017", "put the folder coco128_val into {root}", 60),
    ),
    _sample("ade20k_sample_sem_seg_val", "ade20k/val", "ade20k_150/images", "ade20k", 3),
    _sample("camvid_sem_seg_train", "camvid/train", "camvid/train", "camvid", 12),
    _sample("camvid_sem_seg_val", "camvid/val", "camvid/val", "camvid", 8),
    _sample("camvid_sem_seg_test", "camvid/test", "camvid/test", "camvid", 10),
    *_with_seen_classes(
        "shapes_seg",
        "shapes{base}_sem_seg_{split}{records}",
        "shapes/semantic/{split}{base}",
        "shapes/semantic_classes.json",
        _SHAPES + " and python datasets/prepare.py shapes_seg",
        _Split("train", "train", "shapes/scenes/train", _SHAPES),
        _Split("val", "val", "shapes/scenes/val", _SHAPES),
    ),
)

CATALOG = Catalog(_ENTRIES, small_groups=("coco_small_seg", "semseg_samples", "shapes_seg"))
ENTRIES, GROUPS = CATALOG.entries, CATALOG.groups
segmentation_entry, entries_of = CATALOG.entry, CATALOG.of_group
