"""What torch offers in the place of the text encoder's plain products: fused attention, and its compiler.

Letters in shape comments as in :mod:`prompt_core.text.attention`: P tokens of the prefix, T of the pack in R rows of r,
L = P + T, H heads of d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.benchmarks.harness import spread, timed
from pomp_lab.benchmarks.text import choose_names, training_step
from prompt_core.clip import Clip
from prompt_core.errors import UserError
from prompt_core.text.attention import Attended, SharedPrefixAttention
from prompt_core.text.block import FrozenBlock
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.text.suffix_pack import SuffixPack, pack_suffixes
from prompt_core.vocabulary import Vocabulary

# Attention (L, H, d) of queries, keys and values (L, 3, H, d), and the gradient there for one at the result.
Way = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Layout:
    """Where prefix and suffixes are.

    Attributes:
        pack: of the suffixes.
        common: P.
        head: d.
    """

    pack: SuffixPack
    common: int
    heads: int
    head: int
    device: torch.device

    @property
    def visible(self) -> Tensor:
        """(R, r, P + r) bool, what each suffix token sees: the prefix, and of its row its own suffix up to itself."""
        inside = torch.from_numpy(self.pack.visible).to(self.device)
        return torch.cat([inside.new_ones(*inside.shape[:2], self.common), inside], dim=2)

    def rows(self, part: Tensor) -> Tensor:
        """(T, H, d) as (R, H, r, d)."""
        return part.unflatten(0, (-1, self.pack.length)).transpose(1, 2)


def products(layout: Layout) -> Way:
    """As the text encoder computes it."""

    def way(qkv: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        attended = attention.forward(qkv[None], kept)[0]
        attention.backward(gradient[None], kept, out[None])
        return attended, out

    attention = SharedPrefixAttention(layout.pack, layout.common, 1, layout.heads, torch.float32, layout.device)
    kept = Attended(*(torch.empty(shape, device=layout.device) for shape in attention.shapes(layout.head)))
    tokens = layout.common + len(layout.pack.ids)
    out = torch.empty(tokens, 3, layout.heads, layout.head, device=layout.device)
    return way


def expanded(layout: Layout) -> Way:
    """``scaled_dot_product_attention`` over the rows of the pack, each with a copy of the prefix's keys and values."""
    mask = layout.visible[:, None]  # (R, 1, r, P + r)

    def attend(qkv: Tensor) -> Tensor:
        prefix = qkv[: layout.common].permute(1, 2, 0, 3)[:, None]  # (3, 1, H, P, d)
        query, key, value = (layout.rows(part) for part in qkv[layout.common :].unbind(1))
        seen = [
            torch.cat([shared.expand(len(own), -1, -1, -1), own], dim=2)  # (R, H, P + r, d)
            for shared, own in ((prefix[1], key), (prefix[2], value))
        ]
        first = F.scaled_dot_product_attention(prefix[0], prefix[1], prefix[2], is_causal=True)
        rest = F.scaled_dot_product_attention(query, seen[0], seen[1], attn_mask=mask)
        return torch.cat([first[0].transpose(0, 1), rest.transpose(1, 2).flatten(0, 1)])

    return _with_autograd(attend)


