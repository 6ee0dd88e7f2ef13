"""Configuration files of segmenters: published and own YAML files, ``_BASE_`` chains and strict overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from pomp_engine.backbones.efficientnet_lite import add_backbone_config
from pomp_engine.config import add_engine_config, task_config
from pomp_seg.config_keys import add_model_config, add_solver_config
from pomp_seg.data.config_keys import add_data_config

__all__ = ["add_segmenter_config", "load_config"]


def add_segmenter_config(cfg: CfgNode) -> None:
    """Add every key of MaskFormer, ZSSeg, POMP and this project to a Detectron2 configuration, in place."""
    add_engine_config(cfg)
    add_backbone_config(cfg)
    add_model_config(cfg)
    add_solver_config(cfg)
    add_data_config(cfg)


def load_config(file: str | Path | None = None, overrides: Sequence[Any] | Mapping[str, Any] = ()) -> CfgNode:
    """Every key's default, then ``file`` with its ``_BASE_`` files, then ``overrides``.

    See :func:`pomp_engine.config.task_config`.

    Args:
        file: a YAML file; None for the defaults.
        overrides: ``KEY VALUE`` pairs in one flat sequence, ``KEY=VALUE`` texts, or a dictionary.

    Raises:
        UserError: an unknown key (with the nearest), a value of another type, an absent or malformed file.
    """
    return task_config(add_segmenter_config, file, overrides)
