"""Photos and words in; drawn boxes and masks with a COCO JSON out, or for a segmenter coloured label maps.

    python tools/predict.py --model configs/detection/lvis_images_pomp.yaml --weights detector.pth \
        --vocabulary "cat,remote control" --prompt pomp.pth.tar --output runs/predict photo.jpg more_photos/
    python tools/predict.py --model runs/mini/coco_seg --vocabulary "dog,grass,sky" --output runs/predict photo.jpg

--model is the folder of a run, or a configuration of a detector or a segmenter, published files included. --vocabulary
may be repeated: the model is loaded once, and the results for each list of words go to a folder 1, 2, … of their own.

A detector without --prompt looks names up in the class matrix of its configuration. A segmenter encodes any name with
its own prompt; each pixel gets one of the words, and --background adds words for everything else, left uncoloured.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, run_command
from prompt_core.files import make_output_folder
from prompt_core.visible import say

THRESHOLD = 0.3

# Predicts with one list of words, or None for those of the configuration, into a folder; returns a line about it.
Run = Callable[[str | None, Path], str]


def main() -> None:
    """Parse, load once, predict for each list of words."""
    arguments = parse()
    import pomp_det
    import pomp_seg
    from pomp_engine.run_folder import model_files
    from prompt_core.data.photo_files import find_photos

    photos = find_photos(arguments.photos)
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise UserError(f"--threshold is {arguments.threshold}; a score between 0 and 1 is expected")
    config, weights = model_files(arguments.model, arguments.weights)
    output = make_output_folder(arguments.output)
    overrides = ([f"MODEL.WEIGHTS={weights}"] if weights else []) + arguments.set
    if pomp_seg.is_segmenter(config, overrides):
        run = segmenter(pomp_seg.load_config(config, overrides), arguments, photos)
    else:
        run = detector(pomp_det.load_config(config, overrides), arguments, photos)
    lists = arguments.vocabulary or [None]
    for number, words in enumerate(lists, start=1):
        say(run(words, output if len(lists) == 1 else make_output_folder(output / str(number))))


def detector(cfg: object, arguments: argparse.Namespace, photos: list[Path]) -> Run:
    """Load a detector."""
    if arguments.background:
        raise UserError("--background is for segmenters; a detector has no background words")
    if arguments.prompt and not arguments.vocabulary:
        raise UserError("--prompt is given without --vocabulary; name the words that it encodes")
    from pomp_det.pictures import detect_photos
    from pomp_det.predictor import OpenVocabularyPredictor

    predictor = OpenVocabularyPredictor.load(cfg, (arguments.vocabulary or [""])[0], arguments.prompt)
    threshold = THRESHOLD if arguments.threshold is None else arguments.threshold

    def run(words: str | None, folder: Path) -> str:
        if words is not None:
            predictor.set_vocabulary(words, arguments.prompt)
        return detect_photos(predictor, photos, folder, threshold, arguments.no_photo)

    return run


def segmenter(cfg: object, arguments: argparse.Namespace, photos: list[Path]) -> Run:
    """Load a segmenter."""
    if arguments.threshold is not None:
        raise UserError("--threshold is for detectors; a segmenter gives each pixel its best class, see --background")
    if arguments.background and not arguments.vocabulary:
        raise UserError("--background is given without --vocabulary; name the words to colour")
    from pomp_seg.predict_photos import segment_photos
    from pomp_seg.predictor import OpenVocabularySegmenter
    from pomp_seg.prompts.build import use_prompt

    predictor = OpenVocabularySegmenter.load(use_prompt(cfg, arguments.prompt))

    def run(words: str | None, folder: Path) -> str:
        if words is not None:
            predictor.set_vocabulary(words, arguments.background)
        return segment_photos(predictor, photos, folder, arguments.no_photo)

    return run


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, or folders of photos")
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
    parser.add_argument("--threshold", type=float, help=f"lowest score of a detection (default: {THRESHOLD})")
    parser.add_argument(
        "--background", default="", metavar="WORDS", help="segmenters: names of what is left uncoloured"
    )
    parser.add_argument("--no-photo", action="store_true", help="draw without the photo, if it must not be shown")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="configuration override")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="pictures, label maps and JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
