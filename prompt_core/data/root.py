"""The one folder that all data sets lie below."""

from __future__ import annotations

import os
from pathlib import Path


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all data sets: ``root``, else the environment variable ``POMP_DATA``, else ``datasets``."""
    return Path(root if root is not None else os.environ.get("POMP_DATA") or "datasets")
