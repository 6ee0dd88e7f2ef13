"""The recipe of learning, top to bottom: data, method, loop, files."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prompt_core.command_line import counting, load_model
from prompt_core.config import correction_of, one_of
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.splits import VALIDATION_SHOTS
from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import package_versions
from prompt_core.files import make_output_folder, write_text
from prompt_core.methods.base import Method
from prompt_core.methods.image_towers import tower_for
from prompt_core.methods.logistic_regression import LogisticRegression
from prompt_core.methods.registry import build_method, method_class
from prompt_core.methods.soft_prompt import SoftPromptMethod, initial_prompt
from prompt_core.negatives import ClassSampler, HardSampler, UniformSampler, WeightedSampler
from prompt_core.training.artifacts import METHOD_FILE, load_state, save_state, write_fitted, write_learned
from prompt_core.training.data import TrainingData, load_training_data, training_images
from prompt_core.training.display import display, tensorboard
from prompt_core.training.loop import LearningSettings, LearningState, learn
from prompt_core.training.selection import LAST, Selection, keep_best, open_selection
from prompt_core.training.stopping import asked_to_stop
from prompt_core.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode


INTERRUPTED = 130

__all__ = ["initial_prompt", "learning_settings", "make_sampler", "pretrain"]


def pretrain(cfg: CfgNode, output: str | Path, resume: bool = False) -> int:
    """Learn what ``cfg`` describes; returns the exit code (0, or 130 when Ctrl-C stopped it).

    Raises:
        UserError: for bad input, and for a folder that already holds a run unless ``resume``.
    """
    kind = method_class(cfg.METHOD.NAME)
    folder = make_output_folder(output)
    state_file = folder / "state.pt"
    done_at_once = kind.learned_by != "steps" and (folder / METHOD_FILE).exists()
    if (state_file.exists() or done_at_once) and not resume:
        raise UserError(f"{folder} already holds a run; add --resume to go on with it, or choose another --output")
    if resume and kind.learned_by != "steps":
        raise UserError(f"method {cfg.METHOD.NAME} is done at once, there is nothing to resume; leave --resume out")
    if resume and not state_file.exists():
        raise UserError(f"{folder} holds no state.pt to resume from; check --output, or start without --resume")
    settings = learning_settings(cfg)
    clip = load_model(cfg)
    if kind.learned_by != "steps" and (cfg.SELECT_ON_TEST or cfg.SELECT.ON != LAST):
        raise UserError(f"method {cfg.METHOD.NAME} has no epochs to choose from; leave SELECT.ON last")
    if kind.learned_by == "nothing":
        build_method(cfg, clip).save(folder / METHOD_FILE, versions=package_versions())
        print(f"method {cfg.METHOD.NAME} learns nothing; written to {folder / METHOD_FILE}")
        return 0
    # A model that does not go with the method is told before images are read.
    if kind.reads == "images":
        build_method(cfg, clip)
    with counting("reading images" if kind.reads == "images" else "encoding images") as progress:
        data = load_training_data(cfg, clip, progress, kind.reads)
    method = build_method(cfg, clip, data.vocabulary)
    if isinstance(method, LogisticRegression):
        return _fit(cfg, method, data, folder)
    selection = open_selection(cfg, method.bound_names is not None)
    identity = _identity(settings, cfg, method, data)
    if selection is not None:
        identity["selection"] = selection.describe()
    state = load_state(state_file, method.state_module, identity) if resume else LearningState()
    sampler = make_sampler(cfg, data)
    finished = _run(method, data, settings, sampler, selection, state, folder, cfg, identity)
    if not finished:
        print(f"stopped at epoch {state.epoch + 1}, step {state.step}; go on with --resume")
        return INTERRUPTED
    if state.best is not None:
        method.state_module.load_state_dict(state.best["learned"])
        print(f"epoch {state.best['epoch']} is kept: {100 * state.best['accuracy']:.1f} % of the images that choose")
    file = write_learned(folder, cfg, method, data, settings, state, selection)
    print(f"{'prompt' if isinstance(method, SoftPromptMethod) else 'method'} written to {file}")
    return 0


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


def _fit(cfg: CfgNode, method: LogisticRegression, data: TrainingData, folder: Path) -> int:
    """Fit at once, with C chosen on a few images of the validation split."""
    node = cfg.METHOD.LOGISTIC_REGRESSION
    shots = min(cfg.DATA.SHOTS, VALIDATION_SHOTS)  # -1 keeps all of both
    images = training_images(cfg, node.VAL_SPLIT, shots)
    with counting("encoding validation images") as progress:
        cached = cached_features(
            tower_for(method.reads, method.clip), images, 0, None, cfg.SEED, cfg.DATA.CACHE, progress=progress
        )
    known, rows = vocabulary_of(images, cfg.DATA.VOCABULARY)
    if known.names != data.vocabulary.names:
        raise UserError(f"the classes of split {node.VAL_SPLIT!r} are not those of split {cfg.DATA.SPLIT!r}")
    everything = np.arange(len(data.batches))
    features, labels = data.batches.batch(everything, 0, torch.Generator().manual_seed(cfg.SEED))
    found = method.fit(
        features.numpy(),
        labels.numpy(),
        np.asarray(cached.features[:, 0], dtype=np.float32),
        rows[cached.labels],
        node.HALVINGS,
        node.ITERATIONS,
        cfg.SEED,
        lambda strength, accuracy: print(f"C {strength:.3g}: {100 * accuracy:.1f} % of the validation images"),
    )
    print(f"method written to {write_fitted(folder, cfg, method, data, found)}")
    return 0


def _run(
    method: Method,
    data: TrainingData,
    settings: LearningSettings,
    sampler: ClassSampler,
    selection: Selection | None,
    state: LearningState,
    folder: Path,
    cfg: CfgNode,
    identity: dict[str, Any],
) -> bool:
    """Drive the loop: progress, TensorBoard, log, checkpoints, Ctrl-C. Returns whether all epochs are done."""
    saved_at = time.monotonic()
    learned = method.state_module
    with asked_to_stop() as asked, display(settings, state) as show, tensorboard(cfg, folder) as board:
        reports = learn(
            method,
            data.vocabulary,
            data.batches,
            settings,
            sampler,
            state,
            lambda: bool(asked),
            cfg.OPTIM.CLIP_GRAD_NORM or None,
        )
        for report in reports:
            show(report)
            if board is not None:
                total = report.epoch * report.steps_per_epoch + report.step
                board.add_scalar("train/loss", report.loss, total)
                board.add_scalar("train/accuracy", report.accuracy, total)
                board.add_scalar("train/learning_rate", report.learning_rate, total)
            if report.epoch_done and selection is not None:
                keep_best(selection, method, state)
            if report.epoch_done or time.monotonic() - saved_at > 60 * cfg.LOG.CHECKPOINT_MINUTES:
                save_state(folder / "state.pt", state, learned, identity)
                lines = [json.dumps({"epoch": epoch + 1, **entry}) for epoch, entry in enumerate(state.history)]
                write_text(folder / "log.jsonl", "".join(line + "\n" for line in lines))
                saved_at = time.monotonic()
    finished = state.epoch >= settings.epochs
    if not finished:
        save_state(folder / "state.pt", state, learned, identity)
    return finished


def _identity(settings: LearningSettings, cfg: CfgNode, method: Method, data: TrainingData) -> dict[str, Any]:
    """What decides the result; a resumed run must agree in all of it."""
    identity = {
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
    }
    if cfg.OPTIM.CLIP_GRAD_NORM:
        identity["clip_grad_norm"] = cfg.OPTIM.CLIP_GRAD_NORM
    if not isinstance(method, SoftPromptMethod):
        # Soft prompts are told by the keys above; states of before have no others.
        options = {key: value for key, value in method.options.items() if key != "names"}
        identity |= {"method": method.name, "options": options}
    if method.reads == "images":
        augment = cfg.AUGMENT
        identity["augment"] = [bool(augment.STORED_VIEWS), augment.RAND_AUGMENT, list(augment.SCALE), data.source]
    return identity
