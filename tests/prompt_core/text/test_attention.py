"""Attention over a prefix read in place and over rows of a pack is attention over both, with its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prompt_core.text.attention import Attended, SharedPrefixAttention
from prompt_core.text.suffix_pack import pack_suffixes

from .test_suffix_pack import sequences

HEADS, HEAD = 2, 8


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("batch", [1, 3])
def test_it_is_attention_over_all_tokens(batch: int) -> None:
    common, pack = 4, pack_suffixes(sequences([3, 1, 17, 5, 2, 2, 30], 4))
    tokens = common + len(pack.ids)
    qkv = random(batch, tokens, 3, HEADS, HEAD, seed=0).requires_grad_()
    # What each token sees, of all tokens at once.
    seen = torch.zeros(tokens, tokens, dtype=torch.bool)
    seen[:common, :common] = torch.ones(common, common, dtype=torch.bool).tril()
    seen[common:, :common] = True
    seen[common:, common:] = torch.block_diag(*torch.from_numpy(pack.visible)).bool()
    query, key, value = qkv.transpose(1, 3).unbind(2)
    scores = (query @ key.transpose(-1, -2) * HEAD**-0.5).masked_fill(~seen, float("-inf"))
    expected = (scores.softmax(dim=-1) @ value).transpose(1, 2)  # (B, L, H, d)
    weights = random(*expected.shape, seed=1)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), qkv)

    qkv = qkv.detach()
    attention = SharedPrefixAttention(pack, common, batch, HEADS, qkv.dtype, qkv.device)
    kept = Attended(*(torch.empty(shape, dtype=qkv.dtype) for shape in attention.shapes(HEAD)))
    out = torch.empty_like(qkv)
    torch.testing.assert_close(attention.forward(qkv, kept), expected.detach(), atol=1e-13, rtol=0)
    attention.backward(weights, kept, out)
    torch.testing.assert_close(out, gradient, atol=1e-12, rtol=0)
