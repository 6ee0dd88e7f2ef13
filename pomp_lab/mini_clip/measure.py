"""Zero-shot accuracy of built models under hand-written and random prompts: the numbers of the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pomp_lab.mini_clip.text_templates import UNSEEN_TEMPLATES, training_templates
from pomp_lab.runs import Document
from pomp_lab.tables.data_folders import NOVEL_CLASSES, SPLIT_SEED, base_novel_classes, photo_half
from prompt_core.classifier import TextClassifier
from prompt_core.clip import Clip, load_clip
from prompt_core.command_line import counting
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.images import ImageSet
from prompt_core.data.readers.imagenet import tiny_imagenet
from prompt_core.data.readers.table import photo_list
from prompt_core.errors import UserError
from prompt_core.evaluation.evaluate import TestSet, score_classes
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import sha256_of_file
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


def card_columns(
    clip: Clip, tiny: ImageSet, photos: ImageSet | None, held_out: Sequence[str], cache: Path
) -> tuple[Vocabulary, dict[str, TestSet]]:
    """Columns of the table: Tiny-ImageNet among all, base and novel classes, and photos among the 1,000 of ImageNet.

    Args:
        held_out: ids of the classes that the build did not see; they and the seen ones get separate columns.
        cache: folder of image features.

    Returns:
        the names of both data sets, those of Tiny-ImageNet first, and the columns over them.

    Raises:
        UserError: when a photo's class is not in ImageNet-1K.
    """
    count = len(tiny.names)
    everything = np.arange(count)
    base, novel = base_novel_classes(count, NOVEL_CLASSES, SPLIT_SEED)
    groups = {"tiny": everything, "base": base, "novel": novel}
    if photos is None:
        vocabulary = Vocabulary(tiny.names)
        return vocabulary, _columns(clip, tiny, vocabulary, everything, groups, cache)
    wide = Vocabulary.load("imagenet1k")
    place = {identity: row for row, identity in enumerate(wide.ids or [])}
    if unknown := [identity for identity in photos.ids if identity not in place]:
        raise UserError(f"{photos.source}: class {unknown[0]!r} is not in ImageNet-1K; expected wnids of its classes")
    vocabulary = Vocabulary([*tiny.names, *wide.names])
    columns = _columns(clip, tiny, vocabulary, everything, groups, cache)
    rows = count + np.array([place[identity] for identity in photos.ids])
    every_row = count + np.arange(len(wide))
    groups = {"photos": every_row}
    if held_out:
        out = count + np.array(sorted(place[identity] for identity in held_out))
        groups |= {"held-out": out, "seen": np.setdiff1d(every_row, out)}
    return vocabulary, columns | _columns(clip, photos, vocabulary, rows, groups, cache)


def _columns(
    clip: Clip,
    images: ImageSet,
    vocabulary: Vocabulary,
    rows: np.ndarray,
    groups: Mapping[str, np.ndarray],
    cache: Path,
) -> dict[str, TestSet]:
    """A column for each group of vocabulary rows: the images of these classes among these classes.

    Args:
        rows: row of ``vocabulary`` for each class of ``images``.
    """
    with counting(f"encoding {images.source}") as progress:
        cached = cached_features(clip, images, 0, None, 0, cache, progress=progress)
    everything = TestSet.from_cache(cached, images, vocabulary, rows)
    return {
        f"{name} {len(classes)}": everything.among(classes, shown)
        for name, classes in groups.items()
        if (shown := np.isin(everything.labels, classes)).any()
    }


def measure(
    encoder: PromptedTextEncoder,
    vocabulary: Vocabulary,
    columns: Mapping[str, TestSet],
    prompts: Mapping[str, Sequence[Subject]],
) -> dict[str, dict[str, float]]:
    """Top-1 in percent of each row of ``prompts`` in each column; classes that share a name count as one."""
    results: dict[str, dict[str, float]] = {}
    for label, subjects in prompts.items():
        right: dict[str, list[float]] = {name: [] for name in columns}
        for subject in subjects:
            features = TextClassifier.build(encoder.clip, vocabulary, subject, encoder=encoder).weight
            for name, column in columns.items():
                right[name].append(100 * score_classes(column, features[torch.from_numpy(column.rows)]).top1)
        results[label] = {name: float(np.mean(values)) for name, values in right.items()}
    return results


def evaluate(
    folder: Path, tiny_root: Path, photos_root: Path | None, half: str, cache: Path
) -> dict[str, dict[str, Document]]:
    """Measure every variant found in ``folder``.

    Args:
        tiny_root: Tiny-ImageNet in its standard layout.
        photos_root: folder with ``labels.csv`` of photos of ImageNet-1K classes, or None.
        half: ``tune`` or ``report``, which half of the photos to score; numbers to publish are from the second.
        cache: folder of image features.

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
    documents: dict[str, dict[str, Document]] = {}
    for name in built:
        weights = folder / f"{name}.safetensors"
        clip = load_clip(folder / f"{name}.json", weights)
        encoder = PromptedTextEncoder(clip)
        vocabulary, columns = card_columns(clip, tiny, photos, held_out_classes(weights), cache)
        protocol = {
            key: {"images": len(column.labels), "candidates": len(column.rows), "half": half}
            for key, column in columns.items()
        }
        about = {**run_description(), "clip": name, "weights_sha256": sha256_of_file(weights)}
        documents[name] = {}
        for prompt, top1 in measure(encoder, vocabulary, columns, card_prompts(encoder.tower.width)).items():
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
