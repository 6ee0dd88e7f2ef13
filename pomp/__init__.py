"""Photos and words in; names, boxes and masks out.

::

    import pomp

    model = pomp.load("mini").words(["bus", "pedestrian", "scooter"])
    found = model.predict("street.jpg")  # supervision.Detections

The public names are loaded on first use: importing the package loads neither torch nor Detectron2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_core.lazy import lazy_names

if TYPE_CHECKING:
    from pomp.models.load import load
    from pomp.models.photo_model import Model

__version__ = "0.1.0"

_HOMES = {"Model": "models.photo_model", "load": "models.load"}

__all__ = ["Model", "load"]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
