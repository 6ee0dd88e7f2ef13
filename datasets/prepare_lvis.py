"""Make the files that are derived from LVIS v1: the training set without rare classes, class counts, minival.

    python datasets/prepare_lvis.py

The root is --root, else POMP_DATA, else datasets. Files that are there with the same content are left alone.
"""

from __future__ import annotations

from pomp_det.data.catalog import data_root
from pomp_det.data.prepare import preparation_parser, print_outcomes
from pomp_det.data.prepare_lvis import prepare_lvis
from prompt_core.errors import run_command


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    print_outcomes(prepare_lvis(data_root(values.root), values.overwrite))


if __name__ == "__main__":
    run_command(main)
