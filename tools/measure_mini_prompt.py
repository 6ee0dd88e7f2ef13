"""Learn the prompt of the package with several seeds, and score it against hand-written prompts.

    python tools/measure_mini_prompt.py --output runs/mini_prompt --data datasets --results docs/results

Scored are Tiny-ImageNet (all, base and novel classes), photos of the 1,000 ImageNet classes, and the annotated boxes
of COCO's and VOC's validation photos, as crops. Finished runs are not repeated. Accuracies are on the half of the
photos that nothing was tuned on; --half tune shows the other half. NAME.md is the table, NAME.json holds its numbers
with settings and protocols. runs/mini_prompt/learned has a folder with prompt.safetensors for each run.
"""

from pathlib import Path

from pomp_lab.arguments import whole_numbers
from pomp_lab.comparisons.package_prompt import PackagePrompt, Places
from pomp_lab.tables.data_folders import HALVES
from prompt_core.command_line import config_parser, parse_with_overrides, show_results
from prompt_core.errors import UserError, run_command
from prompt_core.files import make_output_folder

CONFIG = Path(__file__).resolve().parent.parent / "configs/mini/prompt.yaml"


def main() -> None:
    """Parse, run what is missing, print and write the table."""
    parser = config_parser(__doc__, output="folder of the runs (default: runs/mini_prompt)")
    parser.add_argument("--results", metavar="DIR", help="folder of the results (default: --output)")
    parser.add_argument("--data", default="datasets", metavar="DIR", help="the data root (default: datasets)")
    parser.add_argument("--seeds", metavar="N,N,…", default="0,1,2", help="seeds of each row (default: 0,1,2)")
    parser.add_argument(
        "--anchors", metavar="W,W,…", default="0,8", help="weights of LOSS.ANCHOR, a row each (default: 0,8)"
    )
    parser.add_argument("--half", choices=HALVES, default="report", help="photos to score (default: report)")
    parser.add_argument("--name", default="mini_prompt", help="name of the two files of results (default: mini_prompt)")
    arguments = parse_with_overrides(parser)
    try:
        anchors = [float(part) for part in arguments.anchors.split(",")]
    except ValueError:
        raise UserError(f"--anchors is {arguments.anchors!r}; expected numbers separated by commas") from None
    seeds = whole_numbers("--seeds", arguments.seeds)
    output = make_output_folder(arguments.output or "runs/mini_prompt")
    results = make_output_folder(arguments.results or output) / f"{arguments.name}.json"
    config = Path(arguments.config) if arguments.config else CONFIG
    comparison = PackagePrompt(
        config, arguments.overrides, Places(Path(arguments.data)), arguments.half, output, results
    )
    headings, *rows = comparison.run(anchors, seeds)
    title = f"top-1 % by images / candidates, {arguments.half} half; mean ± half the range over seeds"
    show_results(title, headings, rows, results.with_suffix(".md"))


if __name__ == "__main__":
    run_command(main)
