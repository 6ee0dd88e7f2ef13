"""Make the labels of full ADE20K, with the categories that occur in training and in validation (847 published).

    python datasets/prepare_ade20k_full.py
    python datasets/prepare_ade20k_full.py --classes classes.json

Needs ADE20K_2021_17_01/images/ADE/{training,validation} below the data root. The categories are found in these labels,
in the order of ADE20K's numbers; --classes gives another list or order: JSON with "names" and "ids".
The root is --root, else POMP_DATA, else datasets. Labels that are there with the same content are left alone; others
are named, and replaced only with --overwrite.
"""

from __future__ import annotations

from pathlib import Path

from pomp_engine.data.derived_files import preparation_parser
from pomp_seg.data.prepare.ade20k_full import PUBLISHED_CLASSES, prepare_ade20k_full
from pomp_seg.data.prepare.label_folders import print_made
from prompt_core.errors import run_command
from prompt_core.files import data_root, read_json


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done, and how many classes there are."""
    parser = preparation_parser(__doc__)
    parser.add_argument("--classes", type=Path, metavar="FILE", help="JSON with names and ADE20K's numbers (ids)")
    values = parser.parse_args(arguments)
    made = prepare_ade20k_full(data_root(values.root), values.classes, values.overwrite)
    print_made(made)
    listed = next(path for path in made if path.suffix == ".json")
    count = len(read_json(listed)["names"])
    if count != PUBLISHED_CLASSES:
        print(f"{listed} has {count:,} classes; published numbers are of {PUBLISHED_CLASSES}")


if __name__ == "__main__":
    run_command(main)
