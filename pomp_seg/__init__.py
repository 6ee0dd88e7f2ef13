"""Open-vocabulary segmenter on Detectron2: mask proposals, classified by a prompted CLIP.

The public names are loaded when they are first used: importing the package needs no Detectron2, downloads nothing and
touches no GPU.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pomp_seg.build import build_segmenter, set_classes
    from pomp_seg.checkpoint import SegmenterCheckpointer, load_weights
    from pomp_seg.config import add_segmenter_config, load_config

_HOMES = {
    "SegmenterCheckpointer": "checkpoint",
    "add_segmenter_config": "config",
    "build_segmenter": "build",
    "load_config": "config",
    "load_weights": "checkpoint",
    "set_classes": "build",
}

__all__ = [
    "SegmenterCheckpointer",
    "add_segmenter_config",
    "build_segmenter",
    "load_config",
    "load_weights",
    "set_classes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pomp_seg' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"pomp_seg.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "detectron2":
            raise
        from prompt_core.errors import UserError

        raise UserError("detectron2 is not installed; run: python tools/install_detectron2.py") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
