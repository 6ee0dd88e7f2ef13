"""Attention in two parts is attention over both, with its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prompt_core.text.attention import Sight, attend, attend_backward, plain_attention, plain_attention_backward
from prompt_core.text.suffix_pack import pack_suffixes

from .test_suffix_pack import sequences

HEADS, HEAD = 2, 8


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("batch", [1, 3])
def test_both_parts_are_the_whole(batch: int) -> None:
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
    sight = Sight.of(pack, common, batch, qkv.dtype, qkv.device)
    attended, out = torch.empty_like(expected), torch.empty_like(qkv)
    log_sums = attend(qkv, common, sight, attended)
    attend_backward(weights, qkv, common, sight, attended, log_sums, out)
    torch.testing.assert_close(attended, expected.detach(), atol=1e-13, rtol=0)
    torch.testing.assert_close(log_sums, scores.logsumexp(dim=-1).transpose(1, 2).detach(), atol=1e-13, rtol=0)
    torch.testing.assert_close(out, gradient, atol=1e-12, rtol=0)


def test_plain_attention_is_torchs() -> None:
    """What runs on devices whose kernels do not give the sums."""
    query, key, value = (random(2, HEADS, count, HEAD, seed=count).requires_grad_() for count in (5, 7, 7))
    terms = torch.zeros(5, 7, dtype=torch.float64).masked_fill(torch.ones(5, 7).triu(3).bool(), float("-inf"))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=terms)
    weights = random(*expected.shape, seed=3)
    gradients = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    with torch.no_grad():
        got, log_sums = plain_attention(query, key, value, terms)
        torch.testing.assert_close(got, expected, atol=1e-13, rtol=0)
        found = plain_attention_backward(weights, query, key, value, got, log_sums, terms)
    for gradient, target in zip(found, gradients, strict=True):
        torch.testing.assert_close(gradient, target, atol=1e-13, rtol=0)
