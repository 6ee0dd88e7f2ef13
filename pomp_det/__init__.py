"""Open-vocabulary detector on Detectron2, with a frozen classifier of prompted class names.

The public names are loaded when they are first used: importing the package needs no Detectron2, downloads nothing and
touches no GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_core.lazy import lazy_names

if TYPE_CHECKING:
    from pomp_det.build import build_detector
    from pomp_det.checkpoint import DetectorCheckpointer, load_weights
    from pomp_det.class_matrix import configured_classifier
    from pomp_det.classifier import set_classifier
    from pomp_det.config import add_detic_config, load_config
    from pomp_det.task import detection_task

_HOMES = {
    "DetectorCheckpointer": "checkpoint",
    "add_detic_config": "config",
    "build_detector": "build",
    "configured_classifier": "class_matrix",
    "detection_task": "task",
    "load_config": "config",
    "load_weights": "checkpoint",
    "set_classifier": "classifier",
}

__all__ = [
    "DetectorCheckpointer",
    "add_detic_config",
    "build_detector",
    "configured_classifier",
    "detection_task",
    "load_config",
    "load_weights",
    "set_classifier",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
