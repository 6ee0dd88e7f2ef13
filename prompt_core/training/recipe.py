"""The recipe of learning, top to bottom: a folder, the model, data, a method, the loop, files."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prompt_core.clip import Clip
from prompt_core.command_line import asked_to_stop, load_model
from prompt_core.config import correction_of, one_of
from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, write_text
from prompt_core.hierarchy.not_negatives import BY_HIERARCHY
from prompt_core.methods.base import LearnedBy, Method
from prompt_core.methods.registry import build_method, method_class
from prompt_core.negatives import ClassSampler, HardSampler, UniformSampler, WeightedSampler
from prompt_core.ranks.ranks import ALONE, Ranks, check_same
from prompt_core.ranks.torchrun import INTERRUPTED
from prompt_core.runs.identity import identity_of
from prompt_core.runs.lock import alone_in
from prompt_core.training.anchor import Anchor, make_anchor
from prompt_core.training.artifacts import STATE_FILE, load_state, save_state, write_learned
from prompt_core.training.at_once import check_at_once, fit, learn_nothing, say_written
from prompt_core.training.data import TrainingData, load_data
from prompt_core.training.display import display, tensorboard
from prompt_core.training.loop import LearningState, learn
from prompt_core.training.selection import keep_best, open_selection
from prompt_core.training.step import DRAWS, LearningSettings
from prompt_core.training.warm_up import warm_up_alone
from prompt_core.visible import say

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode


# Settings that a resumed run may change: they change no result, or their content is in the identity. More epochs are
# not among them, since the cosine goes over all of them.
MAY_CHANGE = (
    "DEVICE",
    "OUTPUT",
    "MODEL.NAME",
    "MODEL.PRETRAINED",
    "DATA.TRAIN",
    "DATA.CLASSES",
    "DATA.VOCABULARY",
    "DATA.CACHE",
    "DATA.WORKERS",
    "DATA.ENCODE_BATCH",
    "LOSS.ANCHOR_VOCABULARY",
    "LOG.",
    "EVAL.",
    "RANKS.",
)


def pretrain(cfg: CfgNode, output: str | Path, resume: bool = False, ranks: Ranks = ALONE) -> int:
    """Learn what ``cfg`` describes; returns the exit code (0, or 130 when Ctrl-C stopped it).

    Args:
        ranks: the processes of a job. The one that leads holds the folder and writes; all of them need to see it.

    Raises:
        UserError: for bad input, for a folder that already holds a run unless ``resume``, or where one is going on.
    """
    kind = method_class(cfg.METHOD.NAME)
    learning = LEARNING[kind.learned_by]
    if ranks.size > 1 and learning is not LEARNING["steps"]:
        raise UserError(
            f"method {cfg.METHOD.NAME} is learned at once, by one process, and {ranks.size} were started; start one"
        )
    folder = Path(output)
    with ExitStack() as held:
        if ranks.leads:
            folder = make_output_folder(output)
            held.enter_context(alone_in(folder))
        ranks.wait()
        learning.check(cfg, folder, resume)
        settings = learning_settings(cfg)
        if learning is LEARNING["steps"] and (warning := warm_up_warning(settings)):
            say(f"warning: {warning}", error=True)
        clip = load_model(cfg)
        if ranks.size > 1:
            check_same(ranks, weights=clip.fingerprint)
        return INTERRUPTED if learning.learn(cfg, clip, settings, folder, resume, ranks) is None else 0


@dataclass(frozen=True)
class Learning:
    """A way to learn, which a method names by its ``learned_by``.

    Attributes:
        check: called with the configuration, the folder and whether to resume; raises before the model is loaded.
        learn: called with configuration, model, settings of the loop, folder, whether to resume, and the ranks; gives
            the file of what is learned, or None after Ctrl-C.
    """

    check: Callable[[CfgNode, Path, bool], None]
    learn: Callable[[CfgNode, Clip, LearningSettings, Path, bool, Ranks], Path | None]


def check_steps(cfg: CfgNode, folder: Path, resume: bool) -> None:
    """Raises UserError for a run that is there already, or one to resume that is not."""
    if not resume and (folder / STATE_FILE).exists():
        raise _already_there(folder)
    if resume and not (folder / STATE_FILE).exists():
        raise UserError(f"{folder} holds no state.pt to resume from; check --output, or start without --resume")


def _already_there(folder: Path) -> UserError:
    return UserError(f"{folder} already holds a run; add --resume to go on with it, or choose another --output")


def learn_by_steps(
    cfg: CfgNode, clip: Clip, settings: LearningSettings, folder: Path, resume: bool, ranks: Ranks
) -> Path | None:
    """Run the loop, with progress, TensorBoard, log and checkpoints; the file of what is learned, None after Ctrl-C."""
    data = load_data(cfg, clip, ranks)
    method = build_method(cfg, clip, data.vocabulary)
    state_file = folder / STATE_FILE
    selection = open_selection(cfg, method.bound_names is not None)
    anchor = make_anchor(cfg, method, data)
    decides = what_decides(settings, cfg, method, data, anchor)
    if selection is not None:
        decides["selection"] = selection.describe()
    identity = identity_of(cfg, MAY_CHANGE, training_data=data.content)
    state = load_state(state_file, method.state_module, decides, identity) if resume else LearningState()
    check_same(ranks, data=[decides["vocabulary"], data.content], state=[state.epoch, state.step])

    def save() -> None:
        if ranks.leads:
            save_state(state_file, state, method.state_module, decides, identity)
            write_log(folder, state)

    if resume and ranks.leads:
        write_log(folder, state)  # a kill may have come between the state and its log
    saved_at = time.monotonic()
    with (
        asked_to_stop() as asked,
        display(settings, state) as show,
        tensorboard(cfg, folder) if ranks.leads else nullcontext() as board,
    ):
        for report in learn(
            method,
            data.vocabulary,
            data.batches,
            settings,
            make_sampler(cfg, data),
            state,
            stop=lambda: bool(asked),
            clip_grad_norm=cfg.OPTIM.CLIP_GRAD_NORM or None,
            anchor=anchor,
            ranks=ranks,
        ):
            show(report)
            if board is not None and report.is_read:
                total = report.epoch * report.steps_per_epoch + report.step
                board.add_scalar("train/loss", report.loss, total)
                board.add_scalar("train/accuracy", report.accuracy, total)
                board.add_scalar("train/learning_rate", report.learning_rate, total)
            if report.epoch_done and selection is not None:
                keep_best(selection, method, state, ranks)
            if report.epoch_done or time.monotonic() - saved_at > 60 * cfg.LOG.CHECKPOINT_MINUTES:
                save()
                saved_at = time.monotonic()
    if state.epoch < settings.epochs:
        save()
        say(f"stopped at epoch {state.epoch + 1}, step {state.step}; continue with --resume")
        return None
    if state.best is not None:
        method.state_module.load_state_dict(state.best["learned"])
        say(f"epoch {state.best['epoch']} is kept: {100 * state.best['accuracy']:.1f} % of the images that choose")
    if not ranks.leads:
        return folder
    return say_written(write_learned(folder, cfg, method, data, settings, state, selection, anchor))


def write_log(folder: Path, state: LearningState) -> None:
    """Write ``log.jsonl``, a line for each epoch that is done."""
    lines = [json.dumps({"epoch": epoch + 1, **entry}) for epoch, entry in enumerate(state.history)]
    write_text(folder / "log.jsonl", "".join(line + "\n" for line in lines))


LEARNING: dict[LearnedBy, Learning] = {
    "steps": Learning(check_steps, learn_by_steps),
    "fit": Learning(check_at_once, fit),
    "nothing": Learning(check_at_once, learn_nothing),
}


def learning_settings(cfg: CfgNode) -> LearningSettings:
    """The settings of a step and of the loop from a configuration.

    Raises:
        UserError: a value that is not known, or groups of images that do not divide the batch.
    """
    draws, group = one_of(cfg, "LOSS.DRAWS", DRAWS), cfg.LOSS.GROUP
    if draws == "per_group" and (group < 1 or cfg.OPTIM.BATCH % group):
        raise UserError(f"LOSS.GROUP is {group}; expected a divisor of OPTIM.BATCH {cfg.OPTIM.BATCH}")
    return LearningSettings(
        num_classes=cfg.LOSS.NUM_CLASSES,
        correction=correction_of(cfg),
        reject=one_of(cfg, "LOSS.REJECT", ("name", "id", *BY_HIERARCHY)),
        draws=draws,
        group=group,
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


def warm_up_warning(settings: LearningSettings) -> str:
    """One line about a run whose warm-up takes all its epochs, empty for any other."""
    if settings.warmup_learning_rate >= settings.learning_rate:
        return ""
    return warm_up_alone(
        ("OPTIM.EPOCHS", settings.epochs),
        ("OPTIM.WARMUP_EPOCHS", settings.warmup_epochs),
        ("OPTIM.LR", settings.learning_rate),
    )


def make_sampler(cfg: CfgNode, data: TrainingData) -> ClassSampler:
    """The sampler that ``LOSS.SAMPLER`` names."""
    kind = one_of(cfg, "LOSS.SAMPLER", ("uniform", "frequency", "hard"))
    count = len(data.vocabulary)
    if kind == "hard":
        return HardSampler(count)
    if kind == "frequency":
        # Classes without images count as one image, so that every name can be a negative.
        images = torch.bincount(torch.from_numpy(data.labels), minlength=count)
        return WeightedSampler(images.clamp(min=1))
    return UniformSampler(count)


def what_decides(
    settings: LearningSettings, cfg: CfgNode, method: Method, data: TrainingData, anchor: Anchor | None = None
) -> dict[str, Any]:
    """Everything that affects the result; a resumed run must agree in all of it."""
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
    if anchor is not None:
        decides["anchor"] = anchor.describe()
    if settings.draws == "batch":  # all that older states know
        del decides["draws"], decides["group"]
    if method.reads == "images":
        augment = cfg.AUGMENT
        decides["augment"] = [bool(augment.STORED_VIEWS), augment.RAND_AUGMENT, list(augment.SCALE), data.source]
    return decides
