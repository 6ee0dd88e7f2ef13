"""Make the labels of COCO-Stuff: 171 classes, and the 156 base classes for training.

    python datasets/prepare_coco_stuff.py

Needs coco/stuffthingmaps/{train2017,val2017} below the data root; about 123,000 labels.
The root is --root, else POMP_DATA, else datasets. Labels that are there with the same content are left alone; others
are named, and replaced only with --overwrite.
"""

from __future__ import annotations

from pomp_engine.data.derived_files import preparation_parser
from pomp_seg.data.prepare.coco_stuff import prepare_coco_stuff
from pomp_seg.data.prepare.label_folders import print_made
from prompt_core.errors import run_command
from prompt_core.files import data_root


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    print_made(prepare_coco_stuff(data_root(values.root), values.overwrite))


if __name__ == "__main__":
    run_command(main)
