"""Reproduce a table of the paper: learn and score what is missing, show our numbers next to the published ones.

    python tools/reproduce.py imagenet21k --output runs/reproduction --scale laptop
    python tools/reproduce.py cross_dataset --output runs/reproduction --root /data --dry-run
    python tools/reproduce.py cross_domain --output runs/reproduction --scale laptop --rows "zero-shot CLIP;POMP"

--scale paper takes OpenAI's CLIP and the paper's data sets below the data root; --scale laptop takes the embedded
model, Tiny-ImageNet, photos of the ImageNet classes and drawn shapes. KEY VALUE overrides apply to all rows, and the
table lists them.

Finished runs are not repeated, not even for other tables in the same --output, which several processes may share. They
are identified by all their inputs: configuration, images, class names, weights. Images are identified by path and size
in bytes: after replacing one by another of the same size, use another --output. Damaged results are reported and made
again. Ctrl-C stops; the same command continues.

The table is OUTPUT/TABLE_SCALE.md; OUTPUT/TABLE_SCALE.json holds its numbers with settings and protocols and can be
moved by itself: its runs count as done. With matplotlib, OUTPUT/report.md and report.html show all numbers of OUTPUT.
"""

import argparse
from pathlib import Path

from pomp.configurations import CONFIGURATIONS
from pomp_lab.tables.command import NAMES, SCALES, Request, reproduce
from prompt_core.command_line import ArgumentParser
from prompt_core.files import data_root
from prompt_core.visible import say


def main() -> int:
    """Parse, run, print."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", metavar="TABLE", help=", ".join(NAMES))
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for runs and results")
    parser.add_argument("--scale", default="paper", help=f"{' or '.join(SCALES)} (default: paper)")
    parser.add_argument("--root", metavar="DIR", help="data root (default: POMP_DATA, else datasets)")
    parser.add_argument(
        "--seeds", metavar="N,N,…", help="seeds of each row (default: 42 as published, 0,1,2 at laptop scale)"
    )
    parser.add_argument("--rows", metavar="ROW;ROW", help="rows to run and show (default: all)")
    parser.add_argument("--datasets", metavar="A,B", help="image sets to score (default: all of the table)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing, list what is done, what is missing and which data are absent",
    )
    parser.add_argument(
        "--select-on-test",
        action="store_true",
        help="choose epochs on the reported split, as published; labels the numbers",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="configuration overrides")
    options = parser.parse_intermixed_args()
    overrides = [*options.overrides, *(["SELECT_ON_TEST", "True"] if options.select_on_test else [])]
    request = Request(
        options.table,
        options.scale,
        Path(options.output),
        data_root(options.root),
        CONFIGURATIONS / "prompt",
        options.seeds,
        options.rows,
        options.datasets,
        tuple(overrides),
    )
    try:
        reproduce(request, dry_run=options.dry_run)
    except KeyboardInterrupt:
        say("interrupted; the same command continues where it stopped", error=True)
        return 130
    return 0
