"""Make the list of classes and the base labels of generated scenes.

    python datasets/prepare_shapes_seg.py

Needs the folder shapes, which datasets/make_shapes.py draws, below the data root.
The root is --root, else POMP_DATA, else datasets. Labels that are there with the same content are left alone; others
are named, and replaced only with --overwrite.
"""

from __future__ import annotations

from pomp_det.data.catalog import data_root
from pomp_det.data.prepare import preparation_parser
from pomp_seg.data.prepare_labels import print_made
from pomp_seg.data.prepare_shapes_seg import prepare_shapes_seg
from prompt_core.errors import run_command


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    print_made(prepare_shapes_seg(data_root(values.root), values.overwrite))


if __name__ == "__main__":
    run_command(main)
