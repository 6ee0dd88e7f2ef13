"""The recipe of learning, top to bottom: a folder, the model, data, a method, the loop, files."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prompt_core.command_line import asked_to_stop, counting, load_model
from prompt_core.config import correction_of, one_of
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.splits import VALIDATION_SHOTS
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import package_versions
from prompt_core.files import make_output_folder, write_text
from prompt_core.methods.base import Method
from prompt_core.methods.image_towers import image_tower
from prompt_core.methods.registry import build_method, method_class
from prompt_core.negatives import ClassSampler, HardSampler, UniformSampler, WeightedSampler
from prompt_core.training.artifacts import (
    METHOD_FILE,
    STATE_FILE,
    load_state,
    save_state,
    write_fitted,
    write_learned,
)
from prompt_core.training.data import TrainingData, load_training_data, training_images
from prompt_core.training.display import display, tensorboard
from prompt_core.training.loop import LearningSettings, LearningState, learn
from prompt_core.training.selection import LAST, keep_best, open_selection
from prompt_core.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode


INTERRUPTED = 130


def pretrain(cfg: CfgNode, output: str | Path, resume: bool = False) -> int:
    """Learn what ``cfg`` describes; returns the exit code (0, or 130 when Ctrl-C stopped it).

    Raises:
        UserError: for bad input, and for a folder that already holds a run unless ``resume``.
    """
    name, kind = cfg.METHOD.NAME, method_class(cfg.METHOD.NAME)
    by_steps = kind.learned_by == "steps"
    folder = make_output_folder(output)
    state_file = folder / STATE_FILE
    if not resume and (state_file if by_steps else folder / METHOD_FILE).exists():
        raise UserError(f"{folder} already holds a run; add --resume to go on with it, or choose another --output")
    if resume and not by_steps:
        raise UserError(f"method {name} is done at once, there is nothing to resume; leave --resume out")
    if resume and not state_file.exists():
        raise UserError(f"{folder} holds no state.pt to resume from; check --output, or start without --resume")
    if not by_steps and (cfg.SELECT_ON_TEST or cfg.SELECT.ON != LAST):
        raise UserError(f"method {name} has no epochs to choose from; leave SELECT.ON last")
    settings = learning_settings(cfg)
    clip = load_model(cfg)
    if kind.learned_by == "nothing":
        build_method(cfg, clip).save(folder / METHOD_FILE, versions=package_versions())
        print(f"method {name} learns nothing; written to {folder / METHOD_FILE}")
        return 0
    # A model that does not go with the method is refused before images are read.
    if kind.reads == "images":
        build_method(cfg, clip)
    with counting("reading images" if kind.reads == "images" else "encoding images") as progress:
        data = load_training_data(cfg, clip, progress, kind.reads)
    method = build_method(cfg, clip, data.vocabulary)
    if kind.learned_by == "fit":
        file = fit(cfg, method, data, folder)
    else:
        learned = learn_by_steps(cfg, method, data, settings, folder, resume)
        if learned is None:
            return INTERRUPTED
        file = learned
    print(f"{file.stem} written to {file}")
    return 0


def learn_by_steps(
    cfg: CfgNode, method: Method, data: TrainingData, settings: LearningSettings, folder: Path, resume: bool
) -> Path | None:
    """Run the loop, with progress, TensorBoard, log and checkpoints; the file of what is learned, None after Ctrl-C."""
    state_file = folder / STATE_FILE
    selection = open_selection(cfg, method.bound_names is not None)
    decides = what_decides(settings, cfg, method, data)
    if selection is not None:
        decides["selection"] = selection.describe()
    state = load_state(state_file, method.state_module, decides) if resume else LearningState()
    saved_at = time.monotonic()
    with asked_to_stop() as asked, display(settings, state) as show, tensorboard(cfg, folder) as board:
        for report in learn(
            method,
            data.vocabulary,
            data.batches,
            settings,
            make_sampler(cfg, data),
            state,
            stop=lambda: bool(asked),
            clip_grad_norm=cfg.OPTIM.CLIP_GRAD_NORM or None,
        ):
            show(report)
            if board is not None:
                total = report.epoch * report.steps_per_epoch + report.step
                board.add_scalar("train/loss", report.loss, total)
                board.add_scalar("train/accuracy", report.accuracy, total)
                board.add_scalar("train/learning_rate", report.learning_rate, total)
            if report.epoch_done and selection is not None:
                keep_best(selection, method, state)
            if report.epoch_done or time.monotonic() - saved_at > 60 * cfg.LOG.CHECKPOINT_MINUTES:
                save_state(state_file, state, method.state_module, decides)
                lines = [json.dumps({"epoch": epoch + 1, **entry}) for epoch, entry in enumerate(state.history)]
                write_text(folder / "log.jsonl", "".join(line + "\n" for line in lines))
                saved_at = time.monotonic()
    if state.epoch < settings.epochs:
        save_state(state_file, state, method.state_module, decides)
        print(f"stopped at epoch {state.epoch + 1}, step {state.step}; go on with --resume")
        return None
    if state.best is not None:
        method.state_module.load_state_dict(state.best["learned"])
        print(f"epoch {state.best['epoch']} is kept: {100 * state.best['accuracy']:.1f} % of the images that choose")
    return write_learned(folder, cfg, method, data, settings, state, selection)


def fit(cfg: CfgNode, method: Method, data: TrainingData, folder: Path) -> Path:
    """Fit at once, on all training images and a few of the validation split; the file of what is learned."""
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
    return write_fitted(folder, cfg, method, data, result)


def learning_settings(cfg: CfgNode) -> LearningSettings:
    """The loop's settings from a configuration."""
    return LearningSettings(
        num_classes=cfg.LOSS.NUM_CLASSES,
        correction=correction_of(cfg),
        reject=one_of(cfg, "LOSS.REJECT", ("name", "id")),
        chunk_size=cfg.LOSS.CHUNK or None,
        epochs=cfg.OPTIM.EPOCHS,
        batch=cfg.OPTIM.BATCH,
        views=cfg.AUGMENT.VIEWS,
        learning_rate=cfg.OPTIM.LR,
        momentum=cfg.OPTIM.MOMENTUM,
        weight_decay=cfg.OPTIM.WEIGHT_DECAY,
        warmup_epochs=cfg.OPTIM.WARMUP_EPOCHS,
        warmup_learning_rate=cfg.OPTIM.WARMUP_LR,
        hard_refresh=cfg.LOSS.HARD_REFRESH,
        seed=cfg.SEED,
    )


