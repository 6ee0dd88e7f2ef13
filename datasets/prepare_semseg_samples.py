"""Make the labels of a few photos of ADE20K (150 classes) and CamVid (11 classes).

    python datasets/prepare_semseg_samples.py

Needs the folder semseg_samples below the data root.
The root is --root, else POMP_DATA, else datasets. Labels that are there with the same content are left alone; others
are named, and replaced only with --overwrite.
"""

from __future__ import annotations

from pomp_engine.data.derived_files import preparation_parser
from pomp_seg.data.prepare.label_folders import print_made
from pomp_seg.data.prepare.semseg_samples import prepare_semseg_samples
from prompt_core.errors import run_command
from prompt_core.files import data_root


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    print_made(prepare_semseg_samples(data_root(values.root), values.overwrite))


if __name__ == "__main__":
    run_command(main)
