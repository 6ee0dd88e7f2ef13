"""Two experts on the same classes, of which each is trusted more on its own: seen and unseen ones."""

from __future__ import annotations

import torch
from torch import Tensor

from prompt_core.towers.placement import upload


def geometric_ensemble(query: Tensor, region: Tensor, seen: Tensor | None, weight: float) -> Tensor:
    """The ensemble of ViLD (arXiv 2104.13921, equation 5) and ZSSeg (arXiv 2112.14757, section 4.3), not renormalised.

    Seen classes get ``query ** w * region ** (1 - w)``, unseen ones the two exponents the other way round. Where it is
    not known which classes were seen, all are treated as unseen, as ZSSeg does.

    Args:
        query: class probabilities (Q, C) of what was learned on the seen classes.
        region: class probabilities (Q, C) of CLIP, or of what learned from it; ones for regions that it did not see.
        seen: (C,) bool, or None.
        weight: w in 0..1.

    Returns:
        (Q, C).
    """
    unseen_form = query ** (1 - weight) * region**weight
    if seen is None:
        return unseen_form
    return torch.where(upload(seen, query.device), query**weight * region ** (1 - weight), unseen_form)