def joined(layout: Layout) -> Way:
    """The fused kernel for CPUs twice, over the prefix and over the rows, joined by their log-sum-exps."""
    common = layout.common
    inside = layout.visible[:, None, :, common:]  # (R, 1, r, r)
    mask = torch.zeros(inside.shape).masked_fill_(~inside, -torch.inf)

    def way(qkv: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        prefix = qkv[:common].permute(1, 2, 0, 3)[:, None]  # (3, 1, H, P, d)
        suffix = qkv[common:].permute(1, 2, 0, 3)[:, None]  # (3, 1, H, T, d)
        own = [layout.rows(part) for part in qkv[common:].unbind(1)]
        first, first_sum = _FUSED(*prefix, 0.0, True)
        outer, outer_sum = _FUSED(suffix[0], prefix[1], prefix[2])
        inner, inner_sum = _FUSED(*own, 0.0, False, attn_mask=mask)
        inner, inner_sum = _tokens(inner)[None], _tokens(inner_sum[..., None])[None, ..., 0]
        total = torch.logaddexp(outer_sum, inner_sum)  # (1, H, T)
        rest = outer * (outer_sum - total).exp()[..., None] + inner * (inner_sum - total).exp()[..., None]
        attended = torch.cat([first[0], rest[0]], dim=1).transpose(0, 1)

        # Each kernel's gradient is exact, given the joint result and log-sum-exp.
        of_first, of_rest = (part.transpose(0, 1)[None] for part in (gradient[:common], gradient[common:]))
        of_rows, rows, sums = (layout.rows(part[0].transpose(0, 1)) for part in (of_rest, rest, total[..., None]))
        of_outer = _FUSED_BACKWARD(of_rest, suffix[0], prefix[1], prefix[2], rest, total, 0.0, False)
        of_inner = _FUSED_BACKWARD(of_rows, *own, rows, sums[..., 0], 0.0, False, attn_mask=mask)
        of_prefix = _FUSED_BACKWARD(of_first, *prefix, first, first_sum, 0.0, True)
        query, key, value = (_tokens(part) for part in of_inner)
        return attended, torch.stack(
            [
                torch.cat(parts, dim=1).transpose(0, 1)
                for parts in (
                    (of_prefix[0][0], of_outer[0][0] + query),
                    (of_prefix[1][0] + of_outer[1][0], key),
                    (of_prefix[2][0] + of_outer[2][0], value),
                )
            ],
            dim=1,
        )

    return way


WAYS: dict[str, Callable[[Layout], Way]] = {way.__name__: way for way in (products, expanded, joined)}
ON = {"cpu": ("products", "expanded", "joined"), "cuda": ("products", "expanded")}


def measure_attention(encoder: PromptedTextEncoder, names: Sequence[str], contexts: int, turns: int) -> dict[str, Any]:
    """Forward and backward of one layer's attention in each way, in turns.

    Returns:
        of each way the spread of ``seconds``, ``times`` that of ``products``, and the ``difference``, the largest of
        results and gradients from those of ``products``.
    """
    sequences, tower = encoder.tokenizer.prompts(names, contexts), encoder.tower
    device, head = tower.device, tower.width // tower.heads
    layout = Layout(pack_suffixes(sequences), sequences.prefix_length, tower.heads, head, device)
    generator = torch.Generator().manual_seed(0)
    shape = (layout.common + len(layout.pack.ids), 3, layout.heads, head)
    qkv, gradient = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    ways = {name: WAYS[name](layout) for name in ON[device.type]}
    results = {name: [part.clone() for part in way(qkv, gradient[:, 0])] for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            seconds[name].append(timed(lambda: way(qkv, gradient[:, 0]))[1])  # noqa: B023
    spreads = {name: spread(times) for name, times in seconds.items()}
    return {
        name: {
            "seconds": taken,
            "times": taken["median"] / spreads["products"]["median"],
            "difference": max(
                float((mine - theirs).abs().max())
                for mine, theirs in zip(results[name], results["products"], strict=True)
            ),
        }
        for name, taken in spreads.items()
    }


def measure_compiled(clip: Clip, vocabulary: Vocabulary, names: int, turns: int) -> dict[str, Any]:
    """Training steps as they are, and with blocks compiled by ``torch.compile`` for any number of tokens, in turns.

    Returns:
        the spreads of ``seconds`` of ``as_it_is`` and ``compiled``, the ``time_ratio`` of the second to the first,
        ``first_call_seconds``, most of which the compiler needs, and whether both have the ``same_result``.

    Raises:
        UserError: when blocks cannot be compiled here, for instance without a C++ compiler.
    """
    step, ids = training_step(clip, vocabulary), choose_names(vocabulary, names, at_random=True)
    compiled: dict[str, Any] = {
        name: torch.compile(getattr(FrozenBlock, name), dynamic=True) for name in ("forward", "backward")
    }

    def run(with_compiler: bool) -> tuple[dict[str, Any], float]:
        with ExitStack() as changed:
            if with_compiler:
                changed.enter_context(patch.multiple(FrozenBlock, **compiled))
                # The compiler knows products of torch, and refuses a direct call of oneDNN's.
                changed.enter_context(patch("prompt_core.text.frozen_layer._has_onednn", lambda _: False))
            return timed(lambda: step(ids))

    result, _ = run(False)
    try:
        other, first = run(True)
    except Exception as error:
        raise UserError(f"torch.compile fails here: {str(error).partition(chr(10))[0]}") from error
    turned = [(run(False)[1], run(True)[1]) for _ in range(turns)]
    plain, fast = (spread(seconds) for seconds in zip(*turned, strict=True))
    return {
        "names": names,
        "time_ratio": fast["median"] / plain["median"],
        "first_call_seconds": first,
        "same_result": all(math.isclose(result[key], other[key], rel_tol=1e-4) for key in result),
        "as_it_is": plain,
        "compiled": fast,
    }


def _with_autograd(attend: Callable[[Tensor], Tensor]) -> Way:
    def way(qkv: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        inputs = qkv.detach().requires_grad_()
        attended = attend(inputs)
        return attended.detach(), torch.autograd.grad(attended, inputs, gradient)[0]

    return way


def _tokens(part: Tensor) -> Tensor:
    """(R, H, r, d) as (H, T, d)."""
    return part.transpose(0, 1).flatten(1, 2)
