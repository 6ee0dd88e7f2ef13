"""The documentation builds as a site, strictly, and every page is in its navigation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / "mkdocs.yml"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (docs/\S+\.md)$", CONFIG.read_text(encoding="utf-8"), re.M))
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} == listed


def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", CONFIG]
    done = subprocess.run([*command, "--site-dir", tmp_path], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "docs/how_to.html", "docs/ARCHITECTURE.html"} <= pages
    # nothing is loaded from elsewhere
    home = (tmp_path / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', home)
    assert loaded == []


def test_the_project_files_are_valid() -> None:
    for path in sorted((ROOT / ".github").rglob("*.yml")):
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    version = re.search(r'__version__ = "([^"]+)"', (ROOT / "prompt_core/__init__.py").read_text(encoding="utf-8"))
    assert version is not None
    assert citation["version"] == version.group(1)


def test_the_workflow_calls_the_same_commands() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]
    steps = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert steps == ["make test", "make demo"]


def test_the_container_copies_what_exists() -> None:
    for line in (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY"):
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line
