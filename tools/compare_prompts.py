"""Compare hand prompts, POMP and the full softmax, from base to novel classes of Tiny-ImageNet.

    python tools/compare_prompts.py --config configs/prompt/mini_tiny_imagenet.yaml --output runs/base_novel \\
        --tiny-imagenet datasets/tiny-imagenet-200 --photos datasets/imagenet_samples

Finished runs are not repeated, and several processes may share an --output. Accuracies are on the half of the
validation photos that nothing was tuned on; --half tune shows the other half. NAME.md is the table, NAME.json holds its
numbers with settings and protocols.
"""

from pathlib import Path

from pomp_lab.arguments import chosen, whole_numbers
from pomp_lab.comparisons.base_to_novel import METHODS, BaseToNovel
from pomp_lab.tables.data_folders import HALVES
from prompt_core.command_line import config_parser, parse_with_overrides, show_results, whole_number
from prompt_core.errors import run_command
from prompt_core.files import make_output_folder
from prompt_core.ranges import COUNT, COUNT_OR_ALL


def main() -> None:
    """Parse, run what is missing, print and write the table."""
    parser = config_parser(__doc__, output="folder of the runs (default: runs/comparison)")
    parser.add_argument("--results", metavar="DIR", help="folder of the results (default: --output)")
    parser.add_argument("--tiny-imagenet", required=True, metavar="DIR", help="Tiny-ImageNet in its standard layout")
    parser.add_argument(
        "--photos", metavar="DIR", help="folder with labels.csv and photos of the 1,000 ImageNet classes"
    )
    parser.add_argument(
        "--shots", metavar="N,N,…", default="16,100", help="training images per class (default: 16,100)"
    )
    parser.add_argument("--seeds", metavar="N,N,…", default="0,1,2", help="seeds of each row (default: 0,1,2)")
    parser.add_argument("--methods", metavar="ROW;ROW", help=f"some of: {'; '.join(METHODS)} (default: all)")
    parser.add_argument("--half", choices=HALVES, default="report", help="validation photos to score (default: report)")
    parser.add_argument("--name", default="table", help="name of the two files of results (default: table)")
    parser.add_argument(
        "--updates",
        type=whole_number(COUNT),
        default=100,
        metavar="N",
        help="steps of each run, which set its batch size (default: 100)",
    )
    arguments = parse_with_overrides(parser)
    methods = chosen(arguments.methods, METHODS, "row")
    shots = whole_numbers("--shots", arguments.shots, COUNT_OR_ALL)
    seeds = whole_numbers("--seeds", arguments.seeds)
    output = make_output_folder(arguments.output or "runs/comparison")
    results = make_output_folder(arguments.results or output) / f"{arguments.name}.json"
    comparison = BaseToNovel(
        Path(arguments.config) if arguments.config else None,
        arguments.overrides,
        Path(arguments.tiny_imagenet),
        Path(arguments.photos) if arguments.photos else None,
        arguments.half,
        arguments.updates,
        output,
        results,
    )
    headings, *rows = comparison.run(methods, shots, seeds)
    title = f"top-1 % by images / candidates, {arguments.half} half; mean ± half the range over seeds"
    show_results(title, headings, rows, results.with_suffix(".md"))


if __name__ == "__main__":
    run_command(main)
