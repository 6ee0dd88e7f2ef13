"""Measure a detector's inference time per image by its number of classes, in all and part by part.

    python tools/benchmark_detector.py --config configs/detection/lvis_images_pomp.yaml --weights detector.pth \\
        --photos photos/ --output runs/detector_benchmark.json
    python tools/benchmark_detector.py --config mini.yaml --vocabularies coco,lvis,imagenet21k --output mini.json

Without --weights the detector is random, without --photos the pixels are: then every proposal looks alike and far more
pairs of proposal and class pass the score threshold than in practice. --classes takes rows of the configured class
matrix as far as they go and random ones beyond; --vocabularies encodes real class names. Class counts take turns.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from prompt_core.command_line import config_parser, parse_with_overrides, print_table
from prompt_core.errors import UserError, run_command
from prompt_core.files import check_writable, write_json

CLASSES = "80,1203,21843"
GROWTH = (1203, 21843, 1.5)  # the time per image may grow so much from the first to the second number of classes


def main() -> None:
    """Parse, build once, measure, write and print."""
    options = parse()
    counts = [_positive(each, "--classes") for each in (options.classes or CLASSES).split(",")]
    repeats, threads = _positive(options.repeats, "--repeats"), _positive(options.threads, "--threads")
    images = _positive(options.images, "--images")
    if options.classes and options.vocabularies:
        raise UserError("give --classes or --vocabularies, not both")
    if not options.config or not options.output:
        raise UserError("--config and --output are needed; see benchmark_detector.py --help")
    check_writable(options.output)
    import torch

    import pomp_det
    from pomp_lab.benchmarks.detector_inputs import (
        matrices_by_count,
        matrices_by_vocabulary,
        random_inputs,
        read_inputs,
    )

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    cfg = pomp_det.load_config(options.config, options.overrides)
    inputs = read_inputs(cfg, options.photos) if options.photos else random_inputs(cfg, images)
    model = pomp_det.build_detector(cfg)
    if options.weights:
        pomp_det.load_weights(model, options.weights)
    if options.vocabularies:
        names = options.vocabularies.split(",")
        matrices = matrices_by_vocabulary(model, names, options.prompt, options.clip, options.pretrained)
    else:
        matrices = matrices_by_count(model, counts)
    report = measure(options, cfg, model, inputs, matrices, repeats)
    write_json(options.output, report)
    print_report(report)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = config_parser(__doc__, output="JSON for the results")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint (default: random weights)")
    parser.add_argument("--photos", nargs="+", default=[], metavar="PATH", help="photos, or folders of photos")
    parser.add_argument("--images", default="2", help="random images where no photos are given (default: 2)")
    parser.add_argument("--classes", metavar="N,N,…", help=f"numbers of classes (default: {CLASSES})")
    parser.add_argument("--vocabularies", metavar="NAME,…", help="vocabularies to encode, or class matrix files")
    parser.add_argument("--prompt", default="a photo of a {}.", help="template for --vocabularies")
    parser.add_argument("--clip", default="mini", help="CLIP for --vocabularies (default: mini)")
    parser.add_argument("--pretrained", help="weights of --clip: a tag or a file")
    parser.add_argument("--repeats", default="5", metavar="N", help="turns of each number of classes (default: 5)")
    parser.add_argument("--threads", default="2", metavar="N", help="torch threads (default: 2)")
    return parse_with_overrides(parser)


def measure(
    options: argparse.Namespace,
    cfg: Any,
    model: Any,
    inputs: Sequence[dict[str, Any]],
    matrices: Sequence[Any],
    repeats: int,
) -> dict[str, Any]:
    """The report: set-up, a row for each class matrix, growth."""
    import sys

    import torch

    from pomp_lab.benchmarks.detector import growth, measure_classes
    from pomp_lab.benchmarks.machine import machine_description
    from prompt_core.evaluation.protocol import run_description

    machine = machine_description("detectron2")
    rows = measure_classes(
        model, inputs, matrices, repeats, lambda line: print(f"  {line}", file=sys.stderr, flush=True)
    )
    device = next(model.parameters()).device
    low, high, most = GROWTH
    ratio = growth(rows, low, high)
    return {
        "set_up": {
            "command": run_description()["command"],
            "config": options.config,
            "weights": options.weights or "random",
            "images": options.photos or "random pixels",
            "sizes": [list(each["image"].shape[1:]) for each in inputs],
            "detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "score_threshold": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(),
            **machine,
        },
        "classes": rows,
        "growth": None
        if ratio is None
        else {"from": low, "to": high, "measured": ratio, "wanted": f"at most {most:g}", "met": ratio <= most},
    }


def print_report(report: dict[str, Any]) -> None:
    """A column for each number of classes, with milliseconds in all and of each part."""
    rows = report["classes"]
    table = Table("per image", *(f"{row['classes']:,} classes" for row in rows))
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("all", *(_milliseconds(row["seconds"]) for row in rows))
    for part in rows[0]["parts"]:
        table.add_row(part, *(_milliseconds(row["parts"][part]) for row in rows))
    for fact in ("proposals", "passing_pairs", "detections"):
        table.add_row(fact.replace("_", " "), *("-" if row[fact] is None else f"{row[fact]:,.0f}" for row in rows))
    print_table(table)
    for row in rows:
        print(f"{row['classes']:,} classes: {row['source']}")
    if report["growth"]:
        growth = report["growth"]
        print(
            f"{growth['to']:,} classes take {growth['measured']:.3f} times the time of {growth['from']:,}; wanted: "
            f"{growth['wanted']}; {'met' if growth['met'] else 'missed'}"
        )


def _milliseconds(seconds: dict[str, Any]) -> str:
    return "{:.1f} ms ({:.1f} to {:.1f})".format(*(1000 * seconds[key] for key in ("median", "min", "max")))


def _positive(text: str, option: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise UserError(f"{option}: a whole number above 0 is expected, given {text!r}")
    return int(text)


if __name__ == "__main__":
    run_command(main)
