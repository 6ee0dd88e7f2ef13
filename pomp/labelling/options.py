"""Options that ``pomp classify``, ``pomp detect`` and ``pomp segment`` share."""

from __future__ import annotations

import argparse

from pomp.labelling.label_photos import Request
from pomp.labelling.outputs import Outputs
from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError
from prompt_core.photos.video_frames import Every


def photo_parser(description: str | None, output_needed: bool) -> ArgumentParser:
    """A parser with photos, words and what is written."""
    parser = ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="photos, folders, patterns like '**/*.jpg', videos, .tar archives, @list.txt, or - for a list on stdin",
    )
    parser.add_argument("--words", metavar="WORDS", help="words joined by commas, a file, or a published vocabulary")
    parser.add_argument("--negatives", metavar="WORDS", default="", help="what else may be there, likewise")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where a photo was left out")
    parser.add_argument("--every", type=_every, metavar="N", help="of videos every Nth frame, or 2s: one in 2 seconds")
    parser.add_argument(
        "--format", type=_formats, default=(), metavar="NAMES", help="files of other tools: coco,yolo,…"
    )
    parser.add_argument("--output", required=output_needed, metavar="FOLDER", help="where results go")
    return parser


def add_region_options(parser: ArgumentParser) -> None:
    """Options of what is written about things and pixels."""
    parser.add_argument("--no-pictures", action="store_true", help="draw nothing")
    parser.add_argument("--no-photo", action="store_true", help="draw without the photo, if it must not be shown")
    parser.add_argument("--crops", action="store_true", help="also cut out what was found, into crops/WORD")
    parser.add_argument("--weights", default="", metavar="FILE", help="checkpoint (default: what the model names)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="configuration override")


def request_of(arguments: argparse.Namespace, outputs: Outputs) -> Request:
    """The request of a parsed command line."""
    if arguments.negatives and not arguments.words:
        raise UserError("--negatives is given without --words; name the words to look for")
    return Request(
        arguments.photos,
        arguments.output,
        (arguments.words or None,),
        arguments.negatives,
        outputs,
        arguments.format,
        arguments.every,
        arguments.strict,
    )


def _every(text: str) -> Every:
    try:
        return Every.parse(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _formats(text: str) -> tuple[str, ...]:
    from pomp.formats.formats import format_names

    try:
        return format_names(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
