"""Attention of many suffixes after one prefix, and its gradient, without a copy of the prefix for each suffix.

A suffix token sees the prefix and its own suffix. The two are attended to apart, the prefix by all tokens at once and
the suffixes row by row of their pack; the logarithms of the softmax's sums then say how much each part counts
(Hydragen, arXiv 2402.05099). Backwards, each part is given the sums and the result of both, with which its gradient is
exact (the recomputation of FlashAttention, arXiv 2205.14135).

Letters in shape comments: B prefixes, L = P + T tokens, P of the prefix, T of the pack in R rows of r, H heads of d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prompt_core.text.suffix_pack import SuffixPack
from prompt_core.towers.placement import upload


@dataclass(frozen=True)
class Sight:
    """What tokens see, as terms of their scores: 0 or -inf.

    Attributes:
        prefix: (L, P), the prefix by all tokens.
        suffix: (B R, 1, r, r), the own suffix within a row of the pack.
    """

    prefix: Tensor
    suffix: Tensor

    @classmethod
    def of(cls, pack: SuffixPack, common: int, batch: int, dtype: torch.dtype, device: torch.device) -> Sight:
        """For B prefixes of ``common`` tokens, in the type of queries."""
        prefix = np.concatenate([np.tri(common, dtype=bool), np.ones((len(pack.ids), common), dtype=bool)])
        terms = [np.where(visible, np.float32(0), np.float32(-np.inf)) for visible in (prefix, pack.visible)]
        outer, inner = (upload(term, device).to(dtype) for term in terms)
        return cls(outer, inner[:, None].repeat(batch, 1, 1, 1))


def attend(qkv: Tensor, common: int, sight: Sight, attended: Tensor) -> Tensor:
    """Attention of all tokens.

    Args:
        qkv: (B, L, 3, H, d) queries, keys and values.
        common: P.
        attended: (B, L, H, d), receives the result.

    Returns:
        (B, L, H) logarithms of the softmax's sums, which :func:`attend_backward` needs.
    """
    (query, key, value), own = _prefix_part(qkv, common), _suffix_part(qkv, common, sight)
    forward, _ = _kernels(qkv)
    outer, log_sums = (part.transpose(1, 2) for part in forward(query, key, value, sight.prefix))
    inner, inner_sums = (part.transpose(1, 2) for part in forward(*own, sight.suffix))
    inner, inner_sums = (_whole(part, qkv, common) for part in (inner, inner_sums))  # (B, T, H, d), (B, T, H)
    share = torch.sigmoid(inner_sums - log_sums[:, common:])
    attended[:, :common] = outer[:, :common]
    torch.lerp(outer[:, common:], inner, share.to(inner.dtype)[..., None], out=attended[:, common:])
    sums = torch.logaddexp(log_sums[:, common:], inner_sums)
    return torch.cat([log_sums[:, :common], sums], dim=1)


def attend_backward(
    gradient: Tensor, qkv: Tensor, common: int, sight: Sight, attended: Tensor, log_sums: Tensor, out: Tensor
) -> None:
    """The gradient at ``qkv``, written to ``out`` (B, L, 3, H, d), given the one at ``attended``, (B, L, H, d)."""
    (query, key, value), own = _prefix_part(qkv, common), _suffix_part(qkv, common, sight)
    _, backward = _kernels(qkv)
    known = [part.transpose(1, 2) for part in (gradient, attended, log_sums)]
    of_query, of_key, of_value = backward(known[0], query, key, value, *known[1:], sight.prefix)
    out[:, :, 0] = of_query.transpose(1, 2)
    out[:, :common, 1] = of_key.transpose(1, 2)
    out[:, :common, 2] = of_value.transpose(1, 2)
    known = [_rows(part[:, common:], sight) for part in (gradient, attended, log_sums)]
    parts = backward(known[0], *own, *known[1:], sight.suffix)
    of_query, of_key, of_value = (_whole(part.transpose(1, 2), qkv, common) for part in parts)
    out[:, common:, 0] += of_query
    out[:, common:, 1] = of_key
    out[:, common:, 2] = of_value


def _prefix_part(qkv: Tensor, common: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of all tokens (B, H, L, d), keys and values of the prefix (B, H, P, d)."""
    query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
    return query, key[:, :, :common], value[:, :, :common]


def _suffix_part(qkv: Tensor, common: int, sight: Sight) -> list[Tensor]:
    """Queries, keys and values of the pack, each (B R, H, r, d)."""
    return [_rows(part, sight) for part in qkv[:, common:].unbind(2)]


def _rows(part: Tensor, sight: Sight) -> Tensor:
    """(B, T, H, ...) to (B R, H, r, ...); no copy for one prefix."""
    rows, _, length, _ = sight.suffix.shape
    return part.reshape(rows, length, *part.shape[2:]).transpose(1, 2)


def _whole(part: Tensor, qkv: Tensor, common: int) -> Tensor:
    """(B R, r, H, ...) to (B, T, H, ...)."""
    return part.reshape(qkv.shape[0], qkv.shape[1] - common, *part.shape[2:])


def _kernels(qkv: Tensor) -> tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., tuple[Tensor, ...]]]:
    return (_fused, _fused_backward) if qkv.device.type == "cpu" else (plain_attention, plain_attention_backward)


def _fused(query: Tensor, key: Tensor, value: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
    """What ``scaled_dot_product_attention`` runs on a CPU, which alone gives the sums."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, attn_mask=sight)


def _fused_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, log_sums: Tensor, sight: Tensor
) -> tuple[Tensor, ...]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        gradient, query, key, value, out, log_sums, 0.0, False, attn_mask=sight
    )


def plain_attention(query: Tensor, key: Tensor, value: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
    """Attention written out: (..., q, d) and (..., k, d) to the result (..., q, d) and the log of the sums (..., q)."""
    scores = (query @ key.transpose(-1, -2)).to(_sum_type(query)) * query.shape[-1] ** -0.5 + sight
    log_sums = scores.logsumexp(dim=-1)
    return (scores - log_sums[..., None]).exp().to(value.dtype) @ value, log_sums


def plain_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, log_sums: Tensor, sight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients at query, key and value, given result and sums over these keys and any others."""
    scale = query.shape[-1] ** -0.5
    scores = (query @ key.transpose(-1, -2)).to(_sum_type(query)) * scale + sight
    weights = (scores - log_sums[..., None]).exp()  # (..., q, k)
    shared = (gradient * out).to(weights.dtype).sum(dim=-1, keepdim=True)
    of_scores = (weights * (gradient @ value.transpose(-1, -2) - shared) * scale).to(query.dtype)
    of_value = weights.to(gradient.dtype).transpose(-1, -2) @ gradient
    return of_scores @ key, of_scores.transpose(-1, -2) @ query, of_value


def _sum_type(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
