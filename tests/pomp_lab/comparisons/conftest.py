"""Trainings of the comparisons in this process: their own ones are tested with the runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pomp_lab.runs import RunStore
from pomp_lab.shapes.generate import build_shapes
from pomp_lab.shapes.labels import prepare_image_labels, prepare_shapes_seg
from pomp_lab.shapes.options import ShapesOptions
from prompt_core.errors import UserError


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve classes in four scenes, with image labels and semantic labels; its parent is a data root."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    options = ShapesOptions(
        classes=12, classification_classes=12, scenes=4, val_scenes=2, scene_size=96, val_images_per_class=2
    )
    build_shapes(folder, options)
    prepare_image_labels(folder)
    prepare_shapes_seg(folder.parent)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs", tmp_path / "results/table.json")


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was trained, in order."""
    calls: list[str] = []

    def run(target: Callable[..., None], arguments: tuple[Any, ...], what: str) -> None:
        calls.append(what)
        with pytest.raises(SystemExit) as stop:
            target(*arguments)
        if stop.value.code:
            raise UserError(f"the run of {what} stopped with code {stop.value.code}")

    monkeypatch.setattr("pomp_lab.comparisons.comparison.run_process", run)
    return calls
