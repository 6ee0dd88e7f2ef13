"""Boxes as images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from prompt_core.data.region_crops import region_crops


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.randint(0, 256, (3, 96, 128), generator=torch.Generator().manual_seed(0)).float()


def test_crops_cover_whole_pixels_inside_the_picture(picture: torch.Tensor) -> None:
    whole = F.interpolate(picture[None], size=(16, 16), mode="bicubic", antialias=True).clamp(0, 255)
    assert torch.equal(region_crops(picture, torch.tensor([[-50.0, -1, 200, 96]]), 16), whole)
    assert torch.equal(region_crops(picture, torch.tensor([[40.0, 40, 60, 60]]), 16, enlargement=20), whole)
    # Less than a pixel, and outside: the nearest pixel.
    crops = region_crops(picture, torch.tensor([[5.2, 7.2, 5.4, 7.4], [300.0, 300, 310, 310]]), 4)
    torch.testing.assert_close(crops[0], picture[:, 7:8, 5:6].expand(3, 4, 4))
    torch.testing.assert_close(crops[1], picture[:, -1:, -1:].expand(3, 4, 4))
    stripes = torch.zeros(3, 8, 8)
    stripes[:, :, 4:] = 255
    crop = region_crops(stripes.byte(), torch.tensor([[0.0, 0, 8, 8]]), 32)
    # Bicubic alone would overshoot.
    assert crop.min() == 0
    assert crop.max() == 255
    assert region_crops(picture, torch.zeros(0, 4), 16).shape == (0, 3, 16, 16)
