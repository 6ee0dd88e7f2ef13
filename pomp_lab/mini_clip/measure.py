"""Zero-shot accuracy of built models under hand-written and random prompts: the numbers of the model card."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from pomp_lab.mini_clip.text_templates import UNSEEN_TEMPLATES, training_templates
from pomp_lab.runs import Document
from pomp_lab.tables.data_folders import NOVEL_CLASSES, SPLIT_SEED, base_novel_classes, photo_half
from pomp_lab.tables.scored_sets import Question, Target
from pomp_lab.tables.scoring import score_target
from prompt_core.clip import Clip, load_clip
from prompt_core.command_line import counting
from prompt_core.data.images import ImageSet
from prompt_core.data.readers.imagenet import tiny_imagenet
from prompt_core.data.readers.table import photo_list
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import sha256_of_file
from prompt_core.methods.base import Method
from prompt_core.methods.soft_prompt import SoftPromptMethod
from prompt_core.methods.templates import TemplateMethod
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from rich.table import Table

VARIANTS = ("mini", "mini_holdout")
RANDOM_VECTORS, RANDOM_SEEDS = 16, range(5)
Subject = SoftPrompt | Sequence[str]


def card_prompts(width: int) -> dict[str, list[Subject]]:
    """Rows of the table: a label, and the prompts or template lists whose accuracies are averaged in that row."""
    rows: dict[str, list[Subject]] = {
        "{}": [["{}"]],
        "a photo of a {}.": [["a photo of a {}."]],
        "ensemble of trained templates": [training_templates()],
        f"templates never trained (mean of {len(UNSEEN_TEMPLATES)})": [[template] for template in UNSEEN_TEMPLATES],
    }
    for std in (0.02, 0.05):
        label = f"{RANDOM_VECTORS} random vectors, std {std} (mean of {len(RANDOM_SEEDS)})"
        rows[label] = [SoftPrompt.random(width, RANDOM_VECTORS, std=std, seed=seed) for seed in RANDOM_SEEDS]
    return rows


def held_out_classes(weights: Path) -> list[str]:
    """Ids of the ImageNet-1K classes that a build kept out, from the metadata of its file.

    Raises:
        UserError: when they are not recorded.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "pt") as file:
            return list(json.loads(file.metadata()["build"])["held_out"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{weights} does not say which classes were held out ({error}); build it again") from error


def card_targets(
    tiny: ImageSet,
    photos: ImageSet | None,
    held_out: Sequence[str],
    regions: Mapping[str, ImageSet] = MappingProxyType({}),
) -> list[Target]:
    """What is scored: Tiny-ImageNet among all, base and novel classes, photos among the 1,000 of ImageNet, and regions
    among their own names.

    Args:
        held_out: ids of the classes that the build did not see; they and the seen ones get separate columns.

    Raises:
        UserError: when a photo's class is not in ImageNet-1K.
    """
    everything = np.arange(len(tiny.names))
    base, novel = base_novel_classes(len(everything), NOVEL_CLASSES, SPLIT_SEED)
    groups = {"tiny": everything, "base": base, "novel": novel}
    targets = [_target("tiny_imagenet", tiny, Vocabulary(tiny.names), everything, groups)]
    if photos is not None:
        wide = Vocabulary.load("imagenet1k")
        place = {identity: row for row, identity in enumerate(wide.ids or [])}
        if unknown := [identity for identity in photos.ids if identity not in place]:
            message = f"{photos.source}: class {unknown[0]!r} is not in ImageNet-1K; expected wnids of its classes"
            raise UserError(message)
        groups = {"photos": np.arange(len(wide))}
        if held_out:
            out = np.array(sorted(place[identity] for identity in held_out))
            groups |= {"held-out": out, "seen": np.setdiff1d(groups["photos"], out)}
        rows = np.array([place[identity] for identity in photos.ids])
        targets.append(_target("imagenet_samples", photos, Vocabulary(wide.names), rows, groups))
    for kind, crops in regions.items():
        every = np.arange(len(crops.names))
        targets.append(_target(kind.replace(" ", "_"), crops, Vocabulary(crops.names), every, {kind: every}))
    return targets


def _target(
    name: str, images: ImageSet, names: Vocabulary, rows: np.ndarray, groups: Mapping[str, np.ndarray]
) -> Target:
    """A column for each group of rows of ``names`` that has images: the images of these classes among these classes."""
    questions = []
    for group, candidates in groups.items():
        asked = np.flatnonzero(np.isin(rows, candidates))
        if np.isin(images.labels, asked).any():
            questions.append(Question(f"{group} {len(candidates)}", asked, candidates))
    return Target(name, name, "val", images, names, rows, tuple(questions))


def measure(
    clip: Clip, targets: Sequence[Target], prompts: Mapping[str, Sequence[Subject]], cache: Path
) -> dict[str, dict[str, float]]:
    """Top-1 in percent of each row of ``prompts`` in each column; classes that share a name count as one."""
    encoder = PromptedTextEncoder(clip)
    results: dict[str, dict[str, float]] = {}
    for label, subjects in prompts.items():
        accuracies: dict[str, list[float]] = {}
        for subject, target in itertools.product(subjects, targets):
            method: Method = (
                SoftPromptMethod.around(encoder, subject)
                if isinstance(subject, SoftPrompt)
                else TemplateMethod(clip, "ensemble", templates=subject)
            )
            with counting(f"encoding {target.name}") as progress:
                numbers = score_target(method, target, True, cache, progress=progress).numbers
            for question in target.questions:
                accuracies.setdefault(question.dataset, []).append(numbers[f"{question.dataset}/top1"])
        results[label] = {column: float(np.mean(values)) for column, values in accuracies.items()}
    return results


def evaluate(
    folder: Path,
    tiny_root: Path,
    photos_root: Path | None,
    half: str,
    cache: Path,
    regions: Mapping[str, ImageSet] = MappingProxyType({}),
) -> dict[str, dict[str, Document]]:
    """Measure every variant found in ``folder``.

    Args:
        tiny_root: Tiny-ImageNet in its standard layout.
        photos_root: folder with ``labels.csv`` of photos of ImageNet-1K classes, or None.
        half: ``tune`` or ``report``, which half of the photos to score; numbers to publish are from the second.
        cache: folder of image features.
        regions: crops of boxes, each kind scored among its class names.

    Returns:
        variant → prompt → ``metrics.json`` document with one data set for each column.

    Raises:
        UserError: when there is no model, or the images do not fit.
    """
    built = [name for name in VARIANTS if (folder / f"{name}.safetensors").is_file()]
    if not built:
        raise UserError(f"no {' or '.join(f'{name}.safetensors' for name in VARIANTS)} in {folder}; build one first")
    tiny = photo_half(tiny_imagenet(tiny_root, "val"), half)
    photos = photo_half(photo_list(photos_root), half) if photos_root is not None else None
    crops = {kind: photo_half(shown, half) for kind, shown in regions.items()}
    documents: dict[str, dict[str, Document]] = {}
    for name in built:
        weights = folder / f"{name}.safetensors"
        clip = load_clip(folder / f"{name}.json", weights)
        targets = card_targets(tiny, photos, held_out_classes(weights), crops)
        protocol = {
            question.dataset: {
                "images": len(target.images_of(question)),
                "candidates": len(question.candidates),
                "half": half,
            }
            for target in targets
            for question in target.questions
        }
        about = {**run_description(), "clip": name, "weights_sha256": sha256_of_file(weights)}
        documents[name] = {}
        prompts = card_prompts(PromptedTextEncoder(clip).tower.width)
        for prompt, top1 in measure(clip, targets, prompts, cache).items():
            hand = {} if "random vectors" in prompt else {"hand_prompt": True}
            run = {"row": f"{name}: {prompt}", **about, "prompt": prompt, **hand}
            numbers = {f"{column}/top1": value for column, value in top1.items()}
            documents[name][prompt] = {**numbers, "_run": run, "_protocol": protocol}
    return documents


def result_tables(documents: Mapping[str, Mapping[str, Document]], half: str) -> list[Table]:
    """What :func:`evaluate` returns, as one table for each model."""
    from rich.table import Table

    tables = []
    for name, prompts in documents.items():
        table = Table(title=f"{name}: zero-shot top-1 %, {half} half", title_justify="left")
        table.add_column("prompt")
        columns = next(iter(prompts.values()))["_protocol"]
        for column in columns:
            table.add_column(column, justify="right")
        for prompt, document in prompts.items():
            table.add_row(prompt, *(f"{document[f'{column}/top1']:.1f}" for column in columns))
        tables.append(table)
    return tables
