"""Make the derived files of a data set from its downloaded files.

    python datasets/prepare.py coco
    python datasets/prepare.py voc_seg --root /data
    python datasets/prepare.py imagenet_lvis --help
    python datasets/prepare.py imagenet21k --from winter21_whole.tar --output datasets/imagenet21k_16shots

python datasets/check.py NAME says what each data set needs. Existing files and labels with the same content are left
alone; others are reported, and replaced only with --overwrite.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from prompt_core.command_line import ArgumentParser, whole_number
from prompt_core.errors import UserError, nearest, run_command
from prompt_core.files import data_root, read_json
from prompt_core.ranges import COUNT, COUNT_OR_ALL, SEED
from prompt_core.visible import say

# Name: what is made, and the function of (root, overwrite) that makes it and returns what was done for each file. It is
# imported on demand: each task has its own dependencies.
_DETECTION, _SEGMENTATION = "pomp_det.data.prepare", "pomp_seg.data.prepare"
PREPARATIONS = {
    "ade20k": ("labels of ADE20K with 150 classes", f"{_SEGMENTATION}.remapped:prepare_ade20k"),
    "ade20k_full": (
        "labels of full ADE20K, of the categories in training and in validation (847 published)",
        f"{_SEGMENTATION}.ade20k_full:prepare_ade20k_full",
    ),
    "cc3m": (
        "the list of Conceptual Captions' photos, and the classes of LVIS that their captions name",
        f"{_DETECTION}.captions:prepare_cc3m",
    ),
    "coco": ("the 48/17 zero-shot splits of COCO, class counts, caption tags", f"{_DETECTION}.coco:prepare_coco"),
    "coco_small": (
        "one small training and validation set, of coco128, coco128_val and coco_more or of COCO 2017",
        f"{_DETECTION}.coco_small:prepare_coco_small",
    ),
    "coco_small_seg": (
        "semantic labels of 160 COCO photos: 133 classes, 26 of them withheld from training",
        f"{_SEGMENTATION}.remapped:prepare_coco_small_seg",
    ),
    "coco_stuff": (
        "labels of COCO-Stuff: 171 classes, and the 156 base classes for training",
        f"{_SEGMENTATION}.remapped:prepare_coco_stuff",
    ),
    "imagenet21k": (
        "shards of a few photos of each class of ImageNet-21K, to learn prompts with",
        "prompt_core.data.write_shards:prepare_shards",
    ),
    "imagenet_21k": (
        "the list of all ImageNet-21K photos, in LVIS's classes and 20,844 behind them",
        f"{_DETECTION}.imagenet_21k:prepare_imagenet_21k",
    ),
    "imagenet_lvis": (
        "the list of ImageNet-21K photos of LVIS classes, for training on image labels",
        f"{_DETECTION}.imagenet_lvis:prepare_imagenet_lvis",
    ),
    "lvis": ("LVIS v1 without rare classes, class counts, the mini validation set", f"{_DETECTION}.lvis:prepare_lvis"),
    "lvis_coco": (
        "LVIS v1's training boxes with those of COCO on the same photos",
        f"{_DETECTION}.lvis_coco:prepare_lvis_coco",
    ),
    "objects365": (
        "Objects365 v2 with corrected class names, without photos that do not exist",
        f"{_DETECTION}.objects365:prepare_objects365",
    ),
    "openimages": (
        "Open Images' boxes of 2019: the training ones, and the validation ones with those of the classes above",
        f"{_DETECTION}.openimages:prepare_openimages",
    ),
    "pcontext": ("labels of PASCAL-Context with 59 classes", f"{_SEGMENTATION}.pcontext:prepare_pcontext"),
    "semseg_samples": (
        "labels of a few photos of ADE20K (150 classes) and CamVid (11)",
        f"{_SEGMENTATION}.remapped:prepare_semseg_samples",
    ),
    "shapes_seg": (
        "classes of the generated scenes, and their labels without the novel classes",
        "pomp_lab.shapes.labels:prepare_shapes_seg",
    ),
    "voc_seg": (
        "labels of VOC 2012: 20 classes, and the 15 base classes for training",
        f"{_SEGMENTATION}.remapped:prepare_voc_seg",
    ),
}


def make_parser() -> ArgumentParser:
    """One subcommand for each data set."""
    names = "\n".join(f"  {name:<16}{product}" for name, (product, _) in PREPARATIONS.items())
    parser = ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"data sets:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = parser.add_subparsers(dest="name", metavar="NAME", required=True, help="one of the data sets below")
    for name, (product, _) in PREPARATIONS.items():
        options = choices.add_parser(name, description=f"Make {product}.")
        if name != "imagenet21k":
            options.add_argument("--root", metavar="DIR", help="data root (default: POMP_DATA, else datasets)")
        options.add_argument("--overwrite", action="store_true", help="replace files that were made differently")
        add = partial(options.add_argument, metavar="FILE")
        if name == "ade20k_full":
            add("--classes", type=Path, help="JSON with names and ADE20K's numbers (ids), in the wanted order")
        if name == "coco_small":
            add(
                "--from-coco",
                type=Path,
                metavar="DIR",
                help="take the same photos out of COCO 2017: DIR has annotations, train2017 and val2017",
            )
        if name == "imagenet21k":
            _add_shard_options(options)
        if name in ("imagenet_lvis", "imagenet_21k"):
            add("--photos", type=Path, metavar="DIR", help="folder with WNID/ or WNID.tar")
            add("--workers", type=whole_number(COUNT), default=8, metavar="N", help="threads that read photo headers")
        if name == "imagenet_lvis":
            add("--wnids", help="take only the WordNet ids listed here, one per line")
            add("--wordnet", help="index.noun of WordNet 3.0 to derive the mapping from (default: packaged mapping)")
            add("--mapping", help='another mapping of WordNet ids to synsets, lines "n02084071 dog.n.01"')
    return parser


def _add_shard_options(options: argparse.ArgumentParser) -> None:
    add = options.add_argument
    add("--from", dest="source", required=True, metavar="PATH", help="folder, archive or pattern, as imagenet21k:PATH")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the shards")
    add("--split", choices=("train", "val"), default="train", help="train (default) or val")
    add(
        "--shots",
        type=whole_number(COUNT_OR_ALL),
        default=16,
        metavar="N",
        help="photos of each class (default: 16; -1: all)",
    )
    add("--seed", type=whole_number(SEED), default=42, metavar="N", help="of the choice (default: 42, as SEED)")
    add("--shard-bytes", type=whole_number(COUNT), default=1 << 30, metavar="N", help="at most (default: 1 GiB)")
    add("--workers", type=whole_number(COUNT), default=8, metavar="N", help="threads that decode (default: 8)")


def prepare(values: argparse.Namespace) -> tuple[Mapping[Path, Any], list[str]]:
    """What was done for each file, and notes on it.

    Raises:
        UserError: when a source is absent or damaged, or a file of other content is there.
    """
    module, _, function = PREPARATIONS[values.name][1].partition(":")
    make = getattr(import_module(module), function)
    if values.name == "imagenet21k":
        options = {
            key: getattr(values, key) for key in ("split", "shots", "seed", "shard_bytes", "workers", "overwrite")
        }
        return make(values.source, values.output, import_module(module).ShardOptions(**options))
    root, overwrite = data_root(values.root), values.overwrite
    if values.name == "ade20k_full":
        made = make(root, classes=values.classes, overwrite=overwrite)
        listed = next(path for path in made if path.suffix == ".json")
        count, published = len(read_json(listed)["names"]), import_module(module).PUBLISHED_CLASSES
        text = f"{listed} has {count:,} classes; published numbers are of {published}"
        return made, [text] if count != published else []
    if values.name == "coco_small":
        return make(root, overwrite, coco=values.from_coco), []
    if values.name == "objects365":
        made, missing = make(root, overwrite)
        text = f"{len(missing)} training photos do not exist and were left out, the first is {next(iter(missing), '')}"
        return made, [text] if missing else []
    if values.name in ("cc3m", "openimages"):
        made, problems = make(root, overwrite)
        return made, problems.lines()
    if values.name == "imagenet_21k":
        made, absent, problems = make(root, values.photos, overwrite, max(1, values.workers))
        return made, [*_absent_classes(absent), *problems.lines()]
    if values.name == "imagenet_lvis":
        path, outcome, absent, problems = make(root, overwrite=overwrite, **_imagenet_lvis_options(values))
        return {path: outcome}, [*_absent_classes(absent), *problems.lines()]
    return make(root, overwrite), []


def _absent_classes(absent: list[str]) -> list[str]:
    first = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
    return [f"{len(absent)} classes have no photos there: {first}"] if absent else []


def _imagenet_lvis_options(values: argparse.Namespace) -> dict[str, Any]:
    from pomp_det.data.wordnet import read_mapping, read_noun_index, read_wnids, wnids_of_synsets
    from prompt_core.vocabulary import Vocabulary

    if values.wordnet and values.mapping:
        raise UserError("give --wordnet or --mapping, not both")
    mapping = read_mapping(values.mapping) if values.mapping else None
    if values.wordnet:
        mapping = wnids_of_synsets(Vocabulary.load("lvis").synsets or [], read_noun_index(values.wordnet))
    only = read_wnids(values.wnids) if values.wnids else None
    return {"folder": values.photos, "mapping": mapping, "only": only, "workers": max(1, values.workers)}


def main(arguments: list[str] | None = None) -> None:
    """Prepare one data set, and print what was done."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else ""
    if name and not name.startswith("-") and name not in PREPARATIONS:
        known = ", ".join(PREPARATIONS)
        raise UserError(f"{name!r} is not a data set to prepare{nearest(name, PREPARATIONS)}; expected {known}")
    made, notes = prepare(make_parser().parse_args(arguments))
    for path, outcome in made.items():
        say(f"{path}: {outcome}")
    for note in notes:
        say(note)


if __name__ == "__main__":
    run_command(main)
