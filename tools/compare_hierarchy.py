"""What WordNet's hierarchy is worth: LOSS.REJECT name against ancestors, and general words answered by their kinds.

    python tools/compare_hierarchy.py --config configs/prompt/mini_tiny_imagenet.yaml --output runs/hierarchy \\
        --tiny-imagenet datasets/tiny-imagenet-200 --photos datasets/imagenet_samples --results docs/results

Finished runs are not repeated. Accuracies are on the half of the validation photos that nothing was tuned on.
hierarchy.md holds both tables, hierarchy.json their numbers with settings and protocols.
"""

from pathlib import Path

from pomp_lab.arguments import whole_numbers
from pomp_lab.benchmarks.harness import add_option
from pomp_lab.comparisons.base_to_novel import BaseToNovel
from prompt_core.command_line import config_parser, load_model, parse_with_overrides, show_results
from prompt_core.errors import run_command
from prompt_core.files import make_output_folder, write_text


def main() -> None:
    """Parse, run what is missing, print and write both tables."""
    parser = config_parser(__doc__, output="folder of the runs (default: runs/hierarchy)")
    parser.add_argument("--results", metavar="DIR", help="folder of the results (default: --output)")
    parser.add_argument("--tiny-imagenet", required=True, metavar="DIR", help="Tiny-ImageNet in its standard layout")
    parser.add_argument(
        "--photos", required=True, metavar="DIR", help="folder with labels.csv and photos of the 1,000 ImageNet classes"
    )
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N,…", help="seeds of each row (default: 0,1,2)")
    add_option(parser, "--sampled", 1000, "K of the rows that draw negatives")
    add_option(parser, "--near", 1000, "names of the exact softmax")
    add_option(parser, "--shots", 16, "training images per class")
    add_option(parser, "--updates", 100, "steps of each run, which set its batch size")
    add_option(parser, "--draws", 20, "draws of general words for each seed")
    arguments = parse_with_overrides(parser)
    seeds = whole_numbers("--seeds", arguments.seeds)
    output = make_output_folder(arguments.output or "runs/hierarchy")
    results = make_output_folder(arguments.results or output) / "hierarchy.json"
    comparison = BaseToNovel(
        Path(arguments.config) if arguments.config else None,
        arguments.overrides,
        Path(arguments.tiny_imagenet),
        Path(arguments.photos),
        "report",
        arguments.updates,
        output,
        results,
    )
    from pomp_lab.comparisons import hierarchy
    from pomp_lab.tables.data_folders import PHOTOS, TINY, DataFolders
    from prompt_core.config import load_config

    cfg = load_config(arguments.config, arguments.overrides)
    folders = DataFolders(Path(), {PHOTOS: comparison.photos or Path(), TINY: comparison.tiny_imagenet})
    general = hierarchy.general_words(load_model(cfg), folders, seeds, arguments.draws, Path(cfg.DATA.CACHE))
    rows, documents = hierarchy.measure_rejecting(
        comparison, arguments.sampled, arguments.shots, arguments.near, seeds, general
    )
    texts = []
    for title, (headings, cells) in {
        hierarchy.TITLE: hierarchy.rejecting_cells(rows, documents),
        "General words answered by their kinds": hierarchy.general_cells(general),
    }.items():
        show_results(title, headings, cells, results.with_suffix(".md"))
        texts.append(f"{title}\n\n{results.with_suffix('.md').read_text(encoding='utf-8')}")
    write_text(results.with_suffix(".md"), "\n".join(texts))


if __name__ == "__main__":
    run_command(main)
