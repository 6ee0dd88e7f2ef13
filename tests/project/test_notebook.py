"""The notebook runs from its first cell to its last, and says what its words promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs/notebooks/your_photos.ipynb"


def test_the_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        assert cell["outputs"] == []  # what is committed has no outputs that could be out of date
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    shown = capsys.readouterr().out
    assert "bus" in shown
    assert "0 zebras and pizzas" in shown
    assert "clock.jpg → clock" in shown
    assert "kitchen.jpg → none of these" in shown
    assert "of the pixels: bus" in shown
