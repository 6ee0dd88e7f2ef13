"""Train and evaluate a detector or a segmenter.

    python tools/train_net.py --config configs/lvis_pomp.yaml --num-gpus 8
    python tools/train_net.py --config configs/mini/coco_pomp.yaml --output runs/coco --resume
    python tools/train_net.py --config configs/detection/lvis_images_pomp.yaml --eval-only --output runs/eval \\
        MODEL.WEIGHTS detector.pth
    python tools/train_net.py --config configs/segmentation/coco_stuff_prompt_pomp.yaml --num-gpus 8

Trains, then evaluates on DATASETS.TEST. Your own annotations: DATASETS.FILES "[['mine','boxes.json','photos']]"
DATASETS.TRAIN "('mine',)"; for a segmenter "[['mine','labels','photos','names.txt']]". An interrupted or killed run
continues with --resume. --score-only scores the predictions of an earlier evaluation again; EVAL_AP_FIX True is Fixed
AP. For several machines, start it with torchrun.
"""

import argparse
from typing import Any

from prompt_core.command_line import config_parser, parse_with_overrides, whole_number
from prompt_core.errors import UserError, run_command
from prompt_core.ranges import COUNT, NOT_NEGATIVE

BACKENDS = ("hotcoco", "reference")
ORACLES = ("boxes", "classes", "vocabulary")


def main() -> int:
    """Parse, and run in one process or several."""
    arguments = parse()
    overrides = list(arguments.overrides)
    if arguments.output:
        overrides += ["OUTPUT_DIR", arguments.output]
    if arguments.num_gpus == 0:
        overrides += ["MODEL.DEVICE", "cpu"]
    import pomp_det
    import pomp_seg
    from pomp_engine.processes import run_processes

    segmenter = pomp_seg.is_segmenter(arguments.config, overrides)
    if segmenter and (arguments.oracle or arguments.eval_backend != BACKENDS[0]):
        raise UserError("--oracle and --eval-backend are for detectors; a segmenter has the setting ORACLE True")
    cfg = (pomp_seg if segmenter else pomp_det).load_config(arguments.config, overrides)
    return run_processes(run, arguments.num_gpus, arguments.num_processes, (segmenter, cfg, arguments))


def run(segmenter: bool, cfg: Any, arguments: argparse.Namespace) -> int:
    """The work of each process."""
    import pomp_det
    import pomp_seg
    from pomp_engine.run import evaluate, score, train

    if segmenter:
        task = pomp_seg.segmentation_task()
    else:
        task = pomp_det.detection_task(arguments.eval_backend, arguments.oracle)
    if arguments.score_only:
        score(task, cfg)
    elif arguments.eval_only or arguments.oracle:
        evaluate(task, cfg, given_weights(cfg, arguments))
    else:
        train(task, cfg, arguments.resume)
    return 0


def given_weights(cfg: Any, arguments: argparse.Namespace) -> str:
    """MODEL.WEIGHTS if given on the command line, which takes precedence over the run in --output."""
    named = any(str(text).partition("=")[0] == "MODEL.WEIGHTS" for text in arguments.overrides)
    return str(cfg.MODEL.WEIGHTS) if named else ""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = config_parser(__doc__, output="folder of the run (default: OUTPUT_DIR)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, or the run in --output")
    parser.add_argument("--score-only", action="store_true", help="score the predictions in --output, no inference")
    parser.add_argument("--oracle", choices=ORACLES, default="", help="evaluate with ground truth for one part")
    parser.add_argument("--eval-backend", choices=BACKENDS, default=BACKENDS[0], help="scorer")
    parser.add_argument(
        "--num-gpus", type=whole_number(NOT_NEGATIVE), metavar="N", help="processes with one GPU each; 0 for the CPU"
    )
    parser.add_argument(
        "--num-processes", type=whole_number(COUNT), default=1, metavar="N", help="processes on the CPU"
    )
    arguments = parse_with_overrides(parser)
    if not arguments.config:
        raise UserError("no configuration; give --config FILE")
    if arguments.resume and (arguments.eval_only or arguments.score_only or arguments.oracle):
        raise UserError("--resume is for training; leave it out with --eval-only, --score-only or --oracle")
    return arguments


if __name__ == "__main__":
    run_command(main)
