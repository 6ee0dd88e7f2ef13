"""The shared-prefix forward pass: what all classes have in common is encoded once.

In a causal tower the states of a prefix do not depend on what follows. So the prefix runs through the tower alone,
once, and the tokens of every class attend to its keys and values and to their own. The result is exact; the cost per
class falls from 77 tokens to the few of the class itself. Hydragen (arXiv 2402.05099) uses the same observation for the
inference of language models, Prefix Grouper (arXiv 2506.05433) for their training.

Letters in shape comments: B prefixes (1, or one per image), N classes, T packed suffix tokens, P prefix tokens,
s tokens of one suffix, H heads, d width of a head, D = H d width of the tower, E embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_core.text.tokens import TokenSequences
from prompt_core.text.tower import TextTower

QUICK_GELU = 1.702  # slope of OpenAI's approximation of GELU


@dataclass(frozen=True)
class SuffixPack:
    """Suffixes of N classes laid end to end, shortest first, without padding.

    Attributes:
        ids: (T,) token ids and context slots.
        rows: (T,) class that each token belongs to.
        positions: (T,) position in the sequence.
        groups: runs of equally long suffixes as (first token, number of classes, length).
        ends: (N,) index into the pack of each class's end-of-text token, classes in pack order.
        unsort: (N,) place in pack order of each class.
    """

    ids: np.ndarray
    rows: np.ndarray
    positions: np.ndarray
    groups: tuple[tuple[int, int, int], ...]
    ends: np.ndarray
    unsort: np.ndarray


def pack_suffixes(sequences: TokenSequences) -> SuffixPack:
    """Lay the suffixes of ``sequences`` end to end, sorted by length."""
    suffix_lengths = sequences.lengths - sequences.prefix_length
    order = np.argsort(suffix_lengths, kind="stable")
    sorted_lengths = suffix_lengths[order]
    rows = np.repeat(order, sorted_lengths)
    ends = np.cumsum(sorted_lengths) - 1
    starts = ends - sorted_lengths + 1
    positions = sequences.prefix_length + np.arange(len(rows)) - np.repeat(starts, sorted_lengths)
    values, counts = np.unique(sorted_lengths, return_counts=True)
    groups, token = [], 0
    for length, count in zip(values.tolist(), counts.tolist(), strict=True):
        groups.append((token, count, length))
        token += count * length
    unsort = np.empty_like(order)
    unsort[order] = np.arange(len(order))
    return SuffixPack(sequences.ids[rows, positions], rows, positions, tuple(groups), ends, unsort)


def encode_shared_prefix(
    tower: TextTower,
    prefix: Tensor,
    suffix: Tensor,
    pack: SuffixPack,
    deep_context: Tensor | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """End-of-text states of N classes after B prefixes, before the final norm.

    Args:
        tower: a tower without :attr:`TextTower.sharing_obstacle`.
        prefix: (B, P, D) embeddings with positions added.
        suffix: (B, T, D) likewise, in pack order.
        pack: where each suffix is.
        deep_context: (J, M, D), replaces positions 1..M of the prefix at the input of blocks 1..J (MaPLe).
        keep: (blocks, B, P + T, D), receives the input of each block.

    Returns:
        (B, N, D) states, classes in their original order.
    """
    common = prefix.shape[1]
    states = torch.cat([prefix, suffix], dim=1)  # (B, P + T, D)
    for index, block in enumerate(tower.blocks):
        if deep_context is not None and 1 <= index <= len(deep_context):
            states = replace_context(states, deep_context[index - 1])
        if keep is not None:
            keep[index] = states
        last = index == len(tower.blocks) - 1
        states = contract(block, *attend_and_expand(block, states, tower.heads, common, pack, last))
    return states[:, torch.from_numpy(pack.unsort).to(states.device)]


def replace_context(states: Tensor, context: Tensor) -> Tensor:
    """Put ``context`` (M, D) over positions 1..M of ``states`` (B, L, D), as MaPLe does between blocks."""
    return torch.cat(
        [states[:, :1], context.to(states.dtype).expand(len(states), -1, -1), states[:, 1 + len(context) :]], dim=1
    )


def attend_and_expand(
    block: Any, states: Tensor, heads: int, common: int, pack: SuffixPack, last: bool
) -> tuple[Tensor, Tensor]:
    """A block up to its last projection: the first ``common`` tokens attend among themselves, suffixes to them too.

    Args:
        states: (B, P + T, D), the prefix before the packed suffixes.
        last: whether only the end-of-text states leave the block, so that only they are queries and pass the MLP.

    Returns:
        (B, L, D) states after attention and (B, L, 4D) hidden states of the MLP, up to the factor that
        :func:`contract` expects; L is P + T, or N if ``last``.
    """
    normed = block.ln_1(states)
    if last:
        ends = torch.from_numpy(pack.ends + common).to(states.device)
        states = states[:, ends]  # (B, N, D)
        (query,) = _project(block, normed[:, ends], heads, "q")
        key, value = _project(block, normed, heads, "kv")
    else:
        query, key, value = _project(block, normed, heads, "qkv")
    prefix_key, key = key[:, :, :common], key[:, :, common:]
    prefix_value, value = value[:, :, :common], value[:, :, common:]
    if last:
        attended = _suffix_attention(query, key, value, prefix_key, prefix_value, pack.groups, True)
    else:
        prefix_query, query = query[:, :, :common], query[:, :, common:]
        outer = F.scaled_dot_product_attention(prefix_query, prefix_key, prefix_value, is_causal=True)
        inner = _suffix_attention(query, key, value, prefix_key, prefix_value, pack.groups, False)
        attended = torch.cat([outer, inner], dim=2)  # (B, H, P + T, d)
    states = states + block.ls_1(block.attn.out_proj(attended.transpose(1, 2).flatten(2)))
    normed = block.ln_2(states)
    if not _is_quick_gelu(block):
        return states, block.mlp.gelu(block.mlp.c_fc(normed))
    # x sigmoid(1.702 x) is silu(1.702 x) / 1.702: one kernel that keeps one tensor, where open_clip's module runs three
    # and keeps two. The product before it includes the factor, the residual after it removes it, both at no cost.
    layer = block.mlp.c_fc
    scaled = torch.addmm(layer.bias, normed.flatten(0, 1), layer.weight.t(), beta=QUICK_GELU, alpha=QUICK_GELU)
    return states, F.silu(scaled).view(*normed.shape[:-1], -1)


def contract(block: Any, states: Tensor, hidden: Tensor) -> Tensor:
    """The rest of a block: the last projection of the MLP, and the residual."""
    layer = block.mlp.c_proj
    if _is_quick_gelu(block):
        product = F.linear(hidden, layer.weight, QUICK_GELU * layer.bias)
        return torch.add(states, block.ls_2(product), alpha=1 / QUICK_GELU)
    return states + block.ls_2(layer(hidden))


def contract_gradient(block: Any, gradient: Tensor) -> Tensor:
    """Gradient (B, L, 4D) at the hidden states, given the one at the output of :func:`contract`, (B, L, D)."""
    gamma = getattr(block.ls_2, "gamma", None)
    gradient = gradient if gamma is None else gradient * gamma
    return (gradient / QUICK_GELU if _is_quick_gelu(block) else gradient) @ block.mlp.c_proj.weight


def _is_quick_gelu(block: Any) -> bool:
    return type(block.mlp.gelu).__name__ == "QuickGELU"


def _project(block: Any, normed: Tensor, heads: int, parts: str) -> list[Tensor]:
    """Queries, keys and values: (B, L, D) to one (B, H, L, d) for each letter of ``parts``."""
    attention: nn.MultiheadAttention = block.attn
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    width = weight.shape[1]
    first = "qkv".index(parts[0]) * width
    rows = slice(first, first + len(parts) * width)
    packed = F.linear(normed, weight[rows], bias[rows] if bias is not None else None)
    batch, length, _ = packed.shape
    return list(packed.view(batch, length, len(parts), heads, -1).permute(2, 0, 3, 1, 4).unbind(0))


def _suffix_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    groups: tuple[tuple[int, int, int], ...],
    ends_only: bool,
) -> Tensor:
    """Attention of suffix tokens over the prefix, read in place, and over their own suffix up to themselves.

    All queries meet the prefix in one product; the scores within suffixes are added per group of equal length, and
    one softmax runs over both.

    Args:
        query: (B, H, T, d), or (B, H, N, d) with ``ends_only``.
        key, value: (B, H, T, d).
        prefix_key, prefix_value: (B, H, P, d).

    Returns:
        (B, H, T or N, d).
    """
    batch, heads, _, width = key.shape
    prefix_length = prefix_key.shape[2]
    query = query * width**-0.5
    prefix_scores = query @ prefix_key.transpose(2, 3)  # (B, H, T, P)
    prefix_weights, own_values = [], []
    first_query = 0
    for token, count, length in groups:
        asked = 1 if ends_only else length
        queries = slice(first_query, first_query + count * asked)
        tokens = slice(token, token + count * length)
        first_query += count * asked
        group_query = query[:, :, queries].reshape(batch, heads, count, asked, width)
        group_key = key[:, :, tokens].reshape(batch, heads, count, length, width)
        group_value = value[:, :, tokens].reshape(batch, heads, count, length, width)
        scores = group_query @ group_key.transpose(3, 4)  # (B, H, n, s or 1, s)
        if not ends_only:
            later = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        outer = prefix_scores[:, :, queries].reshape(batch, heads, count, asked, prefix_length)
        weights = torch.cat([outer, scores], dim=-1).softmax(dim=-1)
        prefix_weights.append(weights[..., :prefix_length].flatten(2, 3))
        own_values.append((weights[..., prefix_length:] @ group_value).flatten(2, 3))
    return torch.cat(prefix_weights, dim=2) @ prefix_value + torch.cat(own_values, dim=2)
