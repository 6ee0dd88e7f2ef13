"""Make the files that are derived from LVIS v1: the training set without rare classes, class counts, minival.

    python datasets/prepare_lvis.py

The root is --root, else POMP_DATA, else datasets. Files that are there with the same content are left alone.
"""

from __future__ import annotations

from pomp_det.data.prepare.lvis import prepare_lvis
from pomp_engine.data.derived_files import preparation_parser, print_outcomes
from prompt_core.errors import run_command
from prompt_core.files import data_root


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    print_outcomes(prepare_lvis(data_root(values.root), values.overwrite))


if __name__ == "__main__":
    run_command(main)
