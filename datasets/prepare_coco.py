"""Make the files that are derived from COCO 2017: the 48/17 zero-shot splits, class counts, caption tags.

    python datasets/prepare_coco.py

The root is --root, else POMP_DATA, else datasets. Files that are there with the same content are left alone.
"""

from __future__ import annotations

from pomp_det.data.prepare.coco import prepare_coco
from pomp_engine.data.derived_files import preparation_parser, print_outcomes
from prompt_core.errors import run_command
from prompt_core.files import data_root


def main(arguments: list[str] | None = None) -> None:
    """Prepare and say what was done."""
    values = preparation_parser(__doc__).parse_args(arguments)
    print_outcomes(prepare_coco(data_root(values.root), values.overwrite))


if __name__ == "__main__":
    run_command(main)
