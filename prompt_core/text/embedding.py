"""Token embeddings with the learned context in its slots (:mod:`prompt_core.text.tokens`)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from prompt_core.text.tower import TextTower
from prompt_core.towers.placement import upload


def embed_tokens(tower: TextTower, ids: np.ndarray, rows: np.ndarray | None, contexts: Tensor | None) -> Tensor:
    """Embeddings of T ids and context slots.

    Args:
        ids: (T,) token ids, and slots below 0.
        rows: (T,) class of each token, when the contexts are class-specific.
        contexts: (B, L, D), or (1, N, L, D) with ``rows``.

    Returns:
        (B, T, D), or (1, T, D) where no slot occurs.
    """
    embedded = tower.embed(upload(np.maximum(ids, 0), tower.device))[None]
    slots = np.flatnonzero(ids < 0)
    if contexts is None or not len(slots):
        return embedded
    vector_rows = upload(-1 - ids[slots], tower.device)
    contexts = contexts.to(device=tower.device, dtype=embedded.dtype)
    if rows is None:
        vectors = contexts[:, vector_rows]  # (B, slots, D)
    else:
        vectors = contexts[:, upload(rows[slots], tower.device), vector_rows]
    places = upload(slots, tower.device)
    return embedded.expand(len(vectors), -1, -1).index_copy(1, places, vectors)


def embed_rows(tower: TextTower, ids: np.ndarray, rows: np.ndarray | None, context: Tensor) -> Tensor:
    """The same for N sequences: ids (N, L) and, where contexts are class-specific, classes (N,) give (N, L, D)."""
    token_rows = None if rows is None else np.repeat(rows, ids.shape[1])
    flat = embed_tokens(tower, ids.reshape(-1), token_rows, context[None])
    return flat[0].view(*ids.shape, -1)
