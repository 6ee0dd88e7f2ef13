"""Compare detectors on generated scenes: a learned classifier, a hand prompt, POMP, and image labels on top.

    python datasets/make_shapes.py --output datasets/shapes240 --classes 240 --classification-classes 240 \\
        --val-images-per-class 12 --scenes 800 --val-scenes 200
    python tools/compare_detectors.py --shapes datasets/shapes240 --output runs/scenes --results docs/results

    python tools/compare_detectors.py --shapes datasets/shapes240 --labels two_levels --output runs/general_labels

The table shows box and mask AP, APr (novel classes), APc and APf by LVIS's federated protocol, as means over seeds ±
half the range. With --labels two_levels half of the training boxes are labelled with their shape only, and the table
shows AP50 by Open Images' protocol, with and without the hierarchy of classes in the loss. Finished runs are not
repeated, interrupted ones are resumed, and several processes may share an --output. KEY VALUE overrides apply to all
runs.
"""

from pathlib import Path

from pomp_lab.comparisons.comparison import compare, comparison_parser, open_store, parse_comparison
from prompt_core.errors import run_command

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def main() -> None:
    """Parse, run what is missing, print and write the table."""
    parser = comparison_parser(__doc__)
    parser.add_argument(
        "--shapes", required=True, metavar="DIR", help="what datasets/make_shapes.py wrote, with both parts"
    )
    parser.add_argument("--labels", choices=("exact", "two_levels"), default="exact", help="of the training boxes")
    from pomp_lab.comparisons import detectors, general_labels
    from pomp_lab.comparisons.comparison import Comparison
    from pomp_lab.shapes.labels import prepare_image_labels

    arguments = parse_comparison(
        parser, lambda given: detectors.ROWS if given.labels == "exact" else general_labels.ROWS
    )
    shapes = Path(arguments.shapes)
    comparison: Comparison
    if arguments.labels == "exact":
        prepare_image_labels(shapes)
        store = open_store(arguments, "scenes")
        comparison = detectors.DetectorComparison(shapes, CONFIGS, store, arguments.overrides)
    else:
        store = open_store(arguments, "general_labels")
        comparison = general_labels.GeneralLabels(shapes, CONFIGS, store, arguments.overrides)
    compare(comparison, arguments)


if __name__ == "__main__":
    run_command(main)
