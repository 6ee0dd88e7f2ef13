"""Hand prompts, POMP and the full softmax from base to novel classes of Tiny-ImageNet; results as JSON and a table.

    python tools/compare_prompts.py --config configs/prompt/mini_tiny_imagenet.yaml --output docs/results/base_novel \\
        --tiny-imagenet datasets/tiny-imagenet-200 --photos datasets/imagenet_samples

Runs that are done are not done again, and several processes may share an --output. Numbers are of the half of the
validation photos that nothing was tuned on; --half tune shows the other.
"""

import itertools

from pomp_lab.comparisons.base_to_novel import METHODS, open_experiment
from prompt_core.command_line import config_parser, load_model, parse_with_overrides, show_results
from prompt_core.config import load_config
from prompt_core.errors import UserError, nearest, run_command
from prompt_core.files import make_output_folder
from prompt_core.text.encoder import PromptedTextEncoder


def main() -> None:
    """Parse, run what is missing, print and write the table."""
    parser = config_parser(__doc__, output="folder of the results")
    parser.add_argument("--tiny-imagenet", required=True, metavar="DIR", help="Tiny-ImageNet in its standard layout")
    parser.add_argument("--photos", metavar="DIR", help="folder with labels.csv of photos of the 1,000 classes")
    parser.add_argument("--shots", default="16,100", help="training images per class")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", help=f"rows to run, separated by ';' (default: all of {'; '.join(METHODS)})")
    parser.add_argument("--half", choices=("report", "tune"), default="report", help="validation photos to score")
    parser.add_argument("--name", default="table", help="name of the table's file")
    parser.add_argument("--updates", type=int, default=100, help="steps of each run; the batch follows from it")
    arguments = parse_with_overrides(parser)
    output = make_output_folder(arguments.output or "runs/comparison")
    methods = arguments.methods.split(";") if arguments.methods else list(METHODS)
    for method in methods:
        if method not in METHODS:
            raise UserError(f"unknown row {method!r}{nearest(method, METHODS)}")
    cfg = load_config(arguments.config, arguments.overrides)
    experiment = open_experiment(
        cfg,
        PromptedTextEncoder(load_model(cfg)),
        arguments.tiny_imagenet,
        arguments.photos,
        arguments.half,
        arguments.updates,
        output,
    )
    experiment.score_hand_prompts()
    shots, seeds = (map(int, text.split(",")) for text in (arguments.shots, arguments.seeds))
    for number, seed, method in itertools.product(shots, seeds, methods):
        experiment.score_learned(method, number, seed)

    headings, rows = experiment.table()
    title = f"top-1 % by images / candidates, {arguments.half} half; mean ± half the range over seeds"
    show_results(title, headings, rows, output / f"{arguments.name}.md")


if __name__ == "__main__":
    run_command(main)
