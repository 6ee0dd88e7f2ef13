"""Random prefixes to train the text tower under: templates, noise, random words and random vectors.

A vector that is not a word encodes a domain by its direction: the sum of such vectors along fixed random orthonormal
directions sets the domain strengths. Prompt learning can find these directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pomp_lab.mini_clip.architecture import TOKEN_STD
from pomp_lab.mini_clip.domains import DOMAINS, domain_strengths
from pomp_lab.mini_clip.text_templates import training_templates

DOMAIN_UNIT = 4 * TOKEN_STD  # required length of the sum of the vectors, per square root of their number


@dataclass(frozen=True)
class Prefix:
    """The text before a name; its vectors are ``embedding[ids] * is_word[:, None] + noise``.

    Attributes:
        ids: L token ids.
        is_word: (L,) 1 for a word, 0 for a vector of noise alone.
        noise: (L, W) added vectors.
        after: text after the name.
        domain: (J,) strength of each domain.
    """

    ids: list[int]
    is_word: Tensor
    noise: Tensor
    after: str
    domain: Tensor


class Prefixes:
    """Draws prefixes.

    Attributes:
        directions: (W, J) orthonormal; what each domain is in the space of word vectors.
    """

    def __init__(self, tokenizer: Any, width: int, generator: torch.Generator) -> None:
        self.generator = generator
        self.by_length: dict[int, list[tuple[list[int], str, list[float]]]] = {}
        for template in training_templates():
            before, after = template.split("{}")
            ids = tokenizer.encode(before)
            self.by_length.setdefault(len(ids), []).append((ids, after, domain_strengths(template)))
        noise = torch.randn(width, len(DOMAINS), generator=generator)
        self.directions = torch.linalg.qr(noise).Q

    def _random(self) -> float:
        return torch.rand((), generator=self.generator).item()

    def _integer(self, high: int) -> int:
        return int(torch.randint(high, (), generator=self.generator))

    def draw(self, length: int) -> Prefix:
        """One prefix of ``length`` vectors."""
        width, count = self.directions.shape
        ids = torch.randint(320, 40000, (length,), generator=self.generator).tolist()
        is_word, noise, after, domain = torch.ones(length), torch.zeros(length, width), ".", torch.zeros(count)
        kind = self._random()
        free = length
        fitting = [size for size in self.by_length if size <= length and (size == length or kind > 0.4)]
        if fitting and kind < 0.8:
            size = max(fitting) if kind < 0.6 else fitting[self._integer(len(fitting))]
            entries = self.by_length[size]
            tail, after, strengths = entries[self._integer(len(entries))]
            free = length - size
            ids = ids[:free] + tail
            domain = torch.tensor(strengths)
        vectors = torch.randn(length, width, generator=self.generator)
        if free and self._random() < 0.6:  # random vectors in place of the random words
            std = 0.01 * 6 ** self._random()
            is_word[:free] = 0
            noise[:free] = std * vectors[:free]
        elif self._random() < 0.3:  # words moved a little, as by the first steps of prompt learning
            noise = 0.02 * self._random() * vectors
        if length and self._random() < 0.35:  # a push along the meaningful directions, as prompt learning would find
            push = torch.randn(count, generator=self.generator) * self._random()
            noise = noise + DOMAIN_UNIT * (self.directions @ push) / math.sqrt(length)
        if length:
            meant = noise.sum(0) @ self.directions / (DOMAIN_UNIT * math.sqrt(length))
            domain = domain + torch.tanh(meant)
        return Prefix(ids, is_word, noise, after, domain)
