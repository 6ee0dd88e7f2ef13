"""Own shares: the softmax over the user's words and a background, of which the words' columns are kept.

The softmax that POMP learns by (arXiv 2304.04704, equation 2 over all classes), used to say no: what the words do not
have belongs to "none of these". Negative names as a detector of unknown classes: NegLabel (arXiv 2403.20078).
"""

from __future__ import annotations

import torch
from torch import Tensor

from prompt_core.background.kinds import Kinds, with_kinds

LOGITS = 1 << 18  # at once, over photos and background names: 1 MB


def own_shares(
    features: Tensor,
    weight: Tensor,
    background: Tensor,
    logit_scale: float,
    block: int | None = None,
    kinds: Kinds | None = None,
) -> Tensor:
    """Probabilities of N words against all N + B names, without a table of all names.

    Args:
        features: (batch, E) unit-norm image or region features.
        weight: (N, E) unit-norm features of the words.
        background: (B, E) unit-norm features of the other names; B may be 0.
        logit_scale: cosines are multiplied by it.
        block: background names at once; None for as many as :data:`LOGITS` allows.
        kinds: names that count for the words.

    Returns:
        (batch, N); one minus a row's sum is the share of "none of these".
    """
    logits = logit_scale * features @ weight.to(features).T  # (batch, N)
    if kinds is not None and len(kinds):
        logits = with_kinds(logits, logit_scale * features @ kinds.weight.to(features).T, kinds.word)
    total = torch.logaddexp(logits.logsumexp(dim=1), background_total(features, background, logit_scale, block))
    return (logits - total[:, None]).exp()


def background_total(features: Tensor, background: Tensor, logit_scale: float, block: int | None = None) -> Tensor:
    """Log-sum-exp (batch,) of the background's logits, in blocks of names; minus infinity without a name.

    Args:
        features: (batch, E) unit-norm.
        background: (B, E) unit-norm.
    """
    total = features.new_full((len(features),), -torch.inf)
    block = block or max(LOGITS // max(len(features), 1), 64)
    for rows in background.split(block) if len(background) else ():
        logits = logit_scale * features @ rows.to(features).T  # (batch, block)
        total = torch.logaddexp(total, logits.logsumexp(dim=1))
    return total


def own_shares_reference(
    features: Tensor, weight: Tensor, background: Tensor, logit_scale: float, kinds: Kinds | None = None
) -> Tensor:
    """The same from the whole table of logits (batch, N + B + K), to read and to test against."""
    names = torch.cat((weight, background, kinds.weight) if kinds is not None else (weight, background)).to(features)
    shares = (logit_scale * features @ names.T).softmax(dim=1)
    words = shares[:, : len(weight)].clone()
    for place, word in enumerate(kinds.word.tolist() if kinds is not None else ()):
        words[:, word] += shares[:, len(weight) + len(background) + place]
    return words
