"""CLIP's towers written out with plain functions, as the oracle of everything that changes what their blocks see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def plain_block(block: Any, states: Tensor, mask: Tensor | float = 0.0) -> Tensor:
    """A transformer block: attention head by head, then the MLP."""
    normed = F.layer_norm(states, states.shape[-1:], block.ln_1.weight, block.ln_1.bias)
    query, key, value = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    width = states.shape[-1] // block.attn.num_heads
    heads = []
    for head in range(block.attn.num_heads):
        q, k, v = (part[..., head * width : (head + 1) * width] for part in (query, key, value))
        heads.append((q @ k.transpose(1, 2) / width**0.5 + mask).softmax(dim=-1) @ v)
    states = states + block.ls_1(block.attn.out_proj(torch.cat(heads, dim=-1)))
    hidden = block.mlp.c_fc(F.layer_norm(states, states.shape[-1:], block.ln_2.weight, block.ln_2.bias))
    return states + block.ls_2(block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden)))


def plain_vision(visual: Any, pixels: Tensor, tokens: Tensor | None) -> Tensor:
    """Unit-norm features with tokens (J, M, W): behind the patches, replaced at the inputs of blocks 1..J - 1."""
    patches = F.conv2d(pixels, visual.conv1.weight, stride=visual.conv1.stride).flatten(2).transpose(1, 2)
    states = torch.cat([visual.class_embedding.expand(len(pixels), 1, -1), patches], dim=1)
    states = states + visual.positional_embedding
    length = states.shape[1]
    if tokens is not None:
        states = torch.cat([states, tokens[0].expand(len(pixels), -1, -1)], dim=1)
    states = visual.ln_pre(states)
    for index, block in enumerate(visual.transformer.resblocks):
        if tokens is not None and 0 < index < len(tokens):
            states = torch.cat([states[:, :length], tokens[index].expand(len(pixels), -1, -1)], dim=1)
        states = plain_block(block, states)
    pooled, _ = visual._pool(states[:, :length])  # tokens take no part in any pooling
    return F.normalize(pooled @ visual.proj, dim=-1)


def plain_text(model: Any, embeddings: Tensor, ends: Tensor, deep: Sequence[Tensor] = ()) -> Tensor:
    """Unit-norm features of N prompts of 77 token embeddings.

    Args:
        ends: (N,) places of the end-of-text tokens.
        deep: (M, D) each, in the place of positions 1..M at the inputs of blocks 1, 2, ...
    """
    states = embeddings + model.positional_embedding
    mask = torch.full((states.shape[1], states.shape[1]), float("-inf"), dtype=states.dtype).triu(1)
    for index, block in enumerate(model.transformer.resblocks):
        if 0 < index <= len(deep):
            new = deep[index - 1]
            states = torch.cat([states[:, :1], new.expand(len(states), -1, -1), states[:, 1 + len(new) :]], dim=1)
        states = plain_block(block, states, mask)
    return F.normalize(model.ln_final(states)[torch.arange(len(states)), ends] @ model.text_projection, dim=-1)
