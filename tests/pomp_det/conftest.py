"""Shared by the detector's tests: the published files and a tiny detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.detector import make_tiny, photo
from ..support.tools import call_tool, start_tool, tiny_model

__all__ = ["call_tool", "make_tiny", "photo", "start_tool", "tiny_model"]


@pytest.fixture(scope="session")
def published(shared: Path) -> Path:
    """Folder of the published Detic and POMP configuration files."""
    return shared / "data/published_configs/detic"
