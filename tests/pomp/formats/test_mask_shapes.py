"""Polygons that are filled again are the mask, whatever its shape."""

from __future__ import annotations

import numpy as np
import pytest

from pomp.formats.brush_runs import brush_of_mask, mask_of_brush
from pomp.formats.mask_shapes import (
    mask_of_pixels,
    mask_of_polygons,
    one_polygon,
    pixels_of_mask,
    polygons_of_mask,
)
from prompt_core.errors import UserError


def drawn(*rows: str) -> np.ndarray:
    return np.array([[sign == "#" for sign in row] for row in rows])


RING = drawn("######", "#....#", "#.##.#", "#.##.#", "#....#", "######")
TIPS = drawn("##..", "##..", "..##", "..##")
COMB = drawn("#.#.#", "#####", "#.#.#", ".#.#.")


@pytest.mark.parametrize("pixels", [RING, TIPS, TIPS[:, ::-1], COMB, ~RING, ~COMB, np.ones((1, 1), dtype=bool)])
def test_known_shapes(pixels: np.ndarray) -> None:
    mask, size = mask_of_pixels(pixels), pixels.shape
    assert (pixels_of_mask(mask_of_polygons(polygons_of_mask(mask), *size)) == pixels).all()
    assert (pixels_of_mask(mask_of_polygons([one_polygon(mask, 0)], *size)) == pixels).all()


def test_parts_and_holes_are_told_apart() -> None:
    # the ring with its hole is one polygon, what lies in the hole another; pixels that touch by their tips are two
    assert len(polygons_of_mask(mask_of_pixels(RING))) == 2
    assert len(polygons_of_mask(mask_of_pixels(TIPS))) == 2


def test_random_masks() -> None:
    generator = np.random.default_rng(0)
    for share in np.linspace(0.05, 0.95, 60):
        pixels = generator.random(generator.integers(1, 14, 2)) < share
        mask = mask_of_pixels(pixels)
        if not pixels.any():
            assert polygons_of_mask(mask) == one_polygon(mask) == []
            continue
        assert (pixels_of_mask(mask_of_polygons(polygons_of_mask(mask), *pixels.shape)) == pixels).all()
        assert (pixels_of_mask(mask_of_polygons([one_polygon(mask, 0)], *pixels.shape)) == pixels).all()
        assert mask_of_brush(brush_of_mask(mask), pixels.shape[1], pixels.shape[0], "") == mask


def test_straightened_edges_stay_near() -> None:
    y, x = np.mgrid[:200, :300]
    pixels = ((y - 100) ** 2 / 90**2 + (x - 150) ** 2 / 120**2) < 1
    mask = mask_of_pixels(pixels)
    fewer = one_polygon(mask)
    assert len(fewer) < len(one_polygon(mask, 0)) / 4
    filled = pixels_of_mask(mask_of_polygons([fewer], 200, 300))
    assert (filled & pixels).sum() / (filled | pixels).sum() > 0.98


def test_long_runs_of_a_brush() -> None:
    # 640 x 480 pixels of one kind are more than one length can say
    pixels = np.zeros((480, 640), dtype=bool)
    pixels[400:, :] = True
    mask = mask_of_pixels(pixels)
    assert mask_of_brush(brush_of_mask(mask), 640, 480, "") == mask


def test_a_brush_of_single_values() -> None:
    # what Label Studio writes where neighbours differ: bit 0, then one value after the other
    values = [0, 0, 0, 0, 9, 9, 9, 255, 9, 9, 9, 0]
    bits = f"{len(values):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + f"0{1:02b}{len(values) - 1:04b}"
    bits += "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    brush = [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]
    assert pixels_of_mask(mask_of_brush(brush, 3, 1, "")).tolist() == [[False, True, False]]


@pytest.mark.parametrize("brush", [[], [0] * 3, [0, 0, 0, 16, 58, 91, 124], [255] * 40])
def test_damaged_brushes_are_refused(brush: list[int]) -> None:
    with pytest.raises(UserError, match="brush"):
        mask_of_brush(brush, 2, 2, "a.json")
