"""The full softmax over classes of which each rank has some: no rank needs the others' class features."""

from __future__ import annotations

import torch
from torch import Tensor

from prompt_core.ranks.ranks import Ranks


def shared_cross_entropy(
    logits: Tensor, columns: Tensor, labels: Tensor, own: Tensor, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the columns of all ranks.

    Args:
        logits: (B, n) of all images of a step against the classes of this rank; -inf where a class does not count.
        columns: (n,) which classes these are, ascending; a rank may have none.
        labels: (B,) the same on all ranks.
        own: (b,) the images of this rank.

    Returns:
        a scalar, whose sum over ranks is the sum of the losses of all images; and (b,) booleans, whether the label is
        the class with the highest logit, the first of several.
    """
    nothing = torch.iinfo(columns.dtype).max  # behind all classes, in a last column that is never the best
    columns = torch.cat([columns, columns.new_full((1,), nothing)])  # (n + 1,)
    padded = torch.cat([logits, logits.new_full((len(logits), 1), float("-inf"))], dim=1)  # (B, n + 1)
    highest = padded.detach().max(dim=1)
    top = ranks.largest(highest.values)  # (B,)
    answers = columns[highest.indices].where(highest.values == top, columns[-1])
    answers = ranks.smallest(answers)  # (B,)
    total = ranks.add((logits - top[:, None]).exp().sum(dim=1))  # (B,)
    places = torch.searchsorted(columns, labels)[:, None]  # (B, 1)
    targets = padded.gather(1, places)[:, 0].where(columns[places[:, 0]] == labels, padded.new_zeros(()))
    return (top + total.log())[own].sum() - targets.sum(), (answers == labels)[own]
