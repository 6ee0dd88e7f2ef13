"""Alignment and uniformity against their definitions."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core import TextClassifier, UserError, alignment, uniformity


def rows(count: int, seed: int, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 12), chunk_size=st.integers(1, 14), temperature=st.sampled_from([0.5, 2.0]))
def test_uniformity_is_the_log_mean_over_pairs(count: int, chunk_size: int, temperature: float) -> None:
    classes = rows(count, count)
    squared = [float((first - second).square().sum()) for first, second in itertools.combinations(classes, 2)]
    pairs = [math.exp(-temperature * distance) for distance in squared]
    value = uniformity(classes, temperature, chunk_size)
    assert value.shape == ()
    assert float(value) == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 12))
def test_alignment_is_the_mean_squared_distance(count: int) -> None:
    images, classes = rows(count, 1), rows(count, 2)
    distances = [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for x, y in zip(images, classes, strict=True)]
    assert float(alignment(images, classes)) == pytest.approx(float(sum(distances)) / count, abs=1e-12)


def test_extremes() -> None:
    classes = rows(5, 3)
    assert float(alignment(classes, classes)) == 0
    assert float(alignment(classes, -classes)) == pytest.approx(4)
    assert float(uniformity(classes[:1].expand(5, -1))) == pytest.approx(0, abs=1e-9)
    assert float(uniformity(torch.stack([classes[0], -classes[0]]))) == pytest.approx(-8)
    assert uniformity(classes.float()).dtype == torch.float32
    with pytest.raises(UserError, match="given 1 class"):
        uniformity(classes[:1])


@pytest.mark.parametrize(
    ("name", "published"),
    [("lvis_v1_clip_pomp+cname", -1.233), ("coco_clip_pomp+cname", -1.091), ("o365_fixname_clip_pomp+cname", -1.176)],
)
def test_published_class_matrices(shared: Path, name: str, published: float) -> None:
    files = sorted((shared / "data" / "clip_text").rglob(f"{name}.npy"))
    if not files:
        pytest.skip(f"no {name}.npy under {shared / 'data' / 'clip_text'}")
    assert float(np.linalg.norm(np.load(files[0]).astype(np.float32), axis=1).mean()) > 2, "stored unnormalised"
    classifier = TextClassifier.load(files[0])
    assert float(uniformity(classifier.weight)) == pytest.approx(published, abs=6e-4)
