"""Class matrices and models for other programs.

    pomp export --words "bus,tram" --output words.npy                          # as Detic reads it
    pomp export --words "bus,tram" --format open_clip --output words.pt
    pomp export --words "bus,tram" --background imagenet21k --prompt my.safetensors --output words.safetensors
    pomp export --image-side onnx --words "bus,tram" --output mini.onnx        # and mini.words.npy
    pomp export --image-side onnx --model mini/detector --words "bus,tram" --output detector.onnx
    pomp export --image-side torch.export --clip ViT-B-16 --pretrained openai --output b16.pt2

Words are encoded by the CLIP of --prompt, by --clip, or by the embedded mini, with "a photo of a {}." unless --prompt
or --template say otherwise. An exported model takes the class matrix as an input, so that one file serves any words; it
is written only if it answers as the model does, to 1e-4. docs/export.md runs one with onnxruntime and Pillow alone.
"""

from __future__ import annotations

import argparse

from prompt_core.command_line import config_parser, parse_with_overrides
from prompt_core.errors import UserError
from prompt_core.visible import say

TEMPLATE = "a photo of a {}."


def main() -> None:
    """Parse, export, say what was written."""
    from pomp.exporting.classifier_file import add_classifier_arguments, export_classifier
    from pomp.exporting.image_side import KINDS, export_image_side

    parser = config_parser(__doc__, output="the file to write")
    add_classifier_arguments(parser, "--words", "--vocabulary", required=False)
    parser.add_argument("--image-side", choices=KINDS, help="export a model that takes a class matrix as an input")
    parser.add_argument("--model", metavar="NAME", help="a detector or segmenter for --image-side (mini/detector, …)")
    parser.add_argument("--own-share", action="store_true", help="a CLIP that also takes a background matrix")
    arguments = parse_with_overrides(parser)
    if not arguments.output:
        raise UserError("give --output FILE")
    if not arguments.image_side:
        if not arguments.words:
            raise UserError("nothing to export: give --words for a class matrix, or --image-side for a model")
        if arguments.model or arguments.own_share:
            raise UserError("--model and --own-share are for --image-side; the CLIP of a class matrix is --clip")
        _fill_in(arguments)
        say(export_classifier(arguments))
        return
    if arguments.format:
        raise UserError("--format is for class matrices; beside --image-side they are .npy")
    if not arguments.model:
        _fill_in(arguments)
    say(export_image_side(arguments))


def _fill_in(arguments: argparse.Namespace) -> None:
    """The embedded CLIP and the common template, where nothing else is said."""
    if arguments.prompt or arguments.config:
        return
    arguments.clip = arguments.clip or "mini"
    arguments.template = arguments.template or [TEMPLATE]
