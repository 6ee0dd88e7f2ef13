"""Measure a detector's inference time per image by number of classes, in total and part by part.

    python tools/benchmark_detector.py --config configs/detection/lvis_images_pomp.yaml --weights detector.pth \\
        --photos photos/ --output runs/detector_benchmark.json
    python tools/benchmark_detector.py --config mini.yaml --vocabularies coco,lvis,imagenet21k --output mini.json

Without --weights the detector is random, without --photos the pixels are: all proposals then look alike, and far more
pairs of proposal and class pass the score threshold than in practice. --classes takes rows of the configured class
matrix, and random ones beyond it; --vocabularies encodes real class names. The numbers of classes take turns.
"""

import argparse

from pomp_lab.benchmarks.harness import add_option, machine_description, positives
from prompt_core.command_line import config_parser, parse_with_overrides
from prompt_core.errors import UserError, run_command
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import check_writable, write_json

CLASSES = "80,1203,21843"


def main() -> None:
    """Parse, build once, measure, write and print."""
    options = parse()
    check_writable(options.output)
    import torch

    import pomp_det
    from pomp_lab.benchmarks.detector import classes_report, measure_classes, print_report
    from pomp_lab.benchmarks.detector_inputs import (
        matrices_by_count,
        matrices_by_vocabulary,
        random_inputs,
        read_inputs,
    )

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cfg = pomp_det.load_config(options.config, options.overrides)
    inputs = read_inputs(cfg, options.photos) if options.photos else random_inputs(cfg, options.images)
    model = pomp_det.build_detector(cfg)
    if options.weights:
        pomp_det.load_weights(model, options.weights)
    if options.vocabularies:
        names = options.vocabularies.split(",")
        matrices = matrices_by_vocabulary(model, names, options.prompt, options.clip, options.pretrained)
    else:
        matrices = matrices_by_count(model, options.classes or positives(CLASSES))
    device = next(model.parameters()).device
    set_up = {
        "command": run_description()["command"],
        "config": options.config,
        "weights": options.weights or "random",
        "images": options.photos or "random pixels",
        "sizes": [list(example["image"].shape[1:]) for example in inputs],
        "detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        "score_threshold": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        **machine_description("detectron2"),
    }
    report = classes_report(measure_classes(model, inputs, matrices, options.repeats), set_up)
    write_json(options.output, report)
    print_report(report)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = config_parser(__doc__, output="JSON for the results")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint (default: random weights)")
    parser.add_argument("--photos", nargs="+", default=[], metavar="PATH", help="photos and folders of photos")
    add_option(parser, "--images", 2, "random images without --photos")
    parser.add_argument("--classes", type=positives, metavar="N,N,…", help=f"numbers of classes (default: {CLASSES})")
    parser.add_argument("--vocabularies", metavar="NAME,…", help="vocabularies to encode, or files with a class matrix")
    add_option(parser, "--prompt", "a photo of a {}.", "template for --vocabularies", str, "TEXT")
    add_option(parser, "--clip", "mini", "CLIP for --vocabularies", str, "NAME")
    parser.add_argument("--pretrained", metavar="TAG", help="weights of --clip: a tag or a file")
    add_option(parser, "--repeats", 5, "turns of each number of classes")
    add_option(parser, "--threads", 2, "torch threads")
    options = parse_with_overrides(parser)
    if options.classes and options.vocabularies:
        raise UserError("give --classes or --vocabularies, not both")
    if not options.config or not options.output:
        raise UserError("--config and --output are needed; see benchmark_detector.py --help")
    return options


if __name__ == "__main__":
    run_command(main)
