"""Learning without steps: a fit on all features, or nothing to learn at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from prompt_core.command_line import counting
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.splits import VALIDATION_SHOTS
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import package_versions
from prompt_core.methods.image_towers import image_tower
from prompt_core.methods.registry import build_method, method_class
from prompt_core.ranks.ranks import Ranks
from prompt_core.training.artifacts import METHOD_FILE, METRICS_FILE, write_fitted
from prompt_core.training.data import load_data, training_images
from prompt_core.training.selection import LAST
from prompt_core.training.step import LearningSettings
from prompt_core.visible import say
from prompt_core.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip


def check_at_once(cfg: CfgNode, folder: Path, resume: bool) -> None:
    """Raises UserError for a run that is there already, and for settings that need steps."""
    name = cfg.METHOD.NAME
    # The numbers of a fit come last: without them a killed run left the method, and the fit is done anew.
    last = METRICS_FILE if method_class(name).learned_by == "fit" else METHOD_FILE
    if not resume and (folder / METHOD_FILE).exists() and (folder / last).exists():
        raise UserError(f"{folder} already holds a run; choose another --output")
    if resume:
        raise UserError(f"method {name} is done at once, there is nothing to resume; leave --resume out")
    if cfg.SELECT_ON_TEST or cfg.SELECT.ON != LAST:
        raise UserError(f"method {name} has no epochs to choose from; leave SELECT.ON last")
    if cfg.LOSS.ANCHOR:
        raise UserError(f"method {name} learns no text that LOSS.ANCHOR could hold; leave LOSS.ANCHOR 0")


def fit(cfg: CfgNode, clip: Clip, settings: LearningSettings, folder: Path, resume: bool, ranks: Ranks) -> Path:
    """Fit at once, on all training images and a few of the validation split; the file of what is learned."""
    data = load_data(cfg, clip)
    method = build_method(cfg, clip, data.vocabulary)
    split = method.validation_split
    images = training_images(cfg, split, min(cfg.DATA.SHOTS, VALIDATION_SHOTS))  # -1 keeps all of both
    with counting("encoding validation images") as progress:
        cached = cached_features(image_tower(method), images, 0, None, cfg.SEED, cfg.DATA.CACHE, progress=progress)
    known, rows = vocabulary_of(images, cfg.DATA.VOCABULARY)
    if known.names != data.vocabulary.names:
        raise UserError(f"the classes of split {split!r} are not those of split {cfg.DATA.SPLIT!r}")
    generator = torch.Generator().manual_seed(cfg.SEED)
    features, labels = data.batches.batch(np.arange(len(data.batches)), 0, generator)
    validation = np.asarray(cached.features[:, 0], dtype=np.float32)
    result = method.fit(features.numpy(), labels.numpy(), validation, rows[cached.labels])
    return say_written(write_fitted(folder, cfg, method, data, result))


def learn_nothing(
    cfg: CfgNode, clip: Clip, settings: LearningSettings, folder: Path, resume: bool, ranks: Ranks
) -> Path:
    """The file of a method that is given by its settings alone."""
    file = folder / METHOD_FILE
    build_method(cfg, clip).save(file, versions=package_versions())
    say(f"method {cfg.METHOD.NAME} learns nothing; written to {file}")
    return file


def say_written(file: Path) -> Path:
    """Say where what is learned is, and give that file."""
    say(f"{file.stem} written to {file}")
    return file
