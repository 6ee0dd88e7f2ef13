"""Make the labels of ADE20K with 150 classes: values less one, 0 is ignored.

    python datasets/prepare_ade20k.py

Needs ADEChallengeData2016/annotations/{training,validation} below the data root.
The root is --root, else POMP_DATA, else datasets. Labels that are there with the same content are left alone; others
are named, and replaced only with --overwrite.
"""

from __future__ import annotations

from pomp_engine.data.derived_files import preparation_parser
from pomp_seg.data.prepare.ade20k import prepare_ade20k
from pomp_seg.data.prepare.label_folders import print_made
from prompt_core.errors import run_command
from prompt_core.files import data_root


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    print_made(prepare_ade20k(data_root(values.root), values.overwrite))


if __name__ == "__main__":
    run_command(main)
