"""Shared by tests of exports: a tiny CLIP as files, and the command in an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ...support.tools import call_tool, tiny_model

__all__ = ["call_export", "call_tool", "tiny_model"]


@pytest.fixture
def call_export(
    call_pomp: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run ``pomp export`` in ``tmp_path``: its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call_pomp(None, "export", *arguments)
