"""Compare segmenters with a hand prompt, ZSSeg's own prompt and POMP's, as learned and tuned on regions.

    python datasets/make_shapes.py --output datasets/shapes --classes 48 --classification-classes 48 \\
        --val-images-per-class 8 --scenes 1200 --val-scenes 200 --scene-size 128
    python datasets/prepare.py shapes_seg
    python tools/compare_segmenters.py --data scenes --output runs/scenes_seg --results docs/results

The table shows mIoU of seen and of unseen classes, their harmonic mean and others on the test set, among all classes,
as means over seeds ± half the range. Finished runs are not repeated, interrupted ones are resumed, and several
processes may share an --output. KEY VALUE overrides apply to all segmenters. --data coco takes the photos that
datasets/prepare.py coco_small_seg prepares, and Tiny-ImageNet for the prompt.
"""

from pathlib import Path

from pomp_lab.comparisons.comparison import compare, comparison_parser, open_store, parse_comparison
from prompt_core.errors import run_command
from prompt_core.files import data_root

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def main() -> None:
    """Parse, run what is missing, print and write the table."""
    parser = comparison_parser(__doc__)
    parser.add_argument("--data", required=True, choices=("scenes", "coco"), help="what to train and test on")
    from pomp_lab.comparisons.segmenters import EXPERIMENTS, SegmenterComparison

    arguments = parse_comparison(parser, lambda given: EXPERIMENTS[given.data].rows)
    experiment = EXPERIMENTS[arguments.data]
    store = open_store(arguments, experiment.name)
    compare(SegmenterComparison(experiment, data_root(), CONFIGS, store, arguments.overrides), arguments)


if __name__ == "__main__":
    run_command(main)
