"""The text tower: an open_clip transformer, its starting weights, and a forward pass that is fast to train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.mini_clip.architecture import (
    CONTEXT_LENGTH,
    EMBED_DIM,
    EOT,
    HEADS,
    LAYERS,
    TOKEN_STD,
    VOCABULARY_SIZE,
    WIDTH,
    bpe_tokenizer,
)

if TYPE_CHECKING:
    from open_clip.transformer import TextTransformer


def new_tower(seed: int, token_embeddings: Tensor) -> TextTransformer:
    """An untrained text tower whose word vectors are the main axes of the teacher's (V, 384) embeddings of them."""
    from open_clip.transformer import TextTransformer

    torch.manual_seed(seed)
    tower = TextTransformer(CONTEXT_LENGTH, VOCABULARY_SIZE, WIDTH, HEADS, LAYERS, output_dim=EMBED_DIM)
    centred = token_embeddings - token_embeddings.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -WIDTH:]
    start = centred @ axes  # (V, W)
    with torch.no_grad():
        tower.token_embedding.weight[: len(start)] = start * (TOKEN_STD / start.std())
    return tower


def suffix_tokens(text: str) -> list[int]:
    """Token ids of a name and what follows it, with the end-of-text token."""
    return [*bpe_tokenizer().encode(text), EOT]


def pad_suffixes(suffixes: Sequence[Sequence[int]], groups: int = 1) -> tuple[Tensor, Tensor]:
    """G x N suffixes as token ids (G, N, S), padded with 0, and the place (G, N) of each end-of-text token."""
    longest = max(map(len, suffixes))
    ids = torch.tensor([[*suffix, *[0] * (longest - len(suffix))] for suffix in suffixes])
    last = torch.tensor([len(suffix) - 1 for suffix in suffixes])
    return ids.view(groups, -1, longest), last.view(groups, -1)


def encode(tower: TextTransformer, prefix: Tensor, suffix: Tensor, last: Tensor) -> Tensor:
    """Text features (G, N, E), not normalised, of N names under each of G prefixes.

    Under the causal mask the prefix does not see the names: it is computed once per group, and the names attend to it.

    Args:
        prefix: (G, P, W) vectors, beginning with that of the start token.
        suffix: (G, N, S) token ids.
        last: (G, N) place of the end-of-text token in the suffix.
    """
    start, width = prefix.shape[1:]
    count, length = suffix.shape[1:]
    heads = tower.transformer.resblocks[0].attn.num_heads
    position = tower.positional_embedding
    before = prefix + position[:start]  # (G, P, W)
    after = tower.token_embedding(suffix) + position[start : start + length]  # (G, N, S, W)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(-2, -3)  # (..., L, W) -> (..., heads, L, W / heads)

    for block in tower.transformer.resblocks:
        attention = block.attn
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        query, key, value = map(split, F.linear(block.ln_1(before), weight, bias).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        # (G, heads, N, S, W / heads); thousands of tiny matrices are faster as sums than as matrix products.
        own_query, own_key, own_value = (
            split(part.flatten(1, 2)).unflatten(2, (count, length)).float()
            for part in F.linear(block.ln_1(after), weight, bias).chunk(3, -1)
        )
        shared = (own_query.flatten(2, 3) @ key.transpose(-1, -2)).unflatten(2, (count, length))
        within = (own_query[..., None, :] * own_key[..., None, :, :]).sum(-1).masked_fill(future, -torch.inf)
        # (G, heads, N, S, P + S)
        weights = (torch.cat([shared, within], -1).float() / math.sqrt(width // heads)).softmax(-1)
        own_mixed = (weights[..., :start].flatten(2, 3) @ value).unflatten(2, (count, length))
        own_mixed = own_mixed + (weights[..., start:, None] * own_value[..., None, :, :]).sum(-2)
        before = before + attention.out_proj(mixed.transpose(1, 2).flatten(2))
        after = after + attention.out_proj(own_mixed.permute(0, 2, 3, 1, 4).flatten(3))
        before = before + block.mlp(block.ln_2(before))
        after = after + block.mlp(block.ln_2(after))
    at_eot = after.gather(2, last[..., None, None].expand(-1, -1, 1, width)).squeeze(2)  # (G, N, W)
    return tower.ln_final(at_eot) @ tower.text_projection
