"""The classes of a step, encoded once for all ranks of a job: each encodes its share, balanced by tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prompt_core.methods.base import Method
from prompt_core.ranks.balance import balanced_shares
from prompt_core.ranks.ranks import Ranks
from prompt_core.vocabulary import Vocabulary

_counted: list[tuple[Vocabulary, np.ndarray]] = []  # the last two: every step asks for its classes, and an anchor's


def class_shares(method: Method, vocabulary: Vocabulary, rows: Tensor | None, ranks: Ranks) -> list[Tensor]:
    """Places in ``rows`` (n,) that each rank encodes, ascending; None stands for all rows of the vocabulary.

    Work is counted in tokens of names. Namesakes are on one rank, whose encoder encodes their name once.
    """
    if ranks.size == 1:
        return [torch.arange(len(vocabulary) if rows is None else len(rows))]
    wanted = np.arange(len(vocabulary)) if rows is None else rows.cpu().numpy()
    shares = balanced_shares(_name_tokens(method, vocabulary)[wanted], ranks.size, vocabulary.name_groups[wanted])
    return [torch.from_numpy(share) for share in shares]


def own_class_features(
    method: Method,
    vocabulary: Vocabulary,
    rows: Tensor | None,
    shares: Sequence[Tensor],
    chunk_size: int | None,
    ranks: Ranks,
) -> Tensor:
    """:meth:`Method.class_features` (n_r, E) of this rank's share of ``rows``.

    They have a gradient on all ranks or on none, also where a rank has no share. ``ranks.gather_rows`` with the shares
    makes those of all rows of them; its gradient goes into what is learned on the rank that encoded a row.
    """
    if ranks.size == 1:
        return method.class_features(vocabulary, rows, None, chunk_size)
    own = shares[ranks.rank] if rows is None else rows[shares[ranks.rank].to(rows.device)]
    if len(own):
        return method.class_features(vocabulary, own, None, chunk_size)
    return method.class_features(vocabulary, torch.zeros(1, dtype=torch.long), None, chunk_size)[:0]


def _name_tokens(method: Method, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) tokens of each name; where names do not go through CLIP's tokenizer, all count alike."""
    for known, tokens in _counted:
        if known is vocabulary:
            return tokens
    if method.clip.has_byte_pairs and not method.encoder.texts_only:
        tokens = method.encoder.tokenizer.prompts(vocabulary.names, 0).lengths
    else:
        tokens = np.ones(len(vocabulary), dtype=np.int64)
    _counted[:] = [*_counted[-1:], (vocabulary, tokens)]
    return tokens
