"""Data sets whose labels are published as images: COCO-Stuff, VOC 2012, ADE20K-150, CamVid and a few COCO photos.

Their values become class indices, 255 is ignored. Where some classes are unseen, ``*_base`` folders are for training:
pixels of unseen classes are ignored there, and values count the base classes alone. Folders and files are named as by
ZSSeg's scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pomp_seg.data.label_sets import IGNORE_LABEL, LabelSet, label_set
from pomp_seg.data.prepare.label_folders import Made, convert_labels, count_labels, lookup
from pomp_seg.data.records import files_by_key
from prompt_core.errors import UserError


@dataclass(frozen=True)
class SourceValues:
    """What the values of a data set's published label images mean.

    Attributes:
        title: for the recipe in ``*.source.json``.
        classes: label set of all classes, with the data set's ids.
        base_classes: label set of the classes that training sees.
        offset: value minus the class's id.
        ignored: values of pixels without a class.
    """

    title: str
    classes: str
    base_classes: str = ""
    offset: int = 0
    ignored: tuple[int, ...] = (255,)

    def indices(self, wanted: LabelSet) -> tuple[dict[int, int], list[int]]:
        """``({value: index in wanted}, values of classes that are not wanted)``."""
        vocabulary = label_set(self.classes).vocabulary
        index_of = {name: index for index, name in enumerate(wanted.vocabulary.names)}
        values, others = {}, []
        assert vocabulary.ids is not None
        for name, class_id in zip(vocabulary.names, vocabulary.ids, strict=True):
            value = int(class_id) + self.offset
            if name in index_of:
                values[value] = index_of[name]
            else:
                others.append(value)
        return values, others


# The official label ids less one; 11 of the ids are not in use.
COCO_STUFF = SourceValues("COCO-Stuff", "coco_stuff", "coco_stuff_base", offset=-1)
# 0 is background, ignored as by SPNet and all who follow it; 255 the border.
VOC = SourceValues("VOC 2012", "voc", "voc_base", ignored=(0, 255))
ADE20K = SourceValues("ADE20K-150", "ade20k", ignored=(0,))
CAMVID = SourceValues("CamVid", "camvid", ignored=(11, 255))
COCO_SMALL = SourceValues("COCO panoptic", "coco_small", "coco_small_base", ignored=(0,))


def convert(
    output: Path,
    files: Mapping[str, Path],
    source: SourceValues,
    overwrite: bool,
    base: bool = False,
    counts: bool = False,
) -> Made:
    """Labels of one folder: all classes, or the base classes alone; with label counts where asked for.

    Raises:
        UserError: as :func:`pomp_seg.data.prepare.label_folders.convert_labels`.
    """
    wanted = label_set(source.base_classes if base else source.classes)
    values, others = source.indices(wanted)
    read = lookup(values, IGNORE_LABEL, (*source.ignored, *others))
    recipe = f"{source.title}, {len(wanted)} classes, 1"
    made: Made = {output: convert_labels(output, files, recipe, read, len(wanted), IGNORE_LABEL, overwrite)}
    if counts:
        file = output.with_name(output.name + "_label_count.json")
        made[file] = count_labels(output, file, IGNORE_LABEL, overwrite)
    return made


def convert_with_base(
    folder: Path, splits: Mapping[str, Mapping[str, Path]], source: SourceValues, overwrite: bool
) -> Made:
    """``folder/SPLIT`` of each split, and ``folder/SPLIT_base`` of train; train_base and val get label counts."""
    made: Made = {}
    for split, files in splits.items():
        train = split.startswith("train")
        made |= convert(folder / split, files, source, overwrite, counts=not train)
        if train:
            made |= convert(folder / f"{split}_base", files, source, overwrite, base=True, counts=True)
    return made


def png_files(folder: Path) -> dict[str, Path]:
    """``{name: path}`` of the PNG files below a folder, sorted."""
    return {key: Path(path) for key, path in sorted(files_by_key(folder, (".png",)).items())}


def prepare_coco_stuff(root: Path, overwrite: bool = False) -> Made:
    """Make ``coco/stuffthingmaps_detectron2/{train2017,train2017_base,val2017}`` and label counts, where sources exist.

    Source: ``coco/stuffthingmaps/{train2017,val2017}`` (stuffthingmaps_trainval2017.zip).

    Raises:
        UserError: when no source is there, or one is damaged.
    """
    source = root / "coco/stuffthingmaps"
    splits = _existing(source, ("train2017", "val2017"), "coco_stuff")
    return convert_with_base(root / "coco/stuffthingmaps_detectron2", splits, COCO_STUFF, overwrite)


def prepare_ade20k(root: Path, overwrite: bool = False) -> Made:
    """Make ``ADEChallengeData2016/annotations_detectron2/{training,validation}``, where sources exist.

    Raises:
        UserError: when no source is there, or one is damaged.
    """
    source = root / "ADEChallengeData2016/annotations"
    made: Made = {}
    for split, files in _existing(source, ("training", "validation"), "ade20k").items():
        made |= convert(source.with_name("annotations_detectron2") / split, files, ADE20K, overwrite)
    return made


def prepare_semseg_samples(root: Path, overwrite: bool = False) -> Made:
    """Make ``semseg_samples_detectron2/{ade20k/val,camvid/{train,val,test}}``: a few photos of other data sets.

    Source: the folder ``semseg_samples`` with ``ade20k_150/annotations`` and ``camvid/{train,val,test}annot``.

    Raises:
        UserError: when a folder is absent or a label damaged.
    """
    source, target = root / "semseg_samples", root / "semseg_samples_detectron2"
    if not source.is_dir():
        raise UserError(f"{source} does not exist; python datasets/check.py semseg_samples says how to get it")
    made = convert(target / "ade20k/val", png_files(source / "ade20k_150/annotations"), ADE20K, overwrite)
    for split in ("train", "val", "test"):
        made |= convert(target / "camvid" / split, png_files(source / f"camvid/{split}annot"), CAMVID, overwrite)
    return made


# The first place that exists is taken. ``train.txt`` beside the folders is the list of 10,582 photos, with the
# additional labels of SBD; the official list has 1,464.
_VOC_LISTS = {
    "train": ("train.txt", "ImageSets/Segmentation/trainaug.txt", "ImageSets/Segmentation/train.txt"),
    "val": ("val.txt", "ImageSets/Segmentation/val.txt"),
}
_VOC_LABELS = ("SegmentationClassAug", "SegmentationClass")


def prepare_voc_seg(root: Path, overwrite: bool = False) -> Made:
    """Make ``VOC2012/annotations_detectron2/{train,train_base,val}`` and label counts.

    Source: ``SegmentationClassAug`` or ``SegmentationClass``, and the lists of photos, which alone decide what is for
    training. In POMP's copy of the script the base labels of the validation photos go into the training folder; here a
    photo of both lists, and a label in a folder that is not of its list, are errors.

    Raises:
        UserError: when a list or label is missing, a photo is in both lists, or a folder holds labels of other photos.
    """
    voc = root / "VOC2012"
    labels = next((voc / name for name in _VOC_LABELS if (voc / name).is_dir()), None)
    if labels is None:
        raise UserError(
            f"{voc} holds no {_VOC_LABELS[0]} and no {_VOC_LABELS[1]}; python datasets/check.py voc_seg says how "
            "to get them"
        )
    lists = {split: read_list(voc, places) for split, places in _VOC_LISTS.items()}
    both = sorted(set(lists["train"]) & set(lists["val"]))
    if both:
        raise UserError(
            f"{len(both)} photos are in the lists of training and of validation of {voc}, the first is {both[0]}; use "
            "lists that share none"
        )
    splits = {split: {name: labels / f"{name}.png" for name in names} for split, names in lists.items()}
    return convert_with_base(voc / "annotations_detectron2", splits, VOC, overwrite)


def read_list(voc: Path, places: tuple[str, ...]) -> list[str]:
    """Names of photos, sorted; a line may also give the paths of photo and label.

    Raises:
        UserError: when there is no list, or it is empty.
    """
    path = next((voc / place for place in places if (voc / place).is_file()), None)
    if path is None:
        raise UserError(
            f"{voc} has no list of photos {' or '.join(places)}; python datasets/check.py voc_seg says how to get it"
        )
    names = {Path(line.split()[0]).stem for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    if not names:
        raise UserError(f"{path} names no photo")
    return sorted(names)


COCO_SMALL_FOLDERS = {"train": "coco128/semantic_train2017", "val": "coco128_val/semantic_val2017"}


def prepare_coco_small_seg(root: Path, overwrite: bool = False) -> Made:
    """Make ``coco_small_seg/{train,train_base,val}`` and label counts: 160 COCO photos with 133 panoptic classes.

    Source: the folders ``coco128/semantic_train2017`` (100 labels) and ``coco128_val/semantic_val2017`` (60), whose
    values are COCO's panoptic category ids, 0 for pixels without one.

    Raises:
        UserError: when a folder is absent or a label damaged.
    """
    splits = {split: png_files(root / place) for split, place in COCO_SMALL_FOLDERS.items()}
    return convert_with_base(root / "coco_small_seg", splits, COCO_SMALL, overwrite)


def _existing(source: Path, splits: tuple[str, str], group: str) -> dict[str, dict[str, Path]]:
    """Label files of each split that is there.

    Raises:
        UserError: when none is.
    """
    files = {split: png_files(source / split) for split in splits if (source / split).is_dir()}
    if not files:
        advice = f"python datasets/check.py {group} says how to get them"
        raise UserError(f"{source} holds no {splits[0]} and no {splits[1]}; {advice}")
    return files
