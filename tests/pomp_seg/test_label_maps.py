"""Label maps are read back as they were written, or named."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("detectron2")

from PIL import Image

from pomp_seg.data.label_maps import read_label_map, write_label_map
from prompt_core.errors import UserError


@pytest.mark.filterwarnings("ignore")  # of Pillow, about what it sees in a damaged file
@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("classes", [5, 300])
def test_a_flipped_bit_is_never_another_label_map(tmp_path: Path, classes: int, flips: int) -> None:
    path, places = tmp_path / "map.png", random.Random(classes)
    labels = np.kron(np.random.default_rng(0).integers(0, classes, (9, 11)), np.ones((5, 5), dtype=np.int64))
    write_label_map(path, labels, classes)
    whole = path.read_bytes()
    assert (read_label_map(path) == labels).all()
    for _ in range(flips):
        damaged = bytearray(whole)
        damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"map\.png"):
            read_label_map(path)


def test_other_formats_and_what_follows_an_image_are_read(tmp_path: Path) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for name in ("map.png", "map.tif", "map.bmp"):
        Image.fromarray(labels).save(tmp_path / name)
        with (tmp_path / name).open("ab") as stream:
            stream.write(b"more")
        assert (read_label_map(tmp_path / name) == labels).all()
