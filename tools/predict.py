"""Photos and words in; drawn boxes and masks with a COCO JSON out, or for a segmenter coloured label maps.

    python tools/predict.py --model configs/detection/lvis_images_pomp.yaml --weights detector.pth \
        --vocabulary "cat,remote control" --prompt pomp.pth.tar --output runs/predict photo.jpg more_photos/
    python tools/predict.py --model runs/mini/coco_seg --vocabulary "dog,grass,sky" --output runs/predict photo.jpg

The twin of pomp detect and pomp segment for whichever a model is. --model is the folder of a run, or a configuration of
a detector or a segmenter, published files included. --vocabulary may be repeated: the model is loaded once, and the
results for each list of words go to a folder 1, 2, … of their own.

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
from typing import TYPE_CHECKING

from prompt_core.command_line import ArgumentParser, real_number
from prompt_core.errors import UserError, run_command
from prompt_core.ranges import SHARE

if TYPE_CHECKING:
    from pomp.models.photo_model import Model


def main() -> int:
    """Parse, load once, predict for each list of words; returns the exit code."""
    arguments = parse()
    from pomp.labelling.label_photos import Request, label_photos
    from pomp.labelling.outputs import Outputs

    request = Request(
        arguments.photos,
        arguments.output,
        arguments.vocabulary or (None,),
        arguments.background,
        Outputs(hide_photo=arguments.no_photo),
        strict=arguments.strict,
    )
    return label_photos(request, lambda: model(arguments))


def model(arguments: argparse.Namespace) -> Model:
    """The detector or segmenter, once its options are known to be for it."""
    import pomp_seg
    from pomp.models.load import load_on_detectron2
    from pomp_engine.run_folder import model_files

    config, weights = model_files(arguments.model, arguments.weights)
    overrides = [f"MODEL.WEIGHTS={weights}"] if weights else []
    if pomp_seg.is_segmenter(config, [*overrides, *arguments.set]):
        if arguments.threshold is not None:
            raise UserError(
                "--threshold is for detectors; a segmenter gives each pixel its best class, see --background"
            )
        if arguments.background and not arguments.vocabulary:
            raise UserError("--background is given without --vocabulary; name the words to colour")
    elif arguments.none_of_these is not None:
        raise UserError("--none-of-these is for segmenters; a detector leaves out what scores below --threshold")
    elif arguments.background:
        raise UserError("--background is for segmenters; a detector has no background words")
    elif arguments.prompt and not arguments.vocabulary:
        raise UserError("--prompt is given without --vocabulary; name the words that it encodes")
    share = arguments.none_of_these
    none = [] if share is None else [f"MODEL.SEM_SEG_HEAD.NONE_OF_THESE={share}"]
    return load_on_detectron2(
        arguments.model,
        prompt=arguments.prompt,
        weights=arguments.weights,
        threshold=arguments.threshold,
        settings=[*arguments.set, *none],
        words=(arguments.vocabulary or [""])[0],
    )


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
    parser.add_argument("--threshold", type=real_number(SHARE), help="lowest score of a detection (default: 0.3)")
    parser.add_argument(
        "--background", default="", metavar="WORDS", help="segmenters: names of what is left uncoloured"
    )
    parser.add_argument(
        "--none-of-these",
        type=real_number(SHARE),
        metavar="SHARE",
        help="segmenters with a background: pixels of no greater own share show none of the words; 0 gives each a word",
    )
    parser.add_argument("--no-photo", action="store_true", help="draw without the photo, if it must not be shown")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where a photo was left out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="configuration override")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="pictures, label maps and JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
