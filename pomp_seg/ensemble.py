"""How the two opinions on a mask proposal's class become one."""

from __future__ import annotations

import torch
from torch import Tensor


def geometric_ensemble(query: Tensor, region: Tensor, seen: Tensor | None, weight: float) -> Tensor:
    """ZSSeg's ensemble (arXiv 2112.14757, section 4.3), not renormalised.

    Seen classes get ``query ** w * region ** (1 - w)``, unseen ones the two exponents the other way round. Where it is
    not known which classes were seen, all are treated as unseen, as published.

    Args:
        query: class probabilities (Q, C) of the learned embedding.
        region: class probabilities (Q, C) of CLIP; ones for regions that it did not see.
        seen: (C,) bool, or None.
        weight: w in 0..1.

    Returns:
        (Q, C).
    """
    unseen_form = query ** (1 - weight) * region**weight
    if seen is None:
        return unseen_form
    return torch.where(seen.to(query.device), query**weight * region ** (1 - weight), unseen_form)


def class_maps(classes: Tensor, masks: Tensor) -> Tensor:
    """Class scores (C, H, W) of each pixel: those of proposals (Q, C), weighted by mask probabilities (Q, H, W)."""
    return torch.einsum("qc,qhw->chw", classes, masks)
