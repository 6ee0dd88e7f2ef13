"""The readable reference: open_clip's own text tower on the full-length prompt.

Every fast path is tested against it. It is also the correct slower path for towers that are not causal or pool
differently, since open_clip runs them as usual; only the token embeddings are replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.text.shared_prefix import replace_context
from prompt_core.text.tower import TextTower


def encode_full_context(
    tower: TextTower, ids: Tensor, embeddings: Tensor, deep_context: Tensor | None = None
) -> Tensor:
    """Encode N prompts at full length (77 tokens) with open_clip's ``encode_text``.

    Args:
        ids: (N, 77) token ids, with any token for the context; they determine pooling and padding masks.
        embeddings: (N, 77, D) what the blocks see instead of the token embeddings, without positions.
        deep_context: (J, M, D), replaces positions 1..M at the input of blocks 1..J.

    Returns:
        (N, E) features, unit-norm unless the tower leaves that out.
    """
    replaced = _replaced_output(tower.token_embedding, embeddings), _deep_contexts(tower, deep_context)
    with replaced[0], replaced[1], tower.clip.autocast():
        features = tower.clip.model.encode_text(ids, normalize=False)  # type: ignore[operator]
    features = features if features.dtype == torch.float64 else features.float()
    return F.normalize(features, dim=-1) if tower.normalise else features


def encode_truncated(
    tower: TextTower, embeddings: Tensor, lengths: Tensor, deep_context: Tensor | None = None
) -> Tensor:
    """Encode N prompts cut after the longest one; exact for causal towers that pool at the end-of-text token.

    Args:
        embeddings: (N, L, D) with positions added.
        lengths: (N,) used positions of each.

    Returns:
        (N, E) features, unit-norm unless the tower leaves that out.
    """
    length = embeddings.shape[1]
    mask = torch.full((length, length), float("-inf"), dtype=embeddings.dtype, device=embeddings.device).triu(1)
    states = embeddings
    for index, block in enumerate(tower.blocks):
        if deep_context is not None and 1 <= index <= len(deep_context):
            states = replace_context(states, deep_context[index - 1])
        with tower.clip.autocast():
            states = block(states, attn_mask=mask)
    return tower.project(states[torch.arange(len(states), device=states.device), lengths - 1])


@contextlib.contextmanager
def _replaced_output(module: torch.nn.Module, output: Tensor) -> Iterator[None]:
    handle = module.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _deep_contexts(tower: TextTower, deep_context: Tensor | None) -> Iterator[None]:
    handles = []
    for index in range(0 if deep_context is None else len(deep_context)):

        def put_context(module: Any, inputs: tuple[Any, ...], index: int = index) -> tuple[Any, ...]:
            assert deep_context is not None
            return (replace_context(inputs[0], deep_context[index]), *inputs[1:])

        handles.append(tower.blocks[index + 1].register_forward_pre_hook(put_context))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
