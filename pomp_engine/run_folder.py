"""The folder of a run: its configuration, logs and checkpoints."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from pomp_engine.yaml_files import read_yaml
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, write_text
from prompt_core.runs.identity import identity_of, refuse_other_run
from prompt_core.visible import show_record

CONFIG, LOG, LAST = "config.yaml", "log.jsonl", "last_checkpoint"
FINAL, ROLLING = "model_final", "model_last"  # checkpoints: of the finished run, and what an interrupted one resumes
LEARNED = ("prompt.safetensors", "method.safetensors")  # of runs of tools/pretrain_prompt.py
# Settings that a resumed run may change: they change no weights, or the content of their files is compared. So may
# whatever ends with _TEST. SOLVER.MAX_ITER may grow under a schedule whose earlier rates do not depend on it.
MAY_CHANGE = (
    "DATALOADER.NUM_WORKERS",
    "DATASETS.TEST",
    "DATASETS.FILES",
    "EVAL_AP_FIX",
    "MODEL.DEVICE",
    "OUTPUT_DIR",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.RESUME_PERIOD",
    "TEST.",
)
EXTENDABLE_SCHEDULES = ("WarmupMultiStepLR", "WarmupStepWithFixedGammaLR")

_logger = logging.getLogger(__name__)


def start_log(folder: str | Path, *packages: str) -> None:
    """Make the folder and write what Detectron2, the engine and ``packages`` log to its ``log.txt`` and the terminal.

    Raises:
        UserError: when the folder cannot be written.
    """
    folder = make_output_folder(folder)
    for name in ("detectron2", "fvcore", *packages, "pomp_engine", "prompt_core"):
        log = setup_logger(str(folder / "log.txt"), distributed_rank=comm.get_rank(), name=name, abbrev_name=name)
        # Detectron2's own records hold colours; names and paths from outside are in ours.
        for handler in log.handlers if name not in ("detectron2", "fvcore") else ():
            handler.addFilter(show_record)


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint of a run's folder; None where it has none."""
    folder = Path(folder)
    if (folder / LAST).is_file():
        return folder / (folder / LAST).read_text(encoding="utf-8").strip()
    return next((path for path in (folder / f"{name}.pth" for name in (FINAL, ROLLING)) if path.is_file()), None)


def weights_to_evaluate(cfg: CfgNode, learns: bool = True) -> str:
    """The newest checkpoint of the run in ``OUTPUT_DIR``, else ``MODEL.WEIGHTS``.

    Args:
        learns: whether the model has weights that learn; one that has none needs no checkpoint.

    Raises:
        UserError: when there is neither, without ``MODEL.RANDOM_WEIGHTS``.
    """
    newest = newest_checkpoint(cfg.OUTPUT_DIR)
    if newest is not None:
        _logger.info("evaluating the run in %s: %s", cfg.OUTPUT_DIR, newest)
        return str(newest)
    if learns and not cfg.MODEL.WEIGHTS and not cfg.MODEL.RANDOM_WEIGHTS:
        raise UserError(f"MODEL.WEIGHTS is empty and {cfg.OUTPUT_DIR} holds no run; give the checkpoint to evaluate")
    return str(cfg.MODEL.WEIGHTS)


def model_files(model: str | Path, weights: str = "") -> tuple[Path, str]:
    """The configuration and the weights of a trained model.

    Args:
        model: the folder of a run, or a configuration.
        weights: instead of the run's newest checkpoint.

    Returns:
        the configuration's file, and the weights; empty for those that the configuration names.

    Raises:
        UserError: when the folder is not that of a detector's or segmenter's run, or has no checkpoint yet.
    """
    folder = Path(model)
    if not folder.is_dir():
        return folder, weights
    if (folder / CONFIG).is_file():
        newest = weights or str(newest_checkpoint(folder) or "")
        if not newest:
            raise UserError(f"the run in {folder} has no checkpoint yet; wait for one, or give --weights")
        return folder / CONFIG, newest
    for name in LEARNED:
        if (folder / name).is_file():
            use = ", or give it to a detector or segmenter as --prompt" if name == LEARNED[0] else ""
            raise UserError(
                f"{folder} is the run of a prompt or another method that learned on photos, not of a detector or "
                f"segmenter; score {folder / name} with tools/evaluate_prompt.py --prompt{use}"
            )
    raise UserError(f"{folder} is no run of a detector or segmenter: it has no {CONFIG}")


def check_folder(cfg: CfgNode, resume: bool) -> None:
    """Make the folder, and refuse to train over another run, or to go on with one of other settings.

    Raises:
        UserError: when the folder holds a run and ``resume`` is False, when a setting differs from those that the run
            began with (but for :data:`MAY_CHANGE`), or when it cannot be written.
    """
    folder = make_output_folder(cfg.OUTPUT_DIR)
    before = folder / CONFIG
    if not (folder / LAST).is_file():
        return
    if not resume:
        raise UserError(f"{folder} already holds a run; add --resume to continue it, or choose another --output")
    if before.is_file():
        old, new = (identity_of(node, MAY_CHANGE) for node in (read_yaml(before), CfgNode.load_cfg(cfg.dump())))
        refuse_other_run(before, old, new, partial(_goes, str(cfg.SOLVER.LR_SCHEDULER_NAME)))


def keep_config(cfg: CfgNode) -> None:
    """Write the configuration into the folder."""
    write_text(Path(cfg.OUTPUT_DIR) / CONFIG, cfg.dump())


def _goes(schedule: str, key: str, was: Any, now: Any) -> bool:
    return key.endswith("_TEST") or (key == "SOLVER.MAX_ITER" and schedule in EXTENDABLE_SCHEDULES and now > was)


def cut_log(folder: str | Path, iteration: int) -> None:
    """Drop what an interrupted run logged after its last checkpoint, and lines that are not whole; damage is named."""
    log = Path(folder) / LOG
    if not log.is_file():
        return
    earlier = []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["iteration"] < iteration:
                earlier.append(line)
        except (ValueError, LookupError, TypeError, RecursionError):
            if number < len(lines):  # the last one is that of a killed process
                _logger.warning("line %d of %s is damaged and is left out", number, log)
    with atomic_path(log) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in earlier), encoding="utf-8")
