"""Measure the embedded segmenter on photos that it did not learn from, with and without "none of these".

    python tools/benchmark_mini_segmenter.py --voc data/voc_boxes --cost data/coco128_val \\
        --output docs/results/mini_segmenter.json

--voc asks for all of VOC's 20 words and for half of them, so that photos also show what was not asked for, and counts
pixels by the threshold of own shares. --cost is the processor's time for a photo with and without own shares. One
thread.
"""

from pathlib import Path

from pomp_lab.benchmarks.harness import add_option
from prompt_core.command_line import config_parser, counting, parse_with_overrides
from prompt_core.config import override_pairs
from prompt_core.errors import UserError, run_command
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import check_writable, sha256_of_file
from prompt_core.visible import say

CONFIG = "configs/mini/segmenter.yaml"


def main() -> None:
    """Parse, measure, write and print."""
    parser = config_parser(__doc__, output="JSON for the results")
    parser.add_argument("--voc", type=Path, metavar="DIR", help="VOC 2007 with class labels")
    parser.add_argument("--cost", type=Path, metavar="DIR", help="folder of photos to measure times on")
    add_option(parser, "--photos", 10, "photos of --cost")
    add_option(parser, "--repeats", 5, "turns of --cost, of which the fastest count")
    options = parse_with_overrides(parser)
    if not options.output or not (options.voc or options.cost):
        raise UserError("nothing is measured; give --output and --voc or --cost")
    for folder in (options.voc, options.cost):
        if folder is not None and not folder.is_dir():
            raise UserError(f"folder {folder} does not exist")
    check_writable(Path(options.output))
    import torch

    from pomp_engine.checkpoint import packaged_file
    from pomp_lab.mini_detector.photo_cost import photos_of
    from pomp_lab.mini_segmenter.named_pixels import cost, none_of_these
    from pomp_lab.runs import write_results
    from pomp_seg import load_config

    torch.set_num_threads(1)
    config = options.config or str(Path(__file__).resolve().parent.parent / CONFIG)
    settings = dict(override_pairs(options.overrides))
    document = {}
    if options.voc:
        with counting("photos of VOC") as progress:
            document |= none_of_these(config, settings, options.voc, progress)
    if options.cost:
        document["_cost"] = cost(config, settings, photos_of(options.cost, options.photos), options.repeats)
        say(f"own shares take {100 * document['_cost']['more']:.1f} % of a photo's time")
    weights = sha256_of_file(packaged_file(load_config(config, settings).MODEL.WEIGHTS))
    about = run_description(None, None, "cpu, 1 thread", config_file=CONFIG, weights_sha256=weights)
    title = "The embedded segmenter on photos"
    write_results(Path(options.output), {"title": title}, {"pixels by words": {**document, "_run": about}})
    for name, value in document.items():
        if not name.startswith("_"):
            say(f"{name}: {value:.1f}")


if __name__ == "__main__":
    run_command(main)
