"""Correct the class names of Objects365 v2, and drop training photos that do not exist.

    python datasets/prepare_objects365.py

The root is --root, else POMP_DATA, else datasets. Files that are there with the same content are left alone.
"""

from __future__ import annotations

from pomp_det.data.prepare.objects365 import prepare_objects365
from pomp_engine.data.derived_files import preparation_parser, print_outcomes
from prompt_core.errors import run_command
from prompt_core.files import data_root


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    made, missing = prepare_objects365(data_root(values.root), values.overwrite)
    print_outcomes(made)
    if missing:
        print(f"{len(missing)} training photos do not exist and were left out, the first is {missing[0]}")


if __name__ == "__main__":
    run_command(main)
