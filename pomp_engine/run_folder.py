"""The folder of a run: its configuration, logs and checkpoints."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from pomp_engine.yaml_files import read_yaml
from prompt_core.config import flatten
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, write_text
from prompt_core.visible import show_record

CONFIG, LOG, LAST = "config.yaml", "log.jsonl", "last_checkpoint"
FINAL, ROLLING = "model_final", "model_last"  # checkpoints: of the finished run, and what an interrupted one resumes
LEARNED = ("prompt.safetensors", "method.safetensors")  # of runs of tools/pretrain_prompt.py
# Settings that a resumed run may change.
_FREE = ("DATALOADER.NUM_WORKERS", "DATASETS.TEST", "OUTPUT_DIR", "TEST.", "SOLVER.CHECKPOINT_PERIOD", "SOLVER.RESUME")

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


def weights_to_evaluate(cfg: CfgNode) -> str:
    """The newest checkpoint of the run in ``OUTPUT_DIR``, else ``MODEL.WEIGHTS``.

    Raises:
        UserError: when there is neither, without ``MODEL.RANDOM_WEIGHTS``.
    """
    newest = newest_checkpoint(cfg.OUTPUT_DIR)
    if newest is not None:
        _logger.info("evaluating the run in %s: %s", cfg.OUTPUT_DIR, newest)
        return str(newest)
    if not cfg.MODEL.WEIGHTS and not cfg.MODEL.RANDOM_WEIGHTS:
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


def begin_folder(cfg: CfgNode, resume: bool) -> list[str]:
    """Make the folder, refuse to train over another run, and write the configuration.

    Returns:
        with ``resume``, the settings that differ from those the run began with.

    Raises:
        UserError: when the folder holds a run and ``resume`` is False, or it cannot be written.
    """
    folder = make_output_folder(cfg.OUTPUT_DIR)
    before = folder / CONFIG
    changed: list[str] = []
    if (folder / LAST).is_file():
        if not resume:
            raise UserError(f"{folder} already holds a run; add --resume to continue it, or choose another --output")
        if before.is_file():
            changed = _differences(CfgNode(read_yaml(before)), cfg)
    write_text(before, cfg.dump())
    return changed


def _differences(old: CfgNode, new: CfgNode) -> list[str]:
    was, now = dict(flatten(old)), dict(flatten(CfgNode.load_cfg(new.dump())))
    changed = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    return [f"{key}: {was.get(key)!r} → {now.get(key)!r}" for key in changed if not key.startswith(_FREE)]


def cut_log(folder: str | Path, iteration: int) -> None:
    """Drop what an interrupted run logged after its last checkpoint, and a line that it did not finish."""
    log = Path(folder) / LOG
    if not log.is_file():
        return
    earlier = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["iteration"] < iteration:
                earlier.append(line)
        except ValueError:
            continue
    with atomic_path(log) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in earlier), encoding="utf-8")
