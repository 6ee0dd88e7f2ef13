"""Files of tests about data: documents, texts and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def save(path: Path, value: Any) -> Path:
    """An image from an array, text, or JSON of anything else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, np.ndarray):
        Image.fromarray(value).save(path)
    elif isinstance(value, str):
        path.write_text(value, encoding="utf-8")
    else:
        path.write_text(json.dumps(value), encoding="utf-8")
    return path


def photo(path: Path, size: tuple[int, int] = (20, 10)) -> Path:
    """A black photo of ``size`` (width, height)."""
    return save(path, np.zeros((size[1], size[0], 3), np.uint8))
