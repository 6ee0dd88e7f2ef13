"""Tiny shapes in all looks, and published numbers with made-up results beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pomp_lab.shapes.generate import build_shapes
from pomp_lab.shapes.options import ShapesOptions
from pomp_lab.shapes.variants import VARIANTS


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with ten classes of shapes in five looks: seven base classes, three novel ones."""
    root = tmp_path_factory.mktemp("data")
    for variant in VARIANTS:
        options = ShapesOptions(
            parts=("classification",),
            variant=variant,
            classes=40,
            classification_classes=10,
            classification_size=32,
            train_images_per_class=2,
            val_images_per_class=2,
        )
        build_shapes(root / ("shapes" if variant == "plain" else f"shapes_{variant}"), options)
    return root
