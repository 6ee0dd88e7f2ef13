"""Configuration files of detectors: published and own YAML files on top of every key's default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from pomp_det.config_keys import add_detic_config
from pomp_engine.config import task_config

__all__ = ["add_detic_config", "load_config"]


def load_config(file: str | Path | None = None, overrides: Sequence[Any] | Mapping[str, Any] = ()) -> CfgNode:
    """Every key's default, then ``file`` with its ``_BASE_`` files, then ``overrides``.

    See :func:`pomp_engine.config.task_config`.

    Args:
        file: a YAML file; None for the defaults.
        overrides: ``KEY VALUE`` pairs in one flat sequence, ``KEY=VALUE`` texts, or a dictionary.

    Raises:
        UserError: an unknown key (with the nearest), a value of another type, an absent or malformed file.
    """
    return task_config(add_detic_config, file, overrides)
