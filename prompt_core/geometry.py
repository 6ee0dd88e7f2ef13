"""Alignment and uniformity of features on the unit sphere (Wang and Isola, arXiv 2005.10242), lower is better."""

from __future__ import annotations

import torch
from torch import Tensor

from prompt_core.errors import UserError


def alignment(image_features: Tensor, class_features: Tensor) -> Tensor:
    """Mean squared distance of images to the feature of their own class.

    Args:
        image_features: (B, E) unit-norm.
        class_features: (B, E) unit-norm, the feature of each image's class.

    Returns:
        scalar; between 0 and 4.
    """
    return (image_features - class_features).square().sum(dim=-1).mean()


def uniformity(class_features: Tensor, temperature: float = 2.0, chunk_size: int = 2048) -> Tensor:
    """Log of the mean over unordered pairs of classes of ``exp(-temperature * squared distance)``.

    Args:
        class_features: (N, E) unit-norm, N >= 2.
        chunk_size: rows per pass; memory is chunk_size x N.

    Returns:
        scalar; 0 when all classes coincide.

    Raises:
        UserError: for fewer than two classes.
    """
    count = len(class_features)
    if count < 2:
        raise UserError(f"uniformity compares pairs of classes, given {count} class; give at least 2")
    total = class_features.new_zeros((), dtype=torch.float64)
    for start in range(0, count, chunk_size):
        rows = class_features[start : start + chunk_size]
        squared = (2 - 2 * rows @ class_features[start:].T).clamp(min=0)  # (n, N - start), pairs from the diagonal on
        total = total + torch.exp(-temperature * squared).triu(1).sum(dtype=torch.float64)
    return torch.log(total / (count * (count - 1) / 2)).to(class_features.dtype)
