"""Configuration files of detectors: published and own YAML files on top of every key's default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg

from pomp_det.config_keys import add_detic_config
from pomp_engine.config import merge_config

__all__ = ["add_detic_config", "load_config"]


def load_config(file: str | Path | None = None, overrides: Sequence[Any] | Mapping[str, Any] = ()) -> CfgNode:
    """Defaults, then ``file`` with its ``_BASE_`` files, then ``overrides``.

    ``MODEL.DEVICE`` is the CPU where there is no GPU, unless it is set. As in the published training script, a last
    part ``auto`` of ``OUTPUT_DIR`` becomes the name of the file.

    Args:
        file: a YAML file; None for the defaults.
        overrides: ``KEY VALUE`` pairs in one flat sequence, ``KEY=VALUE`` texts, or a dictionary.

    Returns:
        Detectron2's configuration node, not frozen.

    Raises:
        UserError: an unknown key (with the nearest), a value of another type, an absent or malformed file.
    """
    cfg = get_cfg()
    add_detic_config(cfg)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return merge_config(cfg, file, overrides)
