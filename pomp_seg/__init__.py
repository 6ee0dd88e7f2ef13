"""Open-vocabulary segmenter on Detectron2: mask proposals, classified by a prompted CLIP.

The public names are loaded on first use: importing the package needs no Detectron2, downloads nothing and touches no
GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_core.lazy import lazy_names

if TYPE_CHECKING:
    from pomp_seg.build import build_segmenter, set_classes
    from pomp_seg.checkpoint import SegmenterCheckpointer, load_weights
    from pomp_seg.config import add_segmenter_config, is_segmenter, load_config
    from pomp_seg.task import segmentation_task

_HOMES = {
    "SegmenterCheckpointer": "checkpoint",
    "add_segmenter_config": "config",
    "build_segmenter": "build",
    "is_segmenter": "config",
    "load_config": "config",
    "load_weights": "checkpoint",
    "segmentation_task": "task",
    "set_classes": "build",
}

__all__ = [
    "SegmenterCheckpointer",
    "add_segmenter_config",
    "build_segmenter",
    "is_segmenter",
    "load_config",
    "load_weights",
    "segmentation_task",
    "set_classes",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
