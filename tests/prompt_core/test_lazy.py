"""What is told of parts that are absent depends on whether there is a checkout."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from prompt_core import lazy
from prompt_core.errors import UserError

BUILD = "python tools/build_classifier.py --vocabulary coco --output a.npy && python tools/train_net.py"


def test_in_a_checkout() -> None:
    assert lazy.install_command() == "pip install -e ."
    assert lazy.install_command("export") == 'pip install -e ".[export]"'
    assert lazy.command_here(BUILD) == BUILD


def test_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lazy, "__file__", str(tmp_path / "prompt_core/lazy.py"))
    assert lazy.install_command("export") == 'pip install "prompt-pretraining-toolkit[export]"'
    assert lazy.command_here(BUILD) == "pomp export --vocabulary coco --output a.npy && python tools/train_net.py"
    assert lazy.command_here("python tools/fetch.py coco") == "pomp fetch coco"


def test_an_absent_package_is_one_line_and_a_broken_one_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r'to fly, the package feathers is needed.*run: pip install -e "\.\[wings\]"'):
        lazy.import_optional("feathers", "wings", "to fly")
    (tmp_path / "broken_part.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        lazy.import_optional("broken_part", "wings", "to fly")
    assert lazy.import_optional("json", "wings", "to read") is importlib.import_module("json")
