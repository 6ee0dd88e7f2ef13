"""Make the labels of PASCAL VOC 2012: 20 classes, and the 15 base classes for training.

    python datasets/prepare_voc_seg.py

Needs VOC2012/{SegmentationClassAug,train.txt,val.txt}, or VOC's own SegmentationClass and ImageSets/Segmentation.
The root is --root, else POMP_DATA, else datasets. Labels that are there with the same content are left alone; others
are named, and replaced only with --overwrite.
"""

from __future__ import annotations

from pomp_engine.data.derived_files import preparation_parser
from pomp_seg.data.prepare.label_folders import print_made
from pomp_seg.data.prepare.voc import prepare_voc_seg
from prompt_core.errors import run_command
from prompt_core.files import data_root


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    print_made(prepare_voc_seg(data_root(values.root), values.overwrite))


if __name__ == "__main__":
    run_command(main)
