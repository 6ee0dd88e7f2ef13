"""Make semantic labels of 160 COCO photos: 133 classes, 26 of them withheld from training.

    python datasets/prepare_coco_small_seg.py

Needs the folders coco128 and coco128_val below the data root.
The root is --root, else POMP_DATA, else datasets. Labels that are there with the same content are left alone; others
are named, and replaced only with --overwrite.
"""

from __future__ import annotations

from pomp_engine.data.derived_files import preparation_parser
from pomp_seg.data.prepare.coco_small_seg import prepare_coco_small_seg
from pomp_seg.data.prepare.label_folders import print_made
from prompt_core.errors import run_command
from prompt_core.files import data_root


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    print_made(prepare_coco_small_seg(data_root(values.root), values.overwrite))


if __name__ == "__main__":
    run_command(main)
