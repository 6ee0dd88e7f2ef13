"""The documents name only what exists: files, tools with their options, public names."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import prompt_core

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "datasets" / "README.md",
         ROOT / "prompt_core" / "assets" / "MINI_MODEL_CARD.md"]  # fmt: skip


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def commands() -> list[list[str]]:
    lines = [
        line
        for page in PAGES
        for block in blocks(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("python ") and ".py" in line
    ]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[1:3]))
def test_commands_name_tools_options_and_configurations(words: list[str]) -> None:
    tool = ROOT / words[1]
    assert tool.is_file()
    modules = [tool, ROOT / "prompt_core" / "command_line.py"]
    if tool.parent.name == "datasets":
        modules = [tool, *(ROOT / "prompt_core" / "data").glob("shapes*.py"), *(ROOT / "pomp_det").rglob("*.py")]
    source = "".join(module.read_text(encoding="utf-8") for module in modules)
    unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
    assert unknown == []
    assert [word for word in words if word.startswith("configs/") and not (ROOT / word).is_file()] == []


def test_the_example_uses_public_names() -> None:
    found = 0
    for block in blocks(ROOT / "README.md", "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "prompt_core":
                assert {alias.name for alias in node.names} <= set(prompt_core.__all__)
                found += 1
    assert found


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for block in blocks(ROOT / "README.md", "bash"):
        for target in re.findall(r"^make ([\w-]+)", block, re.M):
            assert re.search(rf"^{target}:", makefile, re.M), target
