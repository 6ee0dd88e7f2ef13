"""Learn a prompt on embeddings of image regions: DetPro's, one for each grade of IoU, or PromptDet's, without grades.

    python tools/learn_region_prompt.py --config configs/detection/lvis_base_boxes_detpro.yaml --method detpro \\
        --dataset lvis_v1_train_norare --regions runs/regions/lvis_base --output runs/detpro

The embeddings are those of tools/embed_regions.py, the CLIP is MODEL.DISTILLATION_CLIP, and the classes learned on are
those that the data set annotates. --output gets a prompt for each grade (prompt_0.5.safetensors, …), ordinary files for
every --prompt, and classifier.safetensors, the mean over them, for MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH: of all
classes of the data set, or of --vocabulary. Prompts that are there are not learned again. With --descriptions (a table
of name and description, or PromptDet's file) names are read as "name, which is description".
"""

import argparse
from pathlib import Path
from typing import Any

from prompt_core.command_line import ArgumentParser, parse_with_overrides
from prompt_core.errors import UserError, run_command
from prompt_core.visible import say, visible_path


def main() -> None:
    """Parse, learn what is missing, write the classifier."""
    arguments = parse()
    import logging

    from pomp_det import load_config
    from pomp_det.region_prompts.regional_prompt import GRADES, REGIONAL, RegionPromptOptions, ensemble_classifier

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cfg = load_config(arguments.config, arguments.overrides)
    method: dict[str, Any] = {
        "detpro": {"options": RegionPromptOptions(seed=max(cfg.SEED, 0)), "grades": GRADES},
        "promptdet": {"options": REGIONAL, "grades": ((0.5, 1.1),)},
    }[arguments.method]
    clip, names, texts, prompts = learn(arguments, cfg, **method)
    path = arguments.output / "classifier.safetensors"
    ensemble_classifier(clip, texts, prompts, names).save(path)
    say(f"{visible_path(path)}: {len(names)} classes, the mean over {len(prompts)} prompts")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="a detector's configuration")
    parser.add_argument("--method", required=True, choices=("detpro", "promptdet"))
    parser.add_argument("--dataset", required=True, help="a data set with boxes, also one of DATASETS.FILES")
    parser.add_argument("--regions", required=True, type=Path, metavar="DIR", help="what tools/embed_regions.py wrote")
    parser.add_argument("--descriptions", type=Path, metavar="FILE", help="what each class is")
    parser.add_argument("--vocabulary", default="", help="classes of the classifier (default: the data set's)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where prompts and classifier go")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="settings, such as MODEL.DISTILLATION_CLIP.NAME mini"
    )
    return parse_with_overrides(parser)


def learn(arguments: argparse.Namespace, cfg: Any, options: Any, grades: Any) -> tuple[Any, list[str], Any, list[Any]]:
    """The CLIP, the names of the classifier and what is encoded of them, and the prompt of each grade."""
    from detectron2.data import DatasetCatalog

    from pomp_det.checks import register_configured
    from pomp_det.data.region_cache import RegionCache
    from pomp_det.data.registration import dataset_vocabulary, registered_metadata
    from pomp_det.region_prompts.descriptions import described, read_descriptions
    from pomp_det.region_prompts.labelled_regions import read_labelled_regions
    from pomp_det.region_prompts.regional_prompt import learn_region_prompt
    from prompt_core.clip import load_clip
    from prompt_core.files import make_output_folder
    from prompt_core.prompt import SoftPrompt
    from prompt_core.vocabulary import read_vocabulary

    register_configured(cfg)
    registered_metadata(arguments.dataset)
    vocabulary = dataset_vocabulary(arguments.dataset)
    node = cfg.MODEL.DISTILLATION_CLIP
    clip = load_clip(node.NAME, node.PRETRAINED or None, cfg.MODEL.DEVICE)
    cache = RegionCache(arguments.regions)
    if cache.made.get("clip") not in (None, node.NAME):
        raise UserError(
            f"{arguments.regions} was made with {cache.made['clip']}, MODEL.DISTILLATION_CLIP is {node.NAME}; set it "
            "alike"
        )
    regions, names = read_labelled_regions(cache, DatasetCatalog.get(arguments.dataset), vocabulary.names)
    wanted = read_vocabulary(arguments.vocabulary) if arguments.vocabulary else vocabulary
    texts: Any = wanted
    if arguments.descriptions:
        known = read_descriptions(arguments.descriptions)
        names, texts = described(names, known), described(wanted.names, known)
    make_output_folder(arguments.output)
    prompts = []
    for grade in grades:
        path = arguments.output / f"prompt_{grade[0]}.safetensors"
        if not path.is_file():
            learned = learn_region_prompt(clip, names, regions, grade, options)
            learned.save(path, method=arguments.method, dataset=arguments.dataset)
            say(f"{visible_path(path)}: {len(names)} classes, IoU {grade[0]} to {min(grade[1], 1)}")
        prompts.append(SoftPrompt.load(path))
    return clip, list(wanted.names), texts, prompts


if __name__ == "__main__":
    run_command(main)
