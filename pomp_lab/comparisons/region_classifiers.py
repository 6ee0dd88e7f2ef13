"""Embeddings of regions of the generated scenes by a CLIP that knows shapes, and classifiers learned on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pomp_lab.shapes.facts import class_rows
from prompt_core.errors import UserError

REGIONS = 32  # proposals of a scene that are embedded
BASE_BOXES = "lvis_train_norare.json"
DETPRO, PROMPTDET = "DetPro", "PromptDet"


def embed_proposals(config: Path, settings: dict[str, Any], teacher: Path, folder: Path) -> None:
    """Embeddings of what a detector proposes in the training scenes.

    Args:
        teacher: weights by :mod:`pomp_lab.comparisons.fitted_clip`.
    """
    import pomp_det
    from pomp_det.checks import register_configured
    from pomp_det.proposals.own_proposals import OwnProposals

    cfg = pomp_det.load_config(config, settings)
    register_configured(cfg)
    boxes = next(entry for entry in cfg.DATASETS.FILES if Path(entry[1]).name == BASE_BOXES)
    _embed(folder, teacher, Path(boxes[1]), OwnProposals(cfg, REGIONS), {"limit": REGIONS})


def embed_boxes(annotations: Path, teacher: Path, folder: Path) -> None:
    """Embeddings of the boxes of the base classes.

    Args:
        annotations: the folder of the scenes' annotations.
        teacher: weights by :mod:`pomp_lab.comparisons.fitted_clip`.
    """
    from pomp_engine.data.proposal_files import ProposalFile

    truth = annotations / BASE_BOXES
    _embed(folder, teacher, truth, ProposalFile(truth), {"proposals": truth.name})


def _embed(folder: Path, teacher: Path, truth: Path, proposals: Any, made: dict[str, Any]) -> None:
    from pomp_det.clip_towers import RegionEmbedder
    from pomp_det.data.records import load_boxes
    from pomp_det.data.region_cache import write_region_cache
    from prompt_core.clip import load_clip

    records, _, _ = load_boxes(truth, truth.parent.parent / "scenes", None, federated=True)
    embedder = RegionEmbedder("mini", str(teacher), load_clip("mini").embed_dim)
    write_region_cache(folder, records, proposals, embedder, {"clip": "mini", "pretrained": teacher.name, **made})


def learn_region_classifier(method: str, regions: Path, teacher: Path, shapes: Path, seed: int, path: Path) -> None:
    """A classifier of all classes behind prompts that are learned on regions of the base classes.

    Args:
        method: :data:`DETPRO`, a prompt for each grade of IoU that some proposal reaches and their mean, or
            :data:`PROMPTDET`, one prompt for names with their descriptions.
        teacher: weights of the CLIP that made the embeddings.
    """
    from pomp_det.data.records import load_boxes
    from pomp_det.data.region_cache import RegionCache
    from pomp_det.region_prompts.descriptions import described
    from pomp_det.region_prompts.labelled_regions import read_labelled_regions
    from pomp_det.region_prompts.regional_prompt import (
        GRADES,
        REGIONAL,
        RegionPromptOptions,
        ensemble_classifier,
        learn_region_prompt,
    )
    from prompt_core.clip import load_clip
    from prompt_core.files import make_output_folder

    truth = shapes / "annotations" / BASE_BOXES
    records, classes, _ = load_boxes(truth, shapes / "scenes", None, federated=True)
    labelled, names = read_labelled_regions(RegionCache(regions), records, classes.names)
    clip = load_clip("mini", str(teacher))
    if method == DETPRO:
        options, texts, wanted = RegionPromptOptions(seed=seed), names, list(classes.names)
        grades = [grade for grade in GRADES if bool(labelled.of_grade(len(names), grade).any())]
    else:
        options, grades = replace(REGIONAL, seed=seed), [(GRADES[0][0], GRADES[-1][1])]
        known = descriptions(shapes)
        texts, wanted = described(names, known), described(classes.names, known)
    if not grades:
        raise UserError(f"no proposal in {regions} fits a box; train the detector that proposes them for longer")
    prompts = [learn_region_prompt(clip, texts, labelled, grade, options) for grade in grades]
    make_output_folder(path.parent)
    ensemble_classifier(clip, wanted, prompts, classes.names).save(path)


def descriptions(shapes: Path) -> dict[str, str]:
    """What each class is: its shape, then its colour and pattern."""
    return {row["name"]: f"a {row['shape']} in {row['colour']}, {row['pattern']}" for row in class_rows(shapes)}
