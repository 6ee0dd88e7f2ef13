"""What stops a run before it wastes anything: a loss that is no number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.files import write_json


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process; to be called by all."""
    if comm.get_world_size() == 1:
        return flag
    shared = torch.tensor([float(flag)], device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return bool(shared)


def stop_if_not_finite(
    losses: Mapping[str, Tensor], batch: Sequence[Mapping[str, Any]], iteration: int, folder: str | Path
) -> None:
    """Stop every process when a loss of any of them is NaN or infinite; to be called by all, before the update.

    Raises:
        UserError: naming the losses and the file ``not_finite_rank{r}.json`` in ``folder`` with the photos of the
            batch. Checkpoints of earlier steps stay as they are.
    """
    total = torch.stack([loss.detach().float() for loss in losses.values()]).sum()
    finite = bool(torch.isfinite(total))
    if not any_process(not finite, total.device):
        return
    if finite:
        raise UserError(f"a loss of another process is not finite at iteration {iteration}; see its message")
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    path = Path(folder) / f"not_finite_rank{comm.get_rank()}.json"
    photos = [{key: each.get(key) for key in ("file_name", "image_id", "ann_type")} for each in batch]
    # JSON has no word for NaN.
    shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
    write_json(path, {"iteration": iteration, "losses": shown, "images": photos})
    broken = ", ".join(f"{name} {value}" for name, value in values.items() if not math.isfinite(value))
    raise UserError(
        f"a loss is not finite at iteration {iteration} ({broken or 'their sum'}); the batch's files are listed in "
        f"{path}; look at their annotations, or lower SOLVER.BASE_LR"
    )
