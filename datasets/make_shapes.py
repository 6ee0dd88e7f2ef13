"""Make the embedded data set: coloured, patterned shapes for classification, detection and segmentation.

    python datasets/make_shapes.py --output datasets/shapes

It needs no photos and no downloads. The same options give the same bytes; pomp_lab/shapes/generate.py describes the
files. Variants show the same scenes with the same labels in another look: blurred, sketch (lines on white paper, no
colours), recoloured (hues are rotated, so that colour words no longer fit) and small (the detail of a third of the
size).
"""

from __future__ import annotations

import argparse
import time

from pomp_lab.shapes.generate import build_shapes
from pomp_lab.shapes.options import MASKS, PARTS, ShapesOptions
from pomp_lab.shapes.variants import VARIANTS
from prompt_core.command_line import ArgumentParser, whole_number
from prompt_core.errors import run_command
from prompt_core.ranges import COUNT, NOT_NEGATIVE, SEED
from prompt_core.visible import say


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; defaults are those of :class:`ShapesOptions`."""
    default = ShapesOptions()
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace shapes that were made with other options")
    parser.add_argument(
        "--workers",
        type=whole_number(COUNT),
        default=1,
        metavar="N",
        help="processes, which do not change the result (default: 1)",
    )
    for name, text in (
        ("seed", "seed of the random images and of the choice of rare classes"),
        ("classes", "size of the vocabulary"),
        ("classification-classes", "classes with classification images (default: 200, or all of fewer)"),
        ("train-images-per-class", "classification images of each base class for training"),
        ("val-images-per-class", "classification images of each class for validation"),
        ("classification-size", "side of classification images in pixels"),
        ("scenes", "scenes for training"),
        ("val-scenes", "scenes for validation"),
        ("scene-size", "side of scenes in pixels"),
    ):
        value = None if name == "classification-classes" else getattr(default, name.replace("-", "_"))
        shown = text if value is None else f"{text} (default: {value})"
        parser.add_argument(
            f"--{name}",
            type=whole_number(SEED if name == "seed" else NOT_NEGATIVE),
            default=value,
            metavar="N",
            help=shown,
        )
    parser.add_argument(
        "--parts", default=",".join(PARTS), metavar="PART,PART", help=f"some of {','.join(PARTS)} (default: both)"
    )
    parser.add_argument(
        "--variant", default=default.variant, metavar="LOOK", help=f"{', '.join(VARIANTS)} (default: plain)"
    )
    parser.add_argument(
        "--masks",
        default=default.masks,
        metavar="KIND",
        help=f"masks in the COCO files: {' or '.join(MASKS)} (default: polygons)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Make the data set, unless it is already there."""
    values = vars(parse_arguments(arguments))
    output, overwrite, workers = values.pop("output"), values.pop("overwrite"), values.pop("workers")
    values["parts"] = tuple(part.strip() for part in values["parts"].split(",") if part.strip())
    started = time.perf_counter()
    if build_shapes(output, ShapesOptions(**values), overwrite=overwrite, workers=workers):
        say(f"made shapes in {output} in {time.perf_counter() - started:.1f} s")
    else:
        say(f"{output} already holds these shapes: nothing to do")


if __name__ == "__main__":
    run_command(main)
