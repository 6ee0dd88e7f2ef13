"""The doctor reports versions, devices and what is missing, whatever is installed."""

from __future__ import annotations

import builtins
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prompt_core
from prompt_core import doctor
from prompt_core.doctor import Component, is_tested, release

PROJECT = Path(prompt_core.__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    return tmp_path


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make packages look absent to the metadata and to the import system."""
    version, find_spec = importlib.metadata.version, importlib.util.find_spec

    def fake_version(name: str) -> str:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", fake_version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else find_spec(name))


def run_doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **variables}
    command = [sys.executable, "-m", "prompt_core.doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_json_in_a_subprocess_holds_the_installed_versions(data_folder: Path) -> None:
    done = run_doctor("--json", POMP_DATA=str(data_folder))
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)
    assert findings["packages"]["torch"] == importlib.metadata.version("torch")
    assert findings["packages"]["open_clip"] == importlib.metadata.version("open_clip_torch")
    assert findings["devices"]["error"] is None
    assert findings["devices"]["cpu_threads"] >= 1
    assert findings["data_root"]["path"] == str(data_folder)
    assert findings["data_root"]["writable"]


def test_text_names_every_component(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    for component in doctor.COMPONENTS:
        assert f"  {component.module:<12}" in printed
    assert "cpu" in printed


def test_importing_the_doctor_imports_nothing_heavy() -> None:
    script = "import sys, prompt_core.doctor; print(sorted({'torch', 'numpy', 'open_clip', 'timm'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_optional_parts_come_with_their_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide(monkeypatch, "detectron2", "sal-detectron2", "supervision")
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    assert "detectron2  optional: pomp doctor --install-detectron2" in printed
    assert 'supervision optional: pip install -e ".[det]"' in printed


def test_a_missing_required_part_gives_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide(monkeypatch, "timm")
    assert doctor.main(["--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert findings["packages"]["timm"] is None
    assert {"name": "timm", "required": True, "install": "pip install -e ."} in findings["missing"]


@pytest.mark.parametrize("failure", [ImportError("no torch"), OSError("libcudart.so.12: cannot open")])
def test_a_torch_that_fails_to_import_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Exception
) -> None:
    real_import = builtins.__import__

    def fake_import(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "torch":
            raise failure
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", fake_import)
    assert doctor.main([]) == 1
    assert f"warning: torch is installed but cannot be used ({type(failure).__name__}: {failure})" in (
        capsys.readouterr().out
    )


def test_a_version_outside_the_tested_range_is_a_warning_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.1" if name == "numpy" else version(name))
    assert doctor.main([]) == 0
    assert "warning: numpy 99.1 is outside the tested range: at least 2.4 and below 3" in capsys.readouterr().out


def test_package_without_metadata_is_found_and_a_bare_folder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_package_of_this_test").mkdir()
    (tmp_path / "a_package_of_this_test" / "__init__.py").touch()
    (tmp_path / "a_folder_of_this_test").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert doctor.version_of(Component("a_package_of_this_test", ("absent-distribution",), "")) == "unknown"
    assert doctor.version_of(Component("a_folder_of_this_test", ("absent-distribution",), "")) is None


def test_data_root_that_is_absent_or_a_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for name in ("absent", "file"):
        monkeypatch.setenv("POMP_DATA", str(tmp_path / name))
        findings = doctor.examine()
        assert not findings["data_root"]["writable"]
        assert any(str(tmp_path / name) in text and "POMP_DATA" in text for text in findings["warnings"])


def test_data_root_defaults_to_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POMP_DATA")
    assert doctor.data_root()["path"] == "datasets"


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.13.0+cpu", True), ("2.13", True), ("2.13.9.dev1", True), ("2.12.9", False), ("2.14.0", False), ("?", True)],
)
def test_tested_range(version: str, expected: bool) -> None:
    assert is_tested(Component("x", (), "", "2.13", "2.14"), version) is expected


@given(st.lists(st.integers(0, 999), min_size=1, max_size=4), st.sampled_from(["", "+cpu", "rc1", ".dev3", ".post2"]))
def test_release_reads_the_leading_numbers(numbers: list[int], suffix: str) -> None:
    assert release(".".join(map(str, numbers)) + suffix) == tuple(numbers)


@given(st.text(max_size=20))
def test_any_text_as_a_version_is_read_without_an_error(text: str) -> None:
    assert all(part >= 0 for part in release(text))
