"""The documents name only what exists: files, headings, public names. Their commands: ``test_docs_commands.py``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import pomp
import prompt_core

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "datasets" / "README.md",
         ROOT / "prompt_core" / "assets" / "MINI_MODEL_CARD.md", *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def headings(page: Path) -> set[str]:
    """Headings as links name them: lower case, hyphens for spaces, no other signs."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8"))
    local = [(page.parent / path if path else page, heading) for path, heading in targets if "://" not in path]
    assert [path for path, _ in local if not path.exists()] == []
    assert [(path.name, heading) for path, heading in local if heading and heading not in headings(path)] == []


def test_the_example_uses_public_names() -> None:
    count = 0
    for block in blocks(ROOT / "README.md", "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "prompt_core":
                assert {alias.name for alias in node.names} <= set(prompt_core.__all__)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pomp":
                assert node.attr in pomp.__all__
                count += 1
    assert count


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for block in blocks(ROOT / "README.md", "bash"):
        for target in re.findall(r"^make ([\w-]+)", block, re.M):
            assert re.search(rf"^{target}:", makefile, re.M), target