def make_sampler(cfg: CfgNode, data: TrainingData) -> ClassSampler:
    """The sampler that ``LOSS.SAMPLER`` names."""
    kind = one_of(cfg, "LOSS.SAMPLER", ("uniform", "frequency", "hard"))
    count = len(data.vocabulary)
    if kind == "hard":
        return HardSampler(count)
    if kind == "frequency":
        # Classes without images keep one, so that every name can be a negative.
        images = torch.bincount(torch.from_numpy(data.labels), minlength=count)
        return WeightedSampler(images.clamp(min=1))
    return UniformSampler(count)


def what_decides(settings: LearningSettings, cfg: CfgNode, method: Method, data: TrainingData) -> dict[str, Any]:
    """All that decides the result; a resumed run must agree in all of it."""
    decides = {
        **dataclasses.asdict(settings),
        "sampler": cfg.LOSS.SAMPLER,
        "init": cfg.PROMPT.INIT,
        "n_ctx": cfg.PROMPT.N_CTX,
        "position": cfg.PROMPT.POSITION,
        "class_specific": cfg.PROMPT.CLASS_SPECIFIC,
        "clip": method.clip.fingerprint,
        "vocabulary": data.vocabulary.sha256,
        "images": len(data.batches),
        "stored_views": data.stored_views,
        **method.identity(),
    }
    if cfg.OPTIM.CLIP_GRAD_NORM:
        decides["clip_grad_norm"] = cfg.OPTIM.CLIP_GRAD_NORM
    if method.reads == "images":
        augment = cfg.AUGMENT
        decides["augment"] = [bool(augment.STORED_VIEWS), augment.RAND_AUGMENT, list(augment.SCALE), data.source]
    return decides
