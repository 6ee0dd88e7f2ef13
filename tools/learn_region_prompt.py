"""Learn a prompt on embeddings of image regions: DetPro's, one for each grade of IoU, or PromptDet's, without grades.

    python tools/learn_region_prompt.py --config configs/detection/lvis_base_boxes_detpro.yaml --method detpro \\
        --dataset lvis_v1_train_norare --regions runs/regions/lvis_base --output runs/detpro

The embeddings are those of tools/embed_regions.py, the CLIP is MODEL.DISTILLATION_CLIP, and the classes learned on are
those that the data set annotates. --output gets a prompt for each grade (prompt_0.5.safetensors, …), ordinary files for
every --prompt, and classifier.safetensors, the mean over them, for MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH: of all
classes of the data set, or of --vocabulary. Prompts that are there are not learned again; those that were learned
otherwise are refused. With --descriptions (a table of name and description, or PromptDet's file) names are read as
"name, which is description"; --method hand reads them in "a photo of {}." and learns nothing.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from prompt_core.command_line import ArgumentParser, parse_with_overrides
from prompt_core.errors import UserError, run_command
from prompt_core.visible import say, visible_path

HAND = "a photo of {}."


def main() -> None:
    """Parse, learn what is missing, write the classifier."""
    arguments = parse()
    import logging

    import pomp_det
    from pomp_det.checks import register_configured
    from pomp_det.data.registration import dataset_vocabulary, registered_metadata
    from pomp_det.region_prompts.descriptions import described, read_descriptions
    from pomp_det.region_prompts.regional_prompt import ensemble_classifier
    from prompt_core.classifier import TextClassifier
    from prompt_core.clip import load_clip
    from prompt_core.files import make_output_folder
    from prompt_core.vocabulary import read_vocabulary

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cfg = pomp_det.load_config(arguments.config, arguments.overrides)
    register_configured(cfg)
    registered_metadata(arguments.dataset)
    known = read_descriptions(arguments.descriptions) if arguments.descriptions else None
    classes = dataset_vocabulary(arguments.dataset)
    wanted = read_vocabulary(arguments.vocabulary) if arguments.vocabulary else classes
    texts: Any = wanted if known is None else described(wanted.names, known)
    node = cfg.MODEL.DISTILLATION_CLIP
    clip = load_clip(node.NAME, node.PRETRAINED or None, cfg.MODEL.DEVICE)
    make_output_folder(arguments.output)
    if arguments.method == "hand":
        weight, how = TextClassifier.build(clip, texts, HAND), f"in {HAND!r}"
        classifier = TextClassifier(weight.weight, wanted.names, weight.metadata)
    else:
        prompts = learn(arguments, cfg, clip, list(classes.names), known)
        classifier, how = (
            ensemble_classifier(clip, texts, prompts, wanted.names),
            f"the mean over {len(prompts)} prompts",
        )
    path = arguments.output / "classifier.safetensors"
    classifier.save(path)
    say(f"{visible_path(path)}: {len(classifier.names)} classes, {how}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="a detector's configuration")
    parser.add_argument("--method", required=True, choices=("detpro", "promptdet", "hand"))
    parser.add_argument("--dataset", required=True, help="a data set with boxes, also one of DATASETS.FILES")
    parser.add_argument("--regions", type=Path, metavar="DIR", help="what tools/embed_regions.py wrote")
    parser.add_argument("--descriptions", type=Path, metavar="FILE", help="what each class is")
    parser.add_argument("--vocabulary", default="", help="classes of the classifier (default: the data set's)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where prompts and classifier go")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="settings, such as MODEL.DISTILLATION_CLIP.NAME mini"
    )
    arguments = parse_with_overrides(parser)
    if arguments.method != "hand" and arguments.regions is None:
        raise UserError("--regions is missing; tools/embed_regions.py makes them")
    return arguments


def learn(arguments: argparse.Namespace, cfg: Any, clip: Any, classes: list[str], known: Any) -> list[Any]:
    """The prompt of each grade, learned where its file is not there."""
    from detectron2.data import DatasetCatalog

    from pomp_det.data.region_cache import RegionCache
    from pomp_det.region_prompts.descriptions import described
    from pomp_det.region_prompts.labelled_regions import read_labelled_regions
    from pomp_det.region_prompts.regional_prompt import (
        GRADES,
        REGIONAL,
        RegionPromptOptions,
        check_learned_so,
        learn_region_prompt,
    )
    from prompt_core.prompt import SoftPrompt
    from prompt_core.vocabulary import Vocabulary

    cache = RegionCache(arguments.regions)
    node = cfg.MODEL.DISTILLATION_CLIP
    for key, value in (("clip", node.NAME), ("pretrained", Path(node.PRETRAINED).name)):
        if (other := cache.made.get(key, value)) != value:
            raise UserError(
                f"{visible_path(arguments.regions)} was made with {key} {other!r}, MODEL.DISTILLATION_CLIP has "
                f"{value!r}; set it alike"
            )
    regions, names = read_labelled_regions(cache, DatasetCatalog.get(arguments.dataset), classes)
    detpro = arguments.method == "detpro"
    options = replace(RegionPromptOptions() if detpro else REGIONAL, seed=max(cfg.SEED, 0))
    texts = names if known is None else described(names, known)
    made = {
        "method": arguments.method,
        "dataset": arguments.dataset,
        "texts_sha256": Vocabulary(texts).sha256,
        "seed": options.seed,
    }
    prompts = []
    for grade in GRADES if detpro else ((GRADES[0][0], GRADES[-1][1]),):
        path = arguments.output / f"prompt_{grade[0]}.safetensors"
        if not path.is_file():
            learn_region_prompt(clip, texts, regions, grade, options).save(path, **made)
            say(f"{visible_path(path)}: {len(names)} classes, IoU {grade[0]} to {min(grade[1], 1)}")
        prompts.append(SoftPrompt.load(path))
        check_learned_so(prompts[-1], path, made | {"clip_sha256": clip.fingerprint, "grade": list(grade)})
    return prompts


if __name__ == "__main__":
    run_command(main)
