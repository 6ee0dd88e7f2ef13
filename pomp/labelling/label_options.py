"""Options that ``pomp classify``, ``pomp detect`` and ``pomp segment`` share."""

from __future__ import annotations

import argparse
import os

from pomp.labelling.label_photos import Request
from pomp.labelling.outputs import Outputs
from pomp.shards.shard_runs import SHARD_SIZE
from pomp.shards.shares import share_of_process
from prompt_core.command_line import ArgumentParser, whole_number
from prompt_core.errors import UserError
from prompt_core.photos.video_frames import Every
from prompt_core.ranges import Range


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
    parser.add_argument(
        "--shard", default="", metavar="I/N", help="process I of N that share the photos; env: as torchrun or SLURM say"
    )
    parser.add_argument(
        "--shard-size", type=whole_number(Range(1)), default=SHARD_SIZE, metavar="N", help="photos of a Parquet part"
    )
    return parser


def add_region_options(parser: ArgumentParser) -> None:
    """Options of what is written about things and pixels."""
    parser.add_argument("--no-pictures", action="store_true", help="draw nothing")
    parser.add_argument("--no-gallery", action="store_true", help="no pages of all photos, those in doubt first")
    parser.add_argument("--no-photo", action="store_true", help="draw without the photo, if it must not be shown")
    parser.add_argument("--crops", action="store_true", help="also cut out what was found, into crops/WORD")
    parser.add_argument("--weights", default="", metavar="FILE", help="checkpoint (default: what the model names)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="configuration override")


def region_outputs(arguments: argparse.Namespace, polygons: bool = False) -> Outputs:
    """What :func:`add_region_options` asks for."""
    pictures = not arguments.no_pictures
    gallery = pictures and not arguments.no_gallery
    return Outputs(pictures, gallery, arguments.no_photo, arguments.crops, polygons)


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
        share_of_process(arguments.shard, os.environ),
        arguments.shard_size,
    )


def device_of(arguments: argparse.Namespace) -> str:
    """The device that was asked for; of several processes on a machine each has a GPU of its own, where there are."""
    local = os.environ.get("LOCAL_RANK", "")  # torchrun
    if arguments.device != "auto" or not local.isdecimal():
        return str(arguments.device)
    import torch

    return f"cuda:{int(local) % torch.cuda.device_count()}" if torch.cuda.is_available() else "auto"


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
