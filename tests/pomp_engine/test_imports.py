"""The engine knows no task."""

from __future__ import annotations

import ast
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[2] / "pomp_engine"


def test_the_engine_imports_no_task() -> None:
    files = sorted(ENGINE.rglob("*.py"))
    assert len(files) > 8
    names = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names += [(file.name, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names.append((file.name, node.module or ""))
    assert ("training.py", "pomp_engine.run_folder") in names
    assert [each for each in names if each[1].split(".")[0] in ("pomp_det", "pomp_seg")] == []
