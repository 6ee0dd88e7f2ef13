"""The pre-training recipe, top to bottom: data, prompt, loop, files."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prompt_core.command_line import counting, load_model
from prompt_core.config import correction_of, one_of
from prompt_core.encoder import PromptedTextEncoder
from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, write_text
from prompt_core.prompt import SoftPrompt
from prompt_core.run_files import package_versions, run_description, write_metrics
from prompt_core.sampling import ClassSampler, HardSampler, UniformSampler, WeightedSampler
from prompt_core.stopping import asked_to_stop
from prompt_core.training import LearningSettings, LearningState, StepReport, learn_prompt
from prompt_core.training_data import TrainingData, load_training_data
from prompt_core.training_state import load_state, save_state

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip

INTERRUPTED = 130


def pretrain(cfg: CfgNode, output: str | Path, resume: bool = False) -> int:
    """Learn the prompt that ``cfg`` describes; returns the exit code (0, or 130 when Ctrl-C stopped it).

    Raises:
        UserError: for bad input, and for a folder that already holds a run unless ``resume``.
    """
    folder = make_output_folder(output)
    state_file = folder / "state.pt"
    if state_file.exists() and not resume:
        raise UserError(f"{folder} already holds a run; add --resume to go on with it, or choose another --output")
    if resume and not state_file.exists():
        raise UserError(f"{folder} holds no state.pt to resume from; check --output, or start without --resume")
    clip = load_model(cfg)
    encoder = PromptedTextEncoder(clip)
    settings = learning_settings(cfg)
    with counting("encoding images") as progress:
        data = load_training_data(cfg, clip, progress)
    prompt = initial_prompt(cfg, clip, len(data.vocabulary)).to(clip.device)
    identity = _identity(settings, cfg, clip, data)
    state = load_state(state_file, prompt, identity) if resume else LearningState()
    sampler = make_sampler(cfg, data)
    finished = _run(encoder, prompt, data, settings, sampler, state, folder, cfg, identity)
    if not finished:
        print(f"stopped at epoch {state.epoch + 1}, step {state.step}; go on with --resume")
        return INTERRUPTED
    _write_results(folder, cfg, clip, prompt, data, settings, state)
    print(f"prompt written to {folder / 'prompt.safetensors'}")
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


def initial_prompt(cfg: CfgNode, clip: Clip, num_classes: int) -> SoftPrompt:
    """Random vectors, or the embeddings of words."""
    if cfg.PROMPT.INIT:
        if cfg.PROMPT.CLASS_SPECIFIC:
            raise UserError("PROMPT.INIT goes with a shared context; leave it empty or PROMPT.CLASS_SPECIFIC False")
        return SoftPrompt.from_words(clip, cfg.PROMPT.INIT, cfg.PROMPT.POSITION)
    width = PromptedTextEncoder(clip).tower.width
    count = num_classes if cfg.PROMPT.CLASS_SPECIFIC else None
    return SoftPrompt.random(width, cfg.PROMPT.N_CTX, cfg.PROMPT.POSITION, count, seed=cfg.SEED)


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


def _run(
    encoder: PromptedTextEncoder,
    prompt: SoftPrompt,
    data: TrainingData,
    settings: LearningSettings,
    sampler: ClassSampler,
    state: LearningState,
    folder: Path,
    cfg: CfgNode,
    identity: dict[str, Any],
) -> bool:
    """Drive the loop: progress, TensorBoard, log, checkpoints, Ctrl-C. Returns whether all epochs are done."""
    saved_at = time.monotonic()
    with asked_to_stop() as asked, _display(settings, state) as show, _tensorboard(cfg, folder) as board:
        reports = learn_prompt(
            encoder, prompt, data.vocabulary, data.features, data.labels, settings, sampler, state, lambda: bool(asked)
        )
        for report in reports:
            show(report)
            if board is not None:
                total = report.epoch * report.steps_per_epoch + report.step
                board.add_scalar("train/loss", report.loss, total)
                board.add_scalar("train/accuracy", report.accuracy, total)
                board.add_scalar("train/learning_rate", report.learning_rate, total)
            if report.epoch_done or time.monotonic() - saved_at > 60 * cfg.LOG.CHECKPOINT_MINUTES:
                save_state(folder / "state.pt", state, prompt, identity)
                lines = [json.dumps({"epoch": epoch + 1, **entry}) for epoch, entry in enumerate(state.history)]
                write_text(folder / "log.jsonl", "".join(line + "\n" for line in lines))
                saved_at = time.monotonic()
    finished = state.epoch >= settings.epochs
    if not finished:
        save_state(folder / "state.pt", state, prompt, identity)
    return finished


@contextmanager
def _display(settings: LearningSettings, state: LearningState) -> Iterator[Any]:
    """Progress with loss, accuracy, images per second and remaining time; one line per epoch without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.3f}"),
        TextColumn("{task.fields[speed]:.0f} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, epoch=state.epoch + 1, loss=0.0, accuracy=0.0, speed=0.0)
        started, images = time.monotonic(), 0

        def show(report: StepReport) -> None:
            nonlocal images
            images += report.images
            speed = images / max(time.monotonic() - started, 1e-9)
            progress.update(
                task,
                total=report.steps_per_epoch * settings.epochs,
                completed=report.epoch * report.steps_per_epoch + report.step,
                epoch=f"{report.epoch + 1}/{settings.epochs}",
                loss=report.loss,
                accuracy=report.accuracy,
                speed=speed,
            )
            if report.epoch_done and not console.is_terminal:
                console.print(
                    f"epoch {report.epoch + 1}/{settings.epochs}  loss {report.loss:.4f}  "
                    f"accuracy {report.accuracy:.4f}  {speed:.0f} images/s",
                    highlight=False,
                )

        yield show


@contextmanager
def _tensorboard(cfg: CfgNode, folder: Path) -> Iterator[Any]:
    if not cfg.LOG.TENSORBOARD:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    try:
        yield writer
    finally:
        writer.close()


def _identity(settings: LearningSettings, cfg: CfgNode, clip: Clip, data: TrainingData) -> dict[str, Any]:
    """What decides the result; a resumed run must agree in all of it."""
    return {
        **dataclasses.asdict(settings),
        "sampler": cfg.LOSS.SAMPLER,
        "init": cfg.PROMPT.INIT,
        "n_ctx": cfg.PROMPT.N_CTX,
        "position": cfg.PROMPT.POSITION,
        "class_specific": cfg.PROMPT.CLASS_SPECIFIC,
        "clip": clip.fingerprint,
        "vocabulary": data.vocabulary.sha256,
        "images": len(data.features),
        "stored_views": int(data.features.shape[1]),
    }


def _write_results(
    folder: Path,
    cfg: CfgNode,
    clip: Clip,
    prompt: SoftPrompt,
    data: TrainingData,
    settings: LearningSettings,
    state: LearningState,
) -> None:
    last = state.history[-1] if state.history else {"loss": float("nan"), "accuracy": float("nan")}
    metrics = {"train/loss": last["loss"], "train/accuracy": last["accuracy"]}
    prompt.save(
        folder / "prompt.safetensors",
        clip=clip.name,
        pretrained=Path(clip.pretrained).name if clip.pretrained else None,
        clip_sha256=clip.fingerprint,
        method="POMP" if settings.num_classes else "full softmax",
        K=settings.num_classes,
        correction=settings.correction,
        reject=settings.reject,
        vocabulary={
            "source": data.vocabulary.source,
            "size": len(data.vocabulary),
            "sha256": data.vocabulary.sha256,
        },
        training={**dataclasses.asdict(settings), "images": len(data.features), "source": data.source},
        metrics=metrics,
        versions=package_versions(),
    )
    run = run_description(
        cfg.dump(),
        cfg.SEED,
        str(clip.device),
        unreadable=data.unreadable,
        history=state.history,
        images=len(data.features),
    )
    seen = min(settings.num_classes or len(data.vocabulary), len(data.vocabulary))
    protocol = {
        "train": {
            "metric": f"running mean over the last epoch, {seen} classes per step, augmented views",
            "vocabulary_sha256": data.vocabulary.sha256,
            "source": data.source,
        }
    }
    write_metrics(folder / "metrics.json", metrics, run, protocol)
