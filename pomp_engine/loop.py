"""The training loop of every task; reading it top to bottom shows what a run does."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventStorage, EventWriter, JSONWriter, TensorboardXWriter
from torch import Tensor, nn

from pomp_engine.run_folder import FINAL, LOG, ROLLING, check_folder, cut_log, keep_config
from pomp_engine.solver import build_scheduler, warm_up_warning
from pomp_engine.task import Task
from pomp_engine.training_content import training_content
from prompt_core.command_line import asked_to_stop
from prompt_core.errors import UserError
from prompt_core.files import write_json
from prompt_core.runs.finite import first_not_finite
from prompt_core.runs.identity import refuse_other_run

LOG_PERIOD = 20  # iterations; Detectron2's own, and the window over which it smooths numbers
# How Detectron2 and SciPy complain about numbers that are not finite.
_SAYS_DIVERGED = re.compile(r"\bNaN\b|\binfinite\b|invalid numeric entries")

_logger = logging.getLogger(__name__)


def train(
    task: Task,
    cfg: CfgNode,
    model: nn.Module,
    resume: bool = False,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
) -> None:
    """Train ``model`` for ``SOLVER.MAX_ITER`` iterations and write ``model_final.pth`` into ``OUTPUT_DIR``.

    Starts from ``MODEL.WEIGHTS``. ``SOLVER.CHECKPOINT_PERIOD`` is the interval of numbered checkpoints in iterations,
    ``SOLVER.RESUME_PERIOD`` that of ``model_last.pth``, which a killed run resumes from. Batches, augmentation and
    everything drawn inside the model depend only on seed, rank and iteration, so a resumed run continues exactly as the
    interrupted one would have.

    Args:
        task: gives the loader, the optimiser and the checkpointer.
        cfg: with the keys of :func:`pomp_engine.config.add_engine_config`.
        model: maps a batch to a dictionary of losses, which are added up.
        resume: continue from the last checkpoint in ``OUTPUT_DIR``, if there is one.
        evaluate: called in every process, every ``TEST.EVAL_PERIOD`` iterations if that is above 0; the main process's
            numbers go into the log. It does not affect training.

    Raises:
        UserError: a folder that holds another run, a loss that is not finite, or whatever the task's own parts raise.
        KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGHUP, once ``model_last.pth`` is written.
    """
    if comm.is_main_process():
        check_folder(cfg, resume)
    comm.synchronize()
    optimizer = task.build_optimizer(cfg, model)
    scheduler = build_scheduler(cfg, optimizer)
    scaler = torch.amp.GradScaler("cuda", enabled=cfg.FP16 and str(cfg.MODEL.DEVICE).startswith("cuda"))
    parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    checkpointer = task.checkpointer(model, cfg.OUTPUT_DIR, **parts)
    saved = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    resumed = resume and checkpointer.has_checkpoint()
    start = int(saved["iteration"]) + 1 if resumed else 0
    # Each process draws photos, augmentations and regions of its own, so that another number gives other weights.
    extra: dict[str, Any] = {"processes": comm.get_world_size()}
    if comm.is_main_process():
        extra["training_data"] = training_content(cfg.DATASETS.TRAIN)
        if resumed:  # older checkpoints do not say
            refuse_other_run(Path(cfg.OUTPUT_DIR), {key: saved[key] for key in extra if key in saved}, extra)
        keep_config(cfg)
    comm.synchronize()
    cfg = _with_seed(cfg, saved.get("seed") if resumed else None)
    if task.prepare is not None:
        task.prepare(cfg, model)
    if start >= cfg.SOLVER.MAX_ITER:
        _logger.info("the run is already finished: %d of %d iterations", start, cfg.SOLVER.MAX_ITER)
        if comm.is_main_process() and Path(cfg.OUTPUT_DIR, f"{FINAL}.pth").is_file():
            Path(cfg.OUTPUT_DIR, f"{ROLLING}.pth").unlink(missing_ok=True)  # left by a kill in the last step
        return
    if warning := warm_up_warning(cfg):
        _logger.warning(warning)
    loader = task.build_loader(cfg, model, start)
    if comm.is_main_process():
        cut_log(cfg.OUTPUT_DIR, start)

    model.train()
    devices = None if str(cfg.MODEL.DEVICE) == "cpu" else [comm.get_local_rank()]
    parallel = create_ddp_model(
        model, device_ids=devices, broadcast_buffers=False, find_unused_parameters=cfg.FIND_UNUSED_PARAM
    )
    writers = _writers(cfg) if comm.is_main_process() else []
    extra["seed"] = int(cfg.SEED)
    iteration, began = start, time.perf_counter()
    _logger.info("training from iteration %d to %d", start, cfg.SOLVER.MAX_ITER)
    with EventStorage(start) as storage, asked_to_stop() as asked:
        try:
            for iteration, batch in zip(range(start, cfg.SOLVER.MAX_ITER), loader, strict=False):
                storage.iter = iteration
                seed_iteration(cfg.SEED, iteration)
                waited = time.perf_counter() - began
                losses = losses_of(parallel, batch)
                stop_if_not_finite(losses, batch, iteration, cfg.OUTPUT_DIR)
                total = torch.stack([*losses.values()]).sum()
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(total).backward()
                scaler.step(optimizer)
                scaler.update()
                _record(storage, losses, optimizer, waited, began)
                scheduler.step()
                done = iteration + 1
                # The end of the run is evaluated separately.
                if evaluate is not None and done < cfg.SOLVER.MAX_ITER and _is_due(done, cfg.TEST.EVAL_PERIOD):
                    storage.put_scalars(**evaluate(), smoothing_hint=False)
                    model.train()
                began = time.perf_counter()
                if done % LOG_PERIOD == 0 or done == cfg.SOLVER.MAX_ITER:
                    for writer in writers:
                        writer.write()
                if done == cfg.SOLVER.MAX_ITER:
                    checkpointer.save(FINAL, iteration=iteration, **extra)
                elif _is_due(done, cfg.SOLVER.CHECKPOINT_PERIOD):
                    checkpointer.save(f"model_{iteration:07d}", iteration=iteration, **extra)
                elif _is_due(done, cfg.SOLVER.RESUME_PERIOD):
                    checkpointer.save(ROLLING, iteration=iteration, **extra)
                if done < cfg.SOLVER.MAX_ITER and any_process(bool(asked), total.device):
                    checkpointer.save(ROLLING, iteration=iteration, **extra)
                    comm.synchronize()  # the first process to end has the others stopped
                    raise KeyboardInterrupt
        finally:
            for writer in writers:
                writer.close()
    if comm.is_main_process():
        (Path(cfg.OUTPUT_DIR) / f"{ROLLING}.pth").unlink(missing_ok=True)
    comm.synchronize()


def _is_due(done: int, period: int) -> bool:
    return period > 0 and done % period == 0


def seed_iteration(seed: int, iteration: int) -> None:
    """Seed torch from (seed, rank, iteration), so that no generator has to be saved for sampled regions and classes."""
    words = np.random.SeedSequence([int(seed), comm.get_rank(), int(iteration)]).generate_state(2)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))


def _with_seed(cfg: CfgNode, saved: int | None) -> CfgNode:
    """A ``SEED`` below 0 is drawn once, shared by all processes and kept in the checkpoints."""
    if cfg.SEED >= 0:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = int(saved) if saved is not None else int(comm.shared_random_seed()) % 2**31
    return cfg


def _record(
    storage: EventStorage, losses: dict[str, Tensor], optimizer: torch.optim.Optimizer, waited: float, began: float
) -> None:
    done = storage.iter + 1
    values = {"time": time.perf_counter() - began, "data_time": waited}
    # Losses of other processes cost communication, and the log shows only every twentieth iteration anyway.
    if done % LOG_PERIOD == 0 or comm.get_world_size() == 1:
        reduced = comm.reduce_dict({name: loss.detach() for name, loss in losses.items()})
        if comm.is_main_process():
            # One copy from the device, for which the host waits.
            shown = dict(zip(reduced, torch.stack([*reduced.values()]).tolist(), strict=True))
            values |= shown
            storage.put_scalar("total_loss", sum(shown.values()))
    if comm.is_main_process():
        storage.put_scalars(**values)
        storage.put_scalar("lr", optimizer.param_groups[0]["lr"], smoothing_hint=False)


def _writers(cfg: CfgNode) -> list[EventWriter]:
    folder = Path(cfg.OUTPUT_DIR)
    return [
        CommonMetricPrinter(cfg.SOLVER.MAX_ITER),
        JSONWriter(str(folder / LOG)),
        TensorboardXWriter(str(folder / "tensorboard")),
    ]


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process; every process has to call it."""
    if comm.get_world_size() == 1:
        return flag
    shared = torch.tensor([float(flag)], device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return bool(shared)


def losses_of(model: nn.Module, batch: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The losses of a batch; NaN under the name ``forward`` where the model itself notices that training diverged.

    Detectron2 raises FloatingPointError for proposals and AssertionError for boxes that are not finite, SciPy's matcher
    ValueError for such costs. As a loss, :func:`stop_if_not_finite` reports it, in all processes.
    """
    try:
        losses: dict[str, Tensor] = model(batch)
    except Exception as error:
        parameters = dict(model.named_parameters())
        says_so = isinstance(error, FloatingPointError) or _SAYS_DIVERGED.search(str(error))
        if not says_so and first_not_finite(parameters) is None:
            raise
        return {"forward": next(iter(parameters.values())).new_full((), math.nan)}
    return losses


def stop_if_not_finite(
    losses: Mapping[str, Tensor], batch: Sequence[Mapping[str, Any]], iteration: int, folder: str | Path
) -> None:
    """Stop all processes when a loss in any of them is NaN or infinite; each calls it before the update.

    Raises:
        UserError: naming the losses, and the file ``not_finite_rank{r}.json`` in ``folder`` that lists the batch's
            photos. Earlier checkpoints stay as they are.
    """
    total = torch.stack([loss.detach().float() for loss in losses.values()]).sum()
    finite = bool(torch.isfinite(total))
    if not any_process(not finite, total.device):
        return
    if finite:
        raise UserError(f"a loss in another process is not finite at iteration {iteration}; see that process's message")
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    path = Path(folder) / f"not_finite_rank{comm.get_rank()}.json"
    photos = [{key: example.get(key) for key in ("file_name", "image_id", "ann_type")} for example in batch]
    # JSON has no NaN.
    shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
    write_json(path, {"iteration": iteration, "losses": shown, "images": photos})
    broken = ", ".join(f"{name} {value}" for name, value in values.items() if not math.isfinite(value))
    raise UserError(
        f"a loss is not finite at iteration {iteration} ({broken or 'their sum'}); the batch's files are listed in "
        f"{path}; look at their annotations, or lower SOLVER.BASE_LR"
    )
