"""How far generated features are from real ones: maximum mean discrepancy with several Gaussian kernels.

Generative moment matching (arXiv 1502.02761) as ZS3 (arXiv 1906.00817) and the published configurations of CaGNet
(arXiv 2008.06893) use it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prompt_core.errors import UserError

# Of ZS3's paper and CaGNet's code; ZS3's code has 80 as the last.
BANDWIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)


def moment_matching_loss(generated: Tensor, real: Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> Tensor:
    """The root of the summed squared discrepancies, a scalar.

    With k(x, y) = sum over b of exp(-|x - y|² / 2b)::

        sqrt(mean k(g, g') + mean k(r, r') - 2 mean k(g, r))

    over all pairs, those of a feature with itself too (the biased estimate, ``zs3/utils/loss_GMMN.py``).

    Args:
        generated: (M, D).
        real: (N, D); they may be other in number.

    Raises:
        UserError: no features on one side, other widths, or a bandwidth that is not positive.
    """
    if generated.dim() != 2 or real.dim() != 2 or generated.shape[1] != real.shape[1] or not len(generated) * len(real):
        raise UserError(f"features (M, D) and (N, D) are expected, given {tuple(generated.shape)}, {tuple(real.shape)}")
    if not bandwidths or min(bandwidths) <= 0:
        raise UserError(f"bandwidths above 0 are expected, given {tuple(bandwidths)}")
    both = torch.cat([generated, real])  # (M + N, D)
    products = both @ both.T
    squares = products.diagonal()
    halved = (products - 0.5 * squares[:, None] - 0.5 * squares[None]).clamp(max=0)  # minus half the squared distances
    share = torch.cat(
        [both.new_full((len(generated),), 1 / len(generated)), both.new_full((len(real),), -1 / len(real))]
    )
    total = sum((share @ torch.exp(halved / bandwidth) @ share for bandwidth in bandwidths), both.new_zeros(()))
    return total.clamp(min=1e-12).sqrt()  # the root of nothing has no gradient


def moments_by_class(
    generated: Tensor, real: Tensor, labels: Tensor, bandwidths: Sequence[float] = BANDWIDTHS
) -> Tensor:
    """The mean of :func:`moment_matching_loss` over the classes that occur.

    Args:
        generated: (P, D); the feature at a place was made for the class there.
        real: (P, D).
        labels: (P,).
    """
    losses = [
        moment_matching_loss(generated[labels == label], real[labels == label], bandwidths)
        for label in labels.unique().tolist()
    ]
    return torch.stack(losses).mean() if losses else generated.sum() * 0
