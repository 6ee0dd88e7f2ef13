"""Photos and words in; drawn boxes and masks with a COCO JSON out, or for a segmenter coloured label maps.

    python tools/predict.py --model configs/detection/lvis_images_pomp.yaml --weights detector.pth \
        --vocabulary "cat,remote control" --prompt pomp.pth.tar --output runs/predict photo.jpg more_photos/
    python tools/predict.py --model runs/mini/coco_seg --vocabulary "dog,grass,sky" --output runs/predict photo.jpg

--model is the folder of a run, or a configuration of a detector or a segmenter, published files included. --vocabulary
may be repeated: the model is loaded once, and the results for each list of words go to a folder 1, 2, … of their own.

Photos that cannot be read are left out, listed at the end and counted. Results are written photo by photo: a run that
was stopped goes on where it was when the same command is given again, and ends with the same files; photos that were
added or changed since are predicted too. With another model, words or options it is refused as long as the earlier run
is unfinished, which a file NAME.json.part in --output tells. The exit code is 0, with --strict 1 where a photo was left
out, and 2 where none could be read.

A detector without --prompt looks names up in the class matrix of its configuration. A segmenter encodes any name with
its own prompt; each pixel gets one of the words, and --background adds words for everything else, left uncoloured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_core.command_line import ArgumentParser, real_number
from prompt_core.errors import UserError, run_command
from prompt_core.files import make_output_folder
from prompt_core.ranges import SHARE
from prompt_core.visible import say

if TYPE_CHECKING:
    from prompt_core.photos.photo_loop import PhotoTask

THRESHOLD = 0.3


def main() -> int:
    """Parse, load once, predict for each list of words; returns the exit code."""
    arguments = parse()
    import pomp_det
    import pomp_seg
    from pomp_engine.run_folder import model_files
    from prompt_core.photos.photo_list import list_photos_to_predict
    from prompt_core.photos.photo_loop import predict_photos, remove_parts

    photos = list_photos_to_predict(arguments.photos, Path(arguments.output))
    config, weights = model_files(arguments.model, arguments.weights)
    output = make_output_folder(arguments.output)
    overrides = ([f"MODEL.WEIGHTS={weights}"] if weights else []) + arguments.set
    if pomp_seg.is_segmenter(config, overrides):
        task_with = segmenter(pomp_seg.load_config(config, overrides), arguments)
    else:
        task_with = detector(pomp_det.load_config(config, overrides), arguments)
    lists = arguments.vocabulary or [None]
    outcomes = []
    for number, words in enumerate(lists, start=1):
        folder = output if len(lists) == 1 else make_output_folder(output / str(number))
        outcomes.append(predict_photos(task_with(words), photos, folder))
        say(outcomes[-1].line)
    remove_parts(outcomes)
    skipped = {path: reason for outcome in outcomes for path, reason in outcome.skipped.items()}
    for reason in skipped.values():
        say(f"left out: {reason}", error=True)
    if skipped:
        say(f"{len(skipped)} of {len(photos)} photos were left out", error=True)
    return 1 if skipped and arguments.strict else 0


def detector(cfg: object, arguments: argparse.Namespace) -> Callable[[str | None], PhotoTask]:
    """Load a detector; the function takes a list of words, or None for those of the configuration."""
    if arguments.background:
        raise UserError("--background is for segmenters; a detector has no background words")
    if arguments.prompt and not arguments.vocabulary:
        raise UserError("--prompt is given without --vocabulary; name the words that it encodes")
    from pomp_det.photo_detections import PhotoDetections
    from pomp_det.predictor import OpenVocabularyPredictor

    predictor = OpenVocabularyPredictor.load(cfg, (arguments.vocabulary or [""])[0], arguments.prompt)
    threshold = THRESHOLD if arguments.threshold is None else arguments.threshold

    def task_with(words: str | None) -> PhotoTask:
        if words is not None:
            predictor.set_vocabulary(words, arguments.prompt)
        return PhotoDetections(predictor, threshold, arguments.no_photo)

    return task_with


def segmenter(cfg: object, arguments: argparse.Namespace) -> Callable[[str | None], PhotoTask]:
    """Load a segmenter; the function takes a list of words, or None for those of the configuration."""
    if arguments.threshold is not None:
        raise UserError("--threshold is for detectors; a segmenter gives each pixel its best class, see --background")
    if arguments.background and not arguments.vocabulary:
        raise UserError("--background is given without --vocabulary; name the words to colour")
    from pomp_seg.predict_photos import PhotoSegmentations
    from pomp_seg.predictor import OpenVocabularySegmenter
    from pomp_seg.prompts.build import use_prompt

    predictor = OpenVocabularySegmenter.load(use_prompt(cfg, arguments.prompt))

    def task_with(words: str | None) -> PhotoTask:
        if words is not None:
            predictor.set_vocabulary(words, arguments.background)
        return PhotoSegmentations(predictor, arguments.no_photo)

    return task_with


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders, or patterns like '*/*.jpg'")
    parser.add_argument("--model", "--config", required=True, metavar="RUN", help="folder of a run, or a configuration")
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="checkpoint (default: the run's newest, else MODEL.WEIGHTS)"
    )
    parser.add_argument(
        "--vocabulary",
        action="append",
        metavar="WORDS",
        help="names joined by commas, a file, or a published vocabulary",
    )
    parser.add_argument("--prompt", default="", help="a prompt file, or templates with {} separated by |")
    parser.add_argument(
        "--threshold", type=real_number(SHARE), help=f"lowest score of a detection (default: {THRESHOLD})"
    )
    parser.add_argument(
        "--background", default="", metavar="WORDS", help="segmenters: names of what is left uncoloured"
    )
    parser.add_argument("--no-photo", action="store_true", help="draw without the photo, if it must not be shown")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where a photo was left out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="configuration override")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="pictures, label maps and JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
