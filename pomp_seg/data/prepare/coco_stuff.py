"""COCO-Stuff 164K for segmentation: 171 classes, and 156 base classes for training without the unseen ones.

Source: ``coco/stuffthingmaps/{train2017,val2017}`` (stuffthingmaps_trainval2017.zip), whose values are the official
label ids less one; 11 of the ids are not in use. Folders and files are named as by ZSSeg's scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pomp_engine.data.derived_files import Outcome
from pomp_seg.data.label_sets import LabelSet, label_set
from pomp_seg.data.prepare.label_folders import Converted, convert_labels, count_labels, lookup
from pomp_seg.data.records import files_by_key
from prompt_core.errors import UserError

Made = dict[Path, Converted | Outcome]


def values_of(classes: LabelSet, wanted: LabelSet, offset: int = 0) -> tuple[dict[int, int], list[int]]:
    """Values in a data set's label files, as ``({value: index in wanted}, values without one there)``.

    Args:
        classes: all classes, with the data set's ids.
        wanted: the same, or its base classes.
        offset: what the values in the files are more than the ids.
    """
    of_name = {name: index for index, name in enumerate(wanted.vocabulary.names)}
    values, others = {}, []
    assert classes.vocabulary.ids is not None
    for name, category in zip(classes.vocabulary.names, classes.vocabulary.ids, strict=True):
        value = int(category) + offset
        if name in of_name:
            values[value] = of_name[name]
        else:
            others.append(value)
    return values, others


def convert_split(
    output: Path,
    sources: Mapping[str, Path],
    name: str,
    label_sets: tuple[str, str],
    *,
    base: bool = False,
    offset: int = 0,
    ignored: tuple[int, ...] = (255,),
    counts: bool = False,
    overwrite: bool = False,
) -> Made:
    """Labels of one split with the values of a label set, and their label counts where asked for.

    Args:
        name: of the recipe.
        label_sets: names of all classes and of the base classes.
        base: keep only the base classes, with values of their own; other pixels are ignored.
        offset, ignored: see :func:`values_of`; values in the source for pixels without a class.

    Raises:
        UserError: as :func:`pomp_seg.data.prepare.label_folders.convert_labels`.
    """
    every = label_set(label_sets[0])
    wanted = label_set(label_sets[1]) if base else every
    values, others = values_of(every, wanted, offset)
    recipe = f"{name}, {len(wanted)} classes, 1"
    convert = lookup(values, 255, (*ignored, *others))
    made: Made = {output: convert_labels(output, sources, recipe, convert, len(wanted), 255, overwrite)}
    if counts:
        file = output.with_name(output.name + "_label_count.json")
        made[file] = count_labels(output, file, 255, overwrite)
    return made


def prepare_coco_stuff(root: Path, overwrite: bool = False) -> Made:
    """Make ``coco/stuffthingmaps_detectron2/{train2017,train2017_base,val2017}`` and label counts, where sources are.

    Raises:
        UserError: when no source is there, or one is damaged.
    """
    source, target = root / "coco/stuffthingmaps", root / "coco/stuffthingmaps_detectron2"
    splits = {split: source / split for split in ("train2017", "val2017") if (source / split).is_dir()}
    if not splits:
        raise UserError(f"{source} holds no train2017 and no val2017; python datasets/check.py coco_stuff says how to "
                        "get them")  # fmt: skip
    made: Made = {}
    for split, folder in splits.items():
        files = {key: Path(path) for key, path in sorted(files_by_key(folder, (".png",)).items())}
        for base in (False, True) if split == "train2017" else (False,):
            made |= convert_split(
                target / (f"{split}_base" if base else split),
                files,
                "COCO-Stuff",
                ("coco_stuff", "coco_stuff_base"),
                base=base,
                offset=-1,
                counts=base or split == "val2017",
                overwrite=overwrite,
            )
    return made
