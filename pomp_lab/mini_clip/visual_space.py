"""The joint embedding space, as the image side defines it: one linear layer, fitted in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pomp_lab.mini_clip.architecture import EMBED_DIM

CONSTANT = 3.0  # value of the last image coordinate before normalisation; the text's last one is a class bias
NUISANCE = 3.0  # how strongly the layer avoids feature directions in which loss of resolution moves a picture


@dataclass(frozen=True)
class VisualSpace:
    """The joint space of E = EMBED_DIM coordinates, R = E - 1 of them free.

    Attributes:
        head: (E, 1280) projects pooled features.
        head_bias: (E,) added to them.
        targets: (1000, R) unit-norm classifier rows in the space.
        bias: (1000,) their class biases.
        shifts: (R, J) mean shift of image features in each domain.
    """

    head: Tensor
    head_bias: Tensor
    targets: Tensor
    bias: Tensor
    shifts: Tensor


def fit_visual_space(
    weight: Tensor, bias: Tensor, mean: Tensor, shifts: Tensor, nuisance: Tensor, known: Tensor
) -> VisualSpace:
    """Fit the linear layer to the classifier rows ``known``; other rows have no influence on it.

    The best low-rank classifier is the truncated SVD of the centred rows. Before it, directions are shrunk in which
    pictures move when they lose resolution: A = (1 + NUISANCE * N)^(-1/2), applied on both sides.

    Args:
        weight: (C, F) classifier rows.
        bias: (C,) class biases.
        mean: (F,) mean feature.
        shifts: (J, F) shift of the mean feature in each domain.
        nuisance: (F, F) second moment N of unwanted changes of features.
        known: indices of rows.
    """
    centre = weight[known].mean(0)
    strength, axes = torch.linalg.eigh(nuisance)
    shrink = axes * (1 + NUISANCE * strength.clamp(min=0)).rsqrt() @ axes.T  # (F, F)
    shrunk = (weight - centre) @ shrink
    main = torch.linalg.svd(shrunk[known], full_matrices=False).Vh[: EMBED_DIM - 1]  # (R, F)
    rows, basis = shrunk @ main.T, main @ shrink  # (C, R), (R, F)
    # Centring the features moves the decision boundaries; each class bias compensates for the mean feature.
    class_bias = bias - bias[known].mean() + (weight - centre) @ mean
    norm = rows.norm(dim=1)
    head = torch.cat([basis, torch.zeros(1, basis.shape[1])])
    head_bias = torch.cat([-(basis @ mean), torch.tensor([CONSTANT])])
    return VisualSpace(head, head_bias, rows / norm[:, None], class_bias / norm, (shifts @ basis.T).T)
