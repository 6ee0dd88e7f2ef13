"""Which images are learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prompt_core.config import load_config
from prompt_core.errors import UserError
from prompt_core.training.data import training_images

NAMES = ["apple", "bread", "cheese", "date", "egg"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / "train" / name).mkdir(parents=True)
        for index in range(2):
            pixels = np.full((8, 8, 3), 20 * number + index, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize(("half", "names"), [("all", NAMES), ("base", NAMES[:3]), ("new", NAMES[3:])])
def test_halves_of_the_classes_are_relabelled_from_zero(photos: Path, half: str, names: list[str]) -> None:
    cfg = load_config(None, ["DATA.TRAIN", f"folder:{photos}", "DATA.CLASSES", half])
    images = training_images(cfg, "train", 1)
    assert images.names == names
    assert sorted(images.labels.tolist()) == list(range(len(names)))
    assert {key.split("/")[-2] for key in images.keys} == set(names)


def test_another_word_is_taken_for_a_file(photos: Path) -> None:
    cfg = load_config(None, ["DATA.TRAIN", f"folder:{photos}", "DATA.CLASSES", "bases"])
    with pytest.raises(UserError, match="class list bases does not exist; DATA"):
        training_images(cfg, "train", 1)
