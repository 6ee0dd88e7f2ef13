"""ADE20K with 150 classes (SceneParse150): label values less one, 0 (other) becomes the ignored 255."""

from __future__ import annotations

from pathlib import Path

from pomp_seg.data.prepare.coco_stuff import Made, convert_split
from pomp_seg.data.records import files_by_key
from prompt_core.errors import UserError


def prepare_ade20k(root: Path, overwrite: bool = False) -> Made:
    """Make ``ADEChallengeData2016/annotations_detectron2/{training,validation}``, where the sources are.

    Raises:
        UserError: when no source is there, or one is damaged.
    """
    source = root / "ADEChallengeData2016/annotations"
    splits = [split for split in ("training", "validation") if (source / split).is_dir()]
    if not splits:
        raise UserError(f"{source} holds no training and no validation; python datasets/check.py ade20k says how to "
                        "get them")  # fmt: skip
    made: Made = {}
    for split in splits:
        made |= convert_ade20k(source / split, source.with_name("annotations_detectron2") / split, overwrite=overwrite)
    return made


def convert_ade20k(source: Path, output: Path, overwrite: bool = False) -> Made:
    """The labels of one folder.

    Raises:
        UserError: as :func:`pomp_seg.data.prepare.label_folders.convert_labels`.
    """
    files = {key: Path(path) for key, path in sorted(files_by_key(source, (".png",)).items())}
    return convert_split(output, files, "ADE20K-150", ("ade20k", "ade20k"), ignored=(0,), overwrite=overwrite)
