"""Attention of many suffixes after one prefix, and its gradient, without a copy of the prefix for each suffix.

A suffix token sees the prefix and its own suffix. Its scores with the prefix are one product of all tokens with the
prefix's keys, read in place; those with its suffix are a product for each row of the pack; one softmax runs over both.

Letters in shape comments: B prefixes, L = P + T tokens, P of the prefix, T of the pack in R rows of r, H heads of d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prompt_core.text.suffix_pack import SuffixPack
from prompt_core.towers.placement import upload


@dataclass
class Attended:
    """What the gradient of attention needs.

    Attributes:
        suffix, prefix: (3, B H, T, d) and (3, B H, P, d), queries times d^-0.5, keys and values.
        weights: (B H, T, P + r), of each suffix token for the prefix and for its row of the pack.
        prefix_weights: (B H, P, P).
    """

    suffix: Tensor
    prefix: Tensor
    weights: Tensor
    prefix_weights: Tensor


class SharedPrefixAttention:
    """Attention over one pack after B prefixes of ``common`` tokens.

    Args:
        dtype: of queries, keys and values.
    """

    def __init__(
        self, pack: SuffixPack, common: int, batch: int, heads: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.common, self.length, self.groups, self.heads = common, pack.length, batch * heads, heads
        self.tokens = len(pack.ids)  # T
        # What tokens see, as terms of their scores.
        seen = [np.tri(common, dtype=bool), pack.visible]
        terms = [np.where(visible, np.float32(0), np.float32(-np.inf)) for visible in seen]
        self.prefix_term, self.row_terms = (upload(term, device).to(dtype) for term in terms)  # (P, P), (R, r, r)

    def shapes(self, head: int) -> tuple[tuple[int, ...], ...]:
        """Those of :class:`Attended` for heads of ``head``."""
        groups, common, tokens = self.groups, self.common, self.tokens
        return (
            (3, groups, tokens, head),
            (3, groups, common, head),
            (groups, tokens, common + self.length),
            (groups, common, common),
        )

    def forward(self, qkv: Tensor, kept: Attended) -> Tensor:
        """Attention (B, L, H, d) of queries, keys and values (B, L, 3, H, d); fills ``kept``."""
        for part, of_part in ((kept.prefix, qkv[:, : self.common]), (kept.suffix, qkv[:, self.common :])):
            whole = part.view(3, len(qkv), self.heads, *part.shape[2:])
            torch.mul(of_part[:, :, 0].transpose(1, 2), qkv.shape[-1] ** -0.5, out=whole[0])
            whole[1:] = of_part[:, :, 1:].permute(2, 0, 3, 1, 4)
        (query, key, value), (prefix_query, prefix_key, prefix_value) = kept.suffix, kept.prefix

        scores = torch.baddbmm(self.prefix_term, prefix_query, prefix_key.transpose(1, 2))
        torch.softmax(scores, dim=-1, out=kept.prefix_weights)
        outer = torch.bmm(query, prefix_key.transpose(1, 2))
        inner = torch.bmm(self._rows(query), self._rows(key).transpose(1, 2))
        inner.view(self.groups, *self.row_terms.shape).add_(self.row_terms)
        torch.softmax(self._joined(outer, inner), dim=-1, out=kept.weights)

        outer, inner = self._parts(kept.weights)
        attended = torch.bmm(outer, prefix_value)  # (B H, T, d)
        self._rows(attended).baddbmm_(inner, self._rows(value))
        result = torch.empty_like(qkv[:, :, 0], memory_format=torch.contiguous_format)
        result[:, : self.common] = self._by_token(torch.bmm(kept.prefix_weights, prefix_value))
        result[:, self.common :] = self._by_token(attended)
        return result

    def backward(self, gradient: Tensor, kept: Attended, out: Tensor) -> None:
        """The gradient at ``qkv``, into ``out`` (B, L, 3, H, d), given that at the result, (B, L, H, d)."""
        (query, key, value), (prefix_query, prefix_key, prefix_value) = kept.suffix, kept.prefix
        of_prefix, of_suffix = (
            part.transpose(1, 2).contiguous().flatten(0, 1)  # (B H, tokens, d)
            for part in (gradient[:, : self.common], gradient[:, self.common :])
        )
        outer = torch.bmm(of_suffix, prefix_value.transpose(1, 2))
        inner = torch.bmm(self._rows(of_suffix), self._rows(value).transpose(1, 2))
        of_scores = _softmax_backward(self._joined(outer, inner), kept.weights)
        (outer, inner), (outer_weights, inner_weights) = self._parts(of_scores), self._parts(kept.weights)
        of_query = torch.bmm(outer, prefix_key)
        self._rows(of_query).baddbmm_(inner, self._rows(key))
        of_key = torch.bmm(inner.transpose(1, 2), self._rows(query))
        of_value = torch.bmm(inner_weights.transpose(1, 2), self._rows(of_suffix))
        self._write(out[:, self.common :], of_query, of_key, of_value)

        of_weights = torch.bmm(of_prefix, prefix_value.transpose(1, 2))
        of_scores = _softmax_backward(of_weights, kept.prefix_weights)
        of_query = torch.bmm(of_scores, prefix_key)
        of_key = torch.bmm(of_scores.transpose(1, 2), prefix_query).baddbmm_(outer.transpose(1, 2), query)
        of_value = torch.bmm(kept.prefix_weights.transpose(1, 2), of_prefix)
        of_value.baddbmm_(outer_weights.transpose(1, 2), of_suffix)
        self._write(out[:, : self.common], of_query, of_key, of_value)

    def _parts(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(B H, T, P + r) as (B H, T, P) for the prefix and (B H R, r, r) for rows of the pack."""
        rows = weights.view(-1, self.length, weights.shape[-1])
        return weights[..., : self.common], rows[..., self.common :]

    def _joined(self, outer: Tensor, inner: Tensor) -> Tensor:
        """The two parts in one. Products write to them apart, since only whole matrices are written in one call."""
        return torch.cat([outer, inner.view(*outer.shape[:2], self.length)], dim=-1)

    def _rows(self, part: Tensor) -> Tensor:
        """(B H, T, d) as (B H R, r, d)."""
        return part.view(-1, self.length, part.shape[-1])

    def _by_token(self, part: Tensor) -> Tensor:
        """(B H, tokens, d), or the same by rows, as (B, tokens, H, d)."""
        return part.view(self.groups // self.heads, self.heads, -1, part.shape[-1]).transpose(1, 2)

    def _write(self, out: Tensor, of_query: Tensor, of_key: Tensor, of_value: Tensor) -> None:
        torch.mul(self._by_token(of_query), out.shape[-1] ** -0.5, out=out[:, :, 0])
        out[:, :, 1] = self._by_token(of_key)
        out[:, :, 2] = self._by_token(of_value)


def _softmax_backward(of_weights: Tensor, weights: Tensor) -> Tensor:
    """The gradient at the scores."""
    return torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
