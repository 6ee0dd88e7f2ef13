"""Training of the text tower: batches of names under random prefixes, the loss, and the loop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomp_lab.mini_clip.architecture import SOT, WIDTH, bpe_tokenizer
from pomp_lab.mini_clip.names import Corpus, text_bias, text_targets
from pomp_lab.mini_clip.prefixes import Prefixes
from pomp_lab.mini_clip.text_tower import encode, pad_suffixes, suffix_tokens
from pomp_lab.mini_clip.visual_space import VisualSpace
from prompt_core.visible import say

if TYPE_CHECKING:
    from open_clip.transformer import TextTransformer

GROUPS, BATCH = 8, 96  # prefixes of one step, and names under each
LEARNING_RATE, WARMUP = 2e-3, 200
LONGEST_NAME = 7  # tokens; longer names share a bucket
# Weight of prefix lengths 0 to 16: the highest for those of common templates, the last for soft prompts.
PREFIX_LENGTHS = (8.0, 8.0, 8.0, 9.0, 14.0, 12.0, 10.0, 7.0, 5.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 6.0)
LOSS_SCALE, COSINE_WEIGHT = 20, 4
ALIKE = 0.95  # cosine of targets above which two names count as the same


@dataclass(frozen=True)
class Batch:
    """Names under G prefixes of one length P.

    Attributes:
        chosen: (G, B) rows of the corpus.
        prefix_ids: (G, 1 + P) token ids, beginning with the start token.
        is_word: (G, 1 + P) 1 for words, 0 for vectors of noise alone.
        noise: (G, 1 + P, W) added vectors.
        domain: (G, J) strength of each domain.
        suffix: (G, B, S) token ids of name and rest.
        last: (G, B) place of the end-of-text token in the suffix.
    """

    chosen: Tensor
    prefix_ids: Tensor
    is_word: Tensor
    noise: Tensor
    domain: Tensor
    suffix: Tensor
    last: Tensor


class BatchSampler:
    """Draws batches whose names have about the same length in tokens, to minimise padding."""

    def __init__(self, corpus: Corpus, generator: torch.Generator) -> None:
        self.corpus, self.generator = corpus, generator
        self.tokens = {after: [suffix_tokens(name + after) for name in corpus.names] for after in ("", ".")}
        sizes = torch.tensor([min(len(ids) - 1, LONGEST_NAME) for ids in self.tokens[""]])
        self.buckets = [(sizes == size).nonzero()[:, 0] for size in range(1, LONGEST_NAME + 1)]
        self.bucket_weights = torch.stack([corpus.weights[rows].sum() for rows in self.buckets])
        self.prefixes = Prefixes(bpe_tokenizer(), WIDTH, generator)

    def draw(self) -> Batch:
        """One batch."""
        bucket = self.buckets[int(torch.multinomial(self.bucket_weights, 1, generator=self.generator))]
        length = int(torch.multinomial(torch.tensor(PREFIX_LENGTHS), 1, generator=self.generator))
        picked = torch.multinomial(self.corpus.weights[bucket], GROUPS * BATCH, True, generator=self.generator)
        chosen = bucket[picked].view(GROUPS, BATCH)
        drawn = [self.prefixes.draw(length) for _ in range(GROUPS)]
        suffixes: list[list[int]] = []
        for prefix, rows in zip(drawn, chosen.tolist(), strict=True):
            made = self.tokens.get(prefix.after)
            suffixes += [made[i] if made else suffix_tokens(self.corpus.names[i] + prefix.after) for i in rows]
        suffix, last = pad_suffixes(suffixes, GROUPS)
        return Batch(
            chosen,
            torch.tensor([[SOT, *prefix.ids] for prefix in drawn]),
            torch.cat([torch.ones(GROUPS, 1), torch.stack([prefix.is_word for prefix in drawn])], 1),
            F.pad(torch.stack([prefix.noise for prefix in drawn]), (0, 0, 1, 0)),
            torch.stack([prefix.domain for prefix in drawn]),
            suffix,
            last,
        )


def tower_loss(
    features: Tensor, batch: Batch, corpus: Corpus, space: VisualSpace, known: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of unit-norm text features (G, B, E), and their mean cosine with the targets.

    Candidates of the cross-entropy are the group's names and all known classes, each under the group's own domain;
    candidates that mean the same as the name itself are left out.
    """
    class_targets, class_bias = space.targets[known], space.bias[known]  # (C, R), (C,)
    groups, count = batch.chosen.shape
    names = corpus.targets[batch.chosen]  # (G, B, R)
    targets = text_targets(names, corpus.bias[batch.chosen], space.shifts, batch.domain)
    others = text_bias(class_targets, class_bias, space.shifts, batch.domain)  # (G, C)
    with torch.autocast("cpu", torch.bfloat16):
        rivals = features[..., :-1] @ class_targets.T
        alike = torch.cat([names @ names.transpose(1, 2), names @ class_targets.T], dim=-1) > ALIKE
    rivals = rivals + features[..., -1:] * others[:, None]
    rivals = rivals * (1 + others.square()).rsqrt()[:, None]
    logits = LOSS_SCALE * torch.cat([features @ targets.transpose(1, 2), rivals], dim=-1)  # (G, B, B + C)
    diagonal = torch.eye(count, logits.shape[-1], dtype=torch.bool)
    logits = logits.masked_fill(alike & ~diagonal, -torch.inf)
    cosine = (features * targets).sum(-1)
    label = torch.arange(count).repeat(groups)
    loss = COSINE_WEIGHT * (1 - cosine).mean() + F.cross_entropy(logits.flatten(0, 1), label)
    return loss, cosine.mean()


def train_tower(
    tower: TextTransformer, corpus: Corpus, space: VisualSpace, known: Tensor, *, steps: int, seed: int
) -> None:
    """Train in place with AdamW, a linear warm-up and a cosine schedule."""
    sampler = BatchSampler(corpus, torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW(tower.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    warmup = min(WARMUP, steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda t: min((t + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * max(0, t - warmup) / max(1, steps - warmup))),
    )
    started, seen = time.perf_counter(), 0.0
    for step in range(steps):
        batch = sampler.draw()
        prefix = tower.token_embedding(batch.prefix_ids) * batch.is_word[..., None] + batch.noise
        with torch.autocast("cpu", torch.bfloat16):  # four times faster where the processor supports it
            features = encode(tower, prefix, batch.suffix, batch.last)
        features = F.normalize(features.float(), dim=-1)
        loss, cosine = tower_loss(features, batch, corpus, space, known)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen = 0.98 * seen + 0.02 * cosine.item()
        if (step + 1) % 200 == 0:
            spent = time.perf_counter() - started
            say(f"step {step + 1}/{steps}  loss {loss.item():.3f}  cosine {seen:.3f}  {spent:.0f} s")
