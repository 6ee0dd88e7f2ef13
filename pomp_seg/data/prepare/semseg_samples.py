"""A few photos of ADE20K (150 classes) and CamVid (11 classes), to try a segmenter on data it was not trained on.

Source: the folder ``semseg_samples`` with ``ade20k_150/{images,annotations}`` and ``camvid/{train,val,test}{,annot}``.
"""

from __future__ import annotations

from pathlib import Path

from pomp_seg.data.prepare.ade20k import convert_ade20k
from pomp_seg.data.prepare.coco_stuff import Made, convert_split
from pomp_seg.data.records import files_by_key
from prompt_core.errors import UserError


def prepare_semseg_samples(root: Path, overwrite: bool = False) -> Made:
    """Make ``semseg_samples_detectron2/{ade20k/val,camvid/{train,val,test}}``.

    Raises:
        UserError: when a folder is absent or a label damaged.
    """
    source, target = root / "semseg_samples", root / "semseg_samples_detectron2"
    if not source.is_dir():
        raise UserError(f"{source} does not exist; python datasets/check.py semseg_samples says how to get it")
    made = convert_ade20k(source / "ade20k_150/annotations", target / "ade20k/val", overwrite)
    for split in ("train", "val", "test"):
        files = files_by_key(source / "camvid" / f"{split}annot", (".png",))
        sources = {key: Path(path) for key, path in sorted(files.items())}
        sets = ("camvid", "camvid")
        made |= convert_split(
            target / "camvid" / split, sources, "CamVid", sets, ignored=(11, 255), overwrite=overwrite
        )
    return made
