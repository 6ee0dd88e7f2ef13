"""Runs the scripts of ``datasets/`` in this process, as their last lines do: starting a new Python takes seconds."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from prompt_core.errors import run_command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a script by its name: exit code, output, errors."""

    def call(script: str, *arguments: str | Path) -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(f"script_{script}", ROOT / "datasets" / f"{script}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(SystemExit) as caught:
            run_command(lambda: module.main([str(argument) for argument in arguments]))
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return call
