"""Build mini, the small embedded CLIP, from two packages of the index.

    python tools/build_mini_clip.py --output build/mini
    python tools/build_mini_clip.py --adapt build/mini --tiny-imagenet FOLDER \\
        --regions BOXES.json PHOTOS --output prompt_core/assets
    python tools/build_mini_clip.py --output build/mini --holdout
    python tools/build_mini_clip.py --evaluate prompt_core/assets --tiny-imagenet FOLDER --imagenet-samples FOLDER

Image tower: EfficientNet-Lite0 (supervised on ImageNet-1K), its pooled features and one closed-form linear layer.
Text tower: a small causal transformer, trained from scratch to give for "prefix + class name" the direction that the
image tower's own classifier has for that class. Classes that the classifier does not know get a direction predicted
from a sentence encoder's similarity (kernel ridge regression). --adapt then fits the linear layer to small photos and
the last stage to crops of annotated boxes; no other step sees a photo. prompt_core/assets/MINI_MODEL_CARD.md describes
the recipe.
"""

import argparse
from pathlib import Path

import torch

from pomp_lab.mini_clip.adapt import adapt
from pomp_lab.mini_clip.box_crops import scored_regions, training_regions
from pomp_lab.mini_clip.build import build
from pomp_lab.mini_clip.measure import evaluate, result_tables
from pomp_lab.runs import write_results
from pomp_lab.tables.data_folders import HALVES
from prompt_core.command_line import ArgumentParser, print_table, whole_number
from prompt_core.errors import UserError, run_command
from prompt_core.files import check_writable
from prompt_core.ranges import COUNT, SEED

DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "prompt_core" / "assets"


def main() -> None:
    """Build one variant, or measure existing ones."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache",
        type=Path,
        default="build/mini_cache",
        metavar="DIR",
        help="for wheels, teacher embeddings and image features",
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help="where the model is written")
    parser.add_argument("--holdout", action="store_true", help="keep 200 ImageNet-1K classes out of every step")
    parser.add_argument(
        "--steps",
        type=whole_number(COUNT),
        default=1300,
        metavar="N",
        help="training steps of the text tower (default: 1300)",
    )
    parser.add_argument("--seed", type=whole_number(SEED), default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--threads", type=whole_number(COUNT), default=2, metavar="N", help="torch threads (default: 2)"
    )
    parser.add_argument(
        "--adapt", type=Path, metavar="FOLDER", help="fit the mini there to photos of Tiny-ImageNet and to --regions"
    )
    parser.add_argument(
        "--keep-text", type=Path, metavar="FOLDER", help="take the text tower of the finished model there"
    )
    parser.add_argument(
        "--regions",
        nargs=2,
        action="append",
        default=[],
        type=Path,
        metavar=("JSON", "DIR"),
        help="boxes in COCO's format and the folder of their photos: to learn from with --adapt, where it may be given "
        "again and the first file says the names; to score with --evaluate",
    )
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER", help="build nothing, measure the models there")
    parser.add_argument("--tiny-imagenet", type=Path, metavar="DIR", help="Tiny-ImageNet in its standard layout")
    parser.add_argument(
        "--imagenet-samples", type=Path, metavar="DIR", help="labels.csv and photos of ImageNet-1K classes"
    )
    parser.add_argument("--half", choices=HALVES, default="report", help="photos to score (default: report)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measured numbers there too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.adapt is None and arguments.evaluate is None:
        options = {"holdout": arguments.holdout, "steps": arguments.steps, "seed": arguments.seed}
        build(arguments.cache, arguments.output, **options, keep_text=arguments.keep_text)
        return
    if arguments.tiny_imagenet is None:
        raise UserError("--adapt and --evaluate need --tiny-imagenet DIR")
    features = arguments.cache / "features"
    if arguments.adapt is not None:
        regions = training_regions(arguments.regions)
        adapt(arguments.adapt, arguments.tiny_imagenet, arguments.output, arguments.seed, regions, features)
        return
    if len(arguments.regions) > 1:
        raise UserError("--evaluate scores one file of --regions")
    if arguments.json is not None:
        check_writable(arguments.json)
    scored = next((scored_regions(*paths) for paths in arguments.regions), {})
    half = arguments.half
    documents = evaluate(
        arguments.evaluate, arguments.tiny_imagenet, arguments.imagenet_samples, half, features, scored
    )
    for table in result_tables(documents, half):
        print_table(table)
    if arguments.json is not None:
        runs = {document["_run"]["row"]: document for prompts in documents.values() for document in prompts.values()}
        write_results(arguments.json, {"title": "Zero-shot accuracy of the embedded models"}, runs)


if __name__ == "__main__":
    run_command(main)
