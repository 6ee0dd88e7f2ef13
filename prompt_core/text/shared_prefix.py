"""The shared-prefix pass over a tower: what all classes have in common is encoded once.

In a causal tower the states of a prefix do not depend on what follows. So the prefix runs through the tower alone,
once, and the tokens of every class attend to its keys and values and to their own. The result is exact; the cost per
class falls from 77 tokens to the few of the class itself. Hydragen (arXiv 2402.05099) uses the same observation for the
inference of language models, Prefix Grouper (arXiv 2506.05433) for their training.

Letters in shape comments: B prefixes (1, or one per image), N classes, P prefix tokens, T tokens of the pack of
suffixes, L = P + T, D width of the tower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prompt_core.text.attention import Attended, SharedPrefixAttention
from prompt_core.text.block import FrozenBlock, Inside
from prompt_core.text.suffix_pack import SuffixPack
from prompt_core.text.tower import TextTower
from prompt_core.text.workspace import Loan
from prompt_core.towers.placement import upload


def encode_shared_prefix(
    tower: TextTower, prefix: Tensor, suffix: Tensor, pack: SuffixPack, deep_context: Tensor | None = None
) -> Tensor:
    """End-of-text states of N classes after B prefixes, before the final norm.

    Args:
        tower: a tower without :attr:`TextTower.sharing_obstacle`; its weights get no gradient.
        prefix: (B, P, D) embeddings with positions added.
        suffix: (B, T, D) likewise, in pack order.
        pack: where each suffix is.
        deep_context: (J, M, D), replaces positions 1..M of the prefix at the input of blocks 1..J (MaPLe).

    Returns:
        (B, N, D) states.
    """
    states = torch.cat([prefix, suffix], dim=1)  # (B, L, D)
    run = TowerPass(tower, pack, prefix.shape[1], len(prefix))
    learned = states.requires_grad or (deep_context is not None and deep_context.requires_grad)
    if learned and torch.is_grad_enabled():
        return through_blocks(run, states, deep_context)
    return run.forward(states, deep_context)


def replace_context(states: Tensor, context: Tensor) -> Tensor:
    """Put ``context`` (M, D) over positions 1..M of ``states`` (B, L, D), as MaPLe does between blocks."""
    return torch.cat(
        [states[:, :1], context.to(states.dtype).expand(len(states), -1, -1), states[:, 1 + len(context) :]], dim=1
    )


class TowerPass:
    """One pass over the blocks of a tower: forward and, as often as wanted, backward.

    Args:
        pack: of N suffixes.
        common: P.
        batch: B.
        kept: (blocks, B, L, D), memory for the inputs of the blocks. :meth:`backward` then recomputes the inside of
            each block except for its last product, which is linear (activation checkpointing, arXiv 1604.06174).
    """

    def __init__(self, tower: TextTower, pack: SuffixPack, common: int, batch: int, kept: Tensor | None = None) -> None:
        self.tower, self.kept = tower, kept
        self.shape = (batch, common + len(pack.ids), tower.width)  # (B, L, D)
        ends = np.arange(batch)[:, None] * self.shape[1] + common + pack.ends  # (B, N), of all rows
        self.names, leaving = len(pack.ends), upload(ends.reshape(-1), tower.device)
        attention = SharedPrefixAttention(pack, common, batch, tower.heads, tower.product_dtype, tower.device)
        self.attention = attention
        self.blocks = [FrozenBlock(block, tower, attention, None) for block in tower.blocks[:-1]]
        self.blocks.append(FrozenBlock(tower.blocks[-1], tower, attention, leaving))
        self._learned_on: _Memory | None = None

    def forward(self, states: Tensor, deep_context: Tensor | None = None, learning: bool = False) -> Tensor:
        """End-of-text states (B, N, D) of embeddings (B, L, D).

        Args:
            deep_context: (J, M, D), see :func:`encode_shared_prefix`.
            learning: whether a backward pass follows, without ``kept``.
        """
        memory = self._memory(apart=learning)
        output = states.new_empty(self.shape[0] * self.names, self.shape[2])
        following = [*(inside.states for inside in memory.insides[1:]), output]
        memory.insides[0].states.view(self.shape).copy_(states)
        for index, (block, inside) in enumerate(zip(self.blocks, memory.insides, strict=True)):
            if deep_context is not None and 1 <= index <= len(deep_context):
                inside.states.view(self.shape)[:, 1 : 1 + deep_context.shape[1]] = deep_context[index - 1]
            block.forward(inside, following[index], memory.room)
        self._learned_on = memory if learning else None
        return output.view(self.shape[0], self.names, self.shape[2])

    def backward(self, gradient: Tensor, deep_shape: torch.Size | None = None) -> tuple[Tensor, Tensor | None]:
        """The gradients at the embeddings and at the deep context, given the one at the output, (B, N, D)."""
        memory = self._learned_on or self._memory(apart=False)
        deep = None if deep_shape is None else gradient.new_zeros(deep_shape)
        gradient = gradient.reshape(-1, self.shape[2])
        for index in reversed(range(len(self.blocks))):
            block, inside = self.blocks[index], memory.insides[index]
            if self._learned_on is None:
                block.forward(inside, None, memory.room)
            gradient = block.backward(inside, gradient, memory.room)
            if deep is not None and 1 <= index <= len(deep):
                replaced = gradient.view(self.shape)[:, 1 : 1 + deep.shape[1]]
                deep[index - 1] = replaced.sum(dim=0)
                replaced.zero_()
        return gradient.view(self.shape), deep

    def _memory(self, apart: bool) -> _Memory:
        """Memory for the insides of all blocks, each its own or, except for the inputs, one for all of them."""
        (batch, length, width), count = self.shape, len(self.blocks)
        heads, rows = self.tower.heads, batch * length
        slots = count if apart else 1
        inputs = 0 if self.kept is not None else count if apart else 2
        states, products = self.tower.dtype, self.tower.product_dtype
        room = ((batch, length, 3, heads, width // heads), products)
        attended = [(shape, products) for shape in self.attention.shapes(width // heads)]

        def after_attention(leaving: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
            return [((leaving, width), states), ((leaving, self.tower.hidden), products)]

        shapes: list[tuple[tuple[int, ...], torch.dtype]] = [room, *[((rows, width), states)] * inputs]
        shapes += attended * slots
        shapes += [*after_attention(rows) * max(1, slots - 1), *after_attention(batch * self.names)]
        loan = self.tower.workspace.lend(shapes, self.tower.device)
        tensors = iter(loan.tensors)
        memory = _Memory(loan, next(tensors), [])
        kept = [] if self.kept is None else list(self.kept.view(count, rows, width))
        kept += [next(tensors) for _ in range(inputs)]
        first = [Attended(*(next(tensors) for _ in attended)) for _ in range(slots)]
        second = [(next(tensors), next(tensors)) for _ in range(max(1, slots - 1))]
        last = (next(tensors), next(tensors))
        for index in range(count):
            rest = last if index == count - 1 else second[index % len(second)]
            memory.insides.append(Inside(kept[index % len(kept)], first[index % slots], *rest))
        return memory


@dataclass
class _Memory:
    """The insides of all blocks, and room for queries, keys and values of one, or their gradient."""

    loan: Loan
    room: Tensor
    insides: list[Inside]


def through_blocks(
    run: TowerPass, states: Tensor, deep_context: Tensor | None = None, output: Tensor | None = None
) -> Tensor:
    """:meth:`TowerPass.forward` with a graph; its ``output`` is not computed again where it is known."""
    return _ThroughBlocks.apply(run, output, states, deep_context)


class _ThroughBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: TowerPass, output: Tensor | None, states: Tensor, deep_context: Tensor | None) -> Tensor:
        ctx.run, ctx.deep_shape = run, None if deep_context is None else deep_context.shape
        return run.forward(states, deep_context, learning=True) if output is None else output.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.run.backward(gradients[0].contiguous(), ctx.deep_shape)
