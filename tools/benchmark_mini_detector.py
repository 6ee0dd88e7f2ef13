"""Measure the embedded detector on photos that it did not learn from: the tables of its card.

    POMP_DATA=data python tools/benchmark_mini_detector.py --boxes --voc data/voc_boxes \\
        --imagenet-samples data/imagenet_samples --cost data/coco128_val --output docs/results/mini_detector.json

--boxes evaluates what the configuration names, --voc the validation photos of VOC 2007, --imagenet-samples the word of
the best box among 1,000. --cost writes NAME_cost.json beside the output: the processor's time for a photo by that of
the frozen networks alone, with three numbers of words, loading and memory. One thread.
"""

from pathlib import Path

from pomp_lab.benchmarks.harness import add_option, machine_description
from prompt_core.command_line import config_parser, counting, parse_with_overrides
from prompt_core.config import override_pairs
from prompt_core.errors import UserError, run_command
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import check_writable, sha256_of_file, write_json
from prompt_core.visible import say

CONFIG = "configs/mini/detector.yaml"


def main() -> None:
    """Parse, measure, write and print."""
    parser = config_parser(__doc__, output="JSON for the results")
    parser.add_argument("--boxes", action="store_true", help="evaluate DATASETS.TEST of the configuration")
    parser.add_argument("--voc", type=Path, metavar="DIR", help="VOC 2007 photos with boxes in COCO's format")
    parser.add_argument("--imagenet-samples", type=Path, metavar="DIR", help="photos of ImageNet with labels.csv")
    parser.add_argument("--cost", type=Path, metavar="DIR", help="folder of photos to measure times on")
    add_option(parser, "--photos", 20, "photos of --cost")
    add_option(parser, "--repeats", 5, "turns of --cost, of which the fastest count")
    parser.add_argument(
        "--vocabularies", default="coco,lvis,imagenet21k", metavar="NAME,…", help="words of --cost, few to many"
    )
    options = parse_with_overrides(parser)
    given = (options.voc, options.imagenet_samples, options.cost)
    if not options.output or not (options.boxes or any(given)):
        raise UserError("nothing is measured; give --output and --boxes, --voc, --imagenet-samples or --cost")
    for folder in given:
        if folder is not None and not folder.is_dir():
            raise UserError(f"folder {folder} does not exist")
    output = Path(options.output)
    check_writable(output)
    config = options.config or str(Path(__file__).resolve().parent.parent / CONFIG)
    settings = dict(override_pairs(options.overrides))
    if options.boxes or options.voc or options.imagenet_samples:
        _scores(options, config, settings, output)
    if options.cost:
        _cost(options, config, settings, output.with_name(f"{output.stem}_cost.json"))


def _scores(options: object, config: str, settings: dict[str, object], output: Path) -> None:
    from typing import Any, cast

    import torch

    import pomp_det
    from pomp_engine.checkpoint import packaged_file
    from pomp_lab.mini_detector.photo_scores import best_box_words, scored, together, voc_scores
    from pomp_lab.runs import write_results
    from prompt_core.data.readers.table import photo_list

    torch.set_num_threads(1)
    asked = cast(Any, options)
    cfg = pomp_det.load_config(config, settings)
    documents = []
    if asked.boxes:
        documents.append(scored(config, settings))
    if asked.voc:
        documents.append(voc_scores(config, settings, asked.voc))
    if asked.imagenet_samples:
        images = photo_list(asked.imagenet_samples)
        with counting("photos of ImageNet") as progress:
            documents.append(best_box_words(config, settings, images, progress))
    document = together(*documents)
    row = "frozen networks, learned masks"
    weights = sha256_of_file(packaged_file(cfg.MODEL.WEIGHTS))
    about = run_description(None, None, "cpu, 1 thread", row=row, config_file=CONFIG, weights_sha256=weights)
    write_results(output, {"title": "The embedded detector on photos"}, {row: {**document, "_run": about}})
    for name, value in document.items():
        if not name.startswith("_"):
            say(f"{name}: {value:.1f}")


def _cost(options: object, config: str, settings: dict[str, object], output: Path) -> None:
    from typing import Any, cast

    from pomp_lab.benchmarks.harness import in_fresh_process
    from pomp_lab.mini_detector.photo_cost import measure_cost, measure_loading, photos_of

    asked = cast(Any, options)
    photos, words = photos_of(asked.cost, asked.photos), asked.vocabularies.split(",")
    loading = [in_fresh_process(measure_loading, config, settings) for _ in range(asked.repeats - 1)]
    report = in_fresh_process(measure_cost, config, settings, photos, words, asked.repeats, loading)
    command = run_description()["command"]
    write_json(output, {"command": command, "threads": 1, **machine_description("detectron2"), **report})
    for name, values in report["seconds"].items():
        say(f"{name}: {1000 * values['fastest']:.0f} ms of the processor for a photo")
    for name, bound in report["bounds"].items():
        say(f"{name}: {bound['measured']:.3g}; wanted: {bound['wanted']}; {'met' if bound['met'] else 'missed'}")


if __name__ == "__main__":
    run_command(main)
