"""The resumable state of a run: one small file of tensors and numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prompt_core.errors import UserError
from prompt_core.files import atomic_path
from prompt_core.restricted import load_restricted
from prompt_core.training import LearningState

FORMAT = 1


def save_state(path: Path, state: LearningState, learned: nn.Module, settings: dict[str, Any]) -> None:
    """Write everything that a resumed run needs, atomically. ``settings`` is what must not change in between."""
    values = {entry.name: getattr(state, entry.name) for entry in dataclasses.fields(state)}
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, "state": values, "prompt": learned.state_dict(), "settings": settings}, temporary)


def load_state(path: Path, learned: nn.Module, settings: dict[str, Any]) -> LearningState:
    """Read a state into ``learned`` and return the counters.

    Raises:
        UserError: a truncated file, or a run with other settings (the differing keys are named).
    """
    saved = load_restricted(path)
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise UserError(f"{path} is not a training state of this version; start again in another --output")
    old = saved["settings"]
    changed = [key for key in {**old, **settings} if old.get(key) != settings.get(key)]
    if changed:
        first = changed[0]
        raise UserError(
            f"{path} belongs to a run with other settings ({', '.join(sorted(changed))}; {first} was "
            f"{old.get(first)!r}, now {settings.get(first)!r}); give the same ones or another --output"
        )
    learned.load_state_dict(saved["prompt"])
    return LearningState(**saved["state"])
