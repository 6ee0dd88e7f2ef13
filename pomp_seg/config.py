"""Configuration files of segmenters: published and own YAML files, ``_BASE_`` chains and strict overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from pomp_engine.backbones.efficientnet_lite import add_backbone_config
from pomp_engine.config import add_engine_config, override_pairs, read_config, task_config
from pomp_seg.config_keys import add_model_config, add_solver_config
from pomp_seg.data.config_keys import add_data_config
from prompt_core.errors import UserError, nearest

META_ARCHITECTURES = ("MaskFormer", "ZeroShotMaskFormer", "ProposalClipClassifier", "ZeroShotPerPixelModel")


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


def is_segmenter(file: str | Path, overrides: Sequence[Any] = ()) -> bool:
    """Whether ``MODEL.META_ARCHITECTURE`` of a YAML file, or of ``KEY VALUE`` overrides, is a segmenter's.

    Raises:
        UserError: when the file is absent or cannot be read, or the name is nearly a segmenter's: a detector's keys
            would be asked for otherwise.
    """
    settings: Any = read_config(Path(file)).get("MODEL", {})
    name = settings.get("META_ARCHITECTURE", "") if isinstance(settings, dict) else ""
    for key, value in override_pairs(overrides):
        if key == "MODEL.META_ARCHITECTURE":
            name = value
    hint = "" if name in META_ARCHITECTURES else nearest(str(name), META_ARCHITECTURES)
    if hint:
        raise UserError(f"MODEL.META_ARCHITECTURE is {name!r}, neither a detector nor a segmenter{hint}")
    return name in META_ARCHITECTURES
