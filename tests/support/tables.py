"""Tiny data roots for tables of classification."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pomp_lab.shapes.generate import build_shapes
from pomp_lab.shapes.options import ShapesOptions


@pytest.fixture
def tiny_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny-ImageNet with five classes, photos of four, and a wide vocabulary of nine names."""
    root = tmp_path / "root"
    names = {f"n0000000{n}": name for n, name in enumerate(["cat", "dog", "oak", "car", "hare", "cup", "pen"], 1)}
    rng = np.random.default_rng(0)

    def photo(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(path)

    tiny, wnids = root / "tiny-imagenet-200", list(names)[:5]
    lines = []
    for wnid in wnids:
        for index in range(3):
            photo(tiny / f"train/{wnid}/images/{wnid}_{index}.JPEG")
        for index in range(8):
            photo(tiny / f"val/images/val_{wnid}_{index}.JPEG")
            lines.append(f"val_{wnid}_{index}.JPEG\t{wnid}\t0\t0\t1\t1\n")
    (tiny / "val/val_annotations.txt").write_text("".join(lines))
    (tiny / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    (tiny / "words.txt").write_text("".join(f"{wnid}\t{name}\n" for wnid, name in names.items()))
    rows = ["file,wnid,class_name\n"]
    for wnid in list(names)[3:]:
        for index in range(4):
            photo(root / f"imagenet_samples/{wnid}_{index}.png")
            rows.append(f"{wnid}_{index}.png,{wnid},{names[wnid]}\n")
    (root / "imagenet_samples/labels.csv").write_text("".join(rows))
    wide = {**names, "n1": "table", "n2": "house"}
    (root / "wide.json").write_text(json.dumps({"names": list(wide.values()), "ids": list(wide)}))
    for module in ("data_folders", "scored_sets"):
        monkeypatch.setattr(f"pomp_lab.tables.{module}.WIDE", str(root / "wide.json"))
    return root


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with ten classes of shapes in two looks: seven base classes, three novel ones."""
    root = tmp_path_factory.mktemp("data")
    for variant, name in (("plain", "shapes"), ("sketch", "shapes_sketch")):
        options = ShapesOptions(
            parts=("classification",),
            variant=variant,
            classes=40,
            classification_classes=10,
            classification_size=32,
            train_images_per_class=2,
            val_images_per_class=2,
        )
        build_shapes(root / name, options)
    return root
