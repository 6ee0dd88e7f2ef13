"""Detectors on generated scenes: learned classifier, hand prompt, POMP, and image labels on top; one table.

    python datasets/make_shapes.py --output datasets/shapes240 --classes 240 --classification-classes 240 \\
        --val-images-per-class 12 --scenes 800 --val-scenes 200
    python tools/compare_detectors.py --shapes datasets/shapes240 --output runs/scenes --results docs/results/scenes

Box and mask AP, APr (novel classes), APc and APf by LVIS's federated protocol, mean over seeds and half the range
behind it. Runs that are done are not done again, and a run that was stopped goes on. KEY VALUE overrides hold for all.
"""

from pathlib import Path

from prompt_core.command_line import ArgumentParser, show_results
from prompt_core.errors import UserError, nearest, run_command
from prompt_core.files import make_output_folder

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "mini"


def main() -> None:
    """Parse, run what is missing, print and write the table."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", required=True, metavar="DIR", help="shapes with both parts")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the detectors")
    parser.add_argument("--results", metavar="DIR", help="folder of the results (default: --output/results)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", help="rows to run, separated by ';' (default: all)")
    parser.add_argument("--table-only", action="store_true", help="print what is done and run nothing")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="configuration overrides")
    arguments = parser.parse_intermixed_args()
    from pomp_det.comparison import ROWS, DetectorComparison
    from pomp_det.data.prepare_shapes import prepare_image_labels

    known = {row.name: row for row in ROWS}
    names = arguments.rows.split(";") if arguments.rows else list(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown row {name!r}{nearest(name, known)}; expected some of {'; '.join(known)}")
    if len(arguments.overrides) % 2:
        raise UserError(f"overrides are {arguments.overrides}; KEY VALUE pairs are expected")
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds is {arguments.seeds!r}; whole numbers joined by commas are expected") from error
    prepare_image_labels(Path(arguments.shapes))
    output = make_output_folder(arguments.output)
    results = make_output_folder(arguments.results or output / "results")
    comparison = DetectorComparison(Path(arguments.shapes), CONFIGS, output, results, arguments.overrides)
    if not arguments.table_only:
        for seed in seeds:
            for name in names:
                comparison.run(known[name], seed)
                print(f"done: {name}, seed {seed}", flush=True)
    headings, rows = comparison.table([known[name] for name in names], seeds)
    title = "LVIS AP on generated scenes; r: novel classes; mean ± half the range over seeds"
    show_results(title, headings, rows, results / "table.md")


if __name__ == "__main__":
    run_command(main)
