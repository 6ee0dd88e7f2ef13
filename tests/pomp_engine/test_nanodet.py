"""NanoDet-g: its features, its boxes' sides, and the names of its weights."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("detectron2")

from hypothesis import given, settings
from hypothesis import strategies as st

from pomp_engine.backbones.nanodet import SIDE_BINS, NanoDet, side_lengths

TINY = (4, 8, 16, 32)


@pytest.fixture(scope="module")
def tiny() -> NanoDet:
    torch.manual_seed(0)
    return NanoDet(5, TINY, width=12).eval()


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 4), width=st.integers(1, 4))
def test_features_have_the_stated_shapes(tiny: NanoDet, height: int, width: int) -> None:
    with torch.no_grad():
        features = tiny(torch.randn(2, 3, 32 * height, 32 * width))
    shapes = tiny.output_shape()
    assert list(features) == list(shapes) == ["p3", "p4", "p5", "cells3", "cells4", "cells5"]
    for name, feature in features.items():
        stride = 2 ** int(name[-1])
        assert shapes[name].stride == stride
        assert shapes[name].channels == (12 if name[0] == "p" else 5 + 4 * SIDE_BINS)
        assert feature.shape == (2, shapes[name].channels, 32 * height // stride, 32 * width // stride)
    assert tiny.size_divisibility == 32


def test_a_cell_answers_for_its_place(tiny: NanoDet) -> None:
    """What changes in a corner of a photo changes the cells of that corner most."""
    photo = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    changed = photo.clone()
    changed[:, :, 200:, 200:] += 3
    with torch.no_grad():
        difference = (tiny(photo)["cells3"] - tiny(changed)["cells3"]).abs().sum(dim=1)[0]  # (32, 32)
    assert divmod(int(difference.argmax()), 32) >= (22, 22)
    assert difference[25:, 25:].mean() > 3 * difference[:12, :12].mean()


def test_side_lengths_are_the_means_of_their_distributions() -> None:
    logits = 3 * torch.randn(4, 4 * SIDE_BINS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = side_lengths(logits)
    for row in range(4):
        for side in range(4):
            weights = [math.exp(float(value)) for value in logits[row, side * SIDE_BINS : (side + 1) * SIDE_BINS]]
            mean = sum(number * weight for number, weight in enumerate(weights)) / sum(weights)
            assert float(found[row, side]) == pytest.approx(mean, rel=1e-12)
    assert side_lengths(logits[:0]).shape == (0, 4)
    torch.testing.assert_close(side_lengths(logits.T, dim=0), found.T, rtol=1e-12, atol=0)
    certain = torch.full((1, 4, SIDE_BINS), -100.0)
    for side, length in enumerate((0, 10, 3, 7)):
        certain[0, side, length] = 100
    assert side_lengths(certain.flatten(1)).tolist() == [[0, 10, 3, 7]]


def test_names_of_the_weights() -> None:
    """They stand in files."""
    state = NanoDet().state_dict()
    assert len(state) == 2 * 34
    assert sum(value.numel() for value in state.values()) == 3_786_068
    assert {name.rpartition(".")[2] for name in state} == {"weight", "bias"}
    expected = {
        "stem.0.weight": (32, 3, 3, 3),
        "stages.0.entry.0.weight": (32, 32, 3, 3),
        "stages.0.pairs.0.0.0.weight": (16, 32, 3, 3),
        "stages.3.pairs.2.1.0.weight": (128, 128, 3, 3),
        "stages.3.exit.0.weight": (256, 256, 3, 3),
        "lateral.0.weight": (128, 128, 1, 1),
        "lateral.2.weight": (128, 512, 1, 1),
        "hidden.1.0.weight": (128, 128, 3, 3),
        "cells.2.bias": (124,),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected
