"""Own shares of general words, with and without the shares of their kinds.

Words are drawn from WordNet's names above the photos' classes, such as "dog" or "musical instrument"; a photo's answer
is right where its class is below the word.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pomp_lab.comparisons.none_of_these import OWN, SOFTMAX, Judge, Tally
from prompt_core.background.background import background_of
from prompt_core.background.hypernyms import Hypernyms
from prompt_core.background.own_share import own_shares
from prompt_core.vocabulary import Vocabulary

METRICS = ("precision", "coverage", "refused")
ALONE = "own share, without kinds"
FEWEST, MOST = 3, 60  # of the photos' classes below a word
GENERAL_SIZES = (5, 20)


def draw_general_words(below: dict[str, frozenset[int]], size: int, generator: np.random.Generator) -> list[str]:
    """Words that share no class, fewer than ``size`` where there are no more.

    Args:
        below: word → the classes below it.
    """
    chosen: list[str] = []
    taken: set[int] = set()
    for place in generator.permutation(len(below)):
        word = list(below)[place]
        if not taken & below[word]:
            chosen.append(word)
            taken |= below[word]
        if len(chosen) == size:
            break
    return chosen


def classes_below(ids: Sequence[int | str], names: Sequence[str], hierarchy: Hypernyms) -> dict[str, frozenset[int]]:
    """General words with the classes below them, in the order of ``names``.

    Args:
        ids: WordNet ids of C classes; those that the hierarchy lacks have nothing above them.
        names: of the hierarchy's synsets.
    """
    found: dict[str, set[int]] = defaultdict(set)
    for place, identity in enumerate(ids):
        row = hierarchy.row.get(str(identity))
        for above in sorted(hierarchy.above([row]) if row is not None else ()):
            found[names[above]].add(place)
    words = {name: frozenset(found[name]) for name in dict.fromkeys(names) if name in found}
    return {name: places for name, places in words.items() if FEWEST <= len(places) <= MOST}


def general_rows(
    judge: Judge,
    photos: str,
    features: Tensor,
    labels: Tensor,
    below: dict[str, frozenset[int]],
    encode: Callable[[Vocabulary], Tensor],
    scale: float,
    threshold: float,
    seeds: Sequence[int],
    draws: int,
) -> list[dict[str, Any]]:
    """One row for each number of words and way to score, as the table of own shares has them.

    Args:
        photos: name of the data set.
        features: (n, E) unit-norm; ``labels`` (n,) their classes.
        below: see :func:`classes_below`.
        encode: features (N, E) of words.
    """
    numbers: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    for size in GENERAL_SIZES:
        for seed in seeds:
            tallies = {way: Tally() for way in (OWN, ALONE, SOFTMAX)}
            for draw in range(draws):
                drawn = draw_general_words(below, size, np.random.default_rng([seed, size, draw]))
                if len(drawn) < 2:
                    continue
                words = Vocabulary(drawn, source="drawn words")
                weight = encode(words)
                beside = background_of(words, weight, judge.wide, (), lambda _: judge.features, 1.0, judge.made_with)
                targets = _targets([below[word] for word in drawn], labels)
                logits = judge.clip_scale * features @ weight.T
                scores = {
                    OWN: own_shares(features, weight, beside.weight, scale, kinds=beside.kinds),
                    ALONE: own_shares(features, weight, beside.weight, scale),
                    SOFTMAX: logits.softmax(dim=1),
                }
                for way, of_way in scores.items():
                    tallies[way].add(of_way, targets, threshold)
            for way, tally in tallies.items():
                if tally.inside:
                    numbers[size, way].append(tally.percent() | {"right": tally.right})
    return [
        {"photos": photos, "words": size, "score": way, **spread_of(values), "right": [row["right"] for row in values]}
        for (size, way), values in numbers.items()
    ]


def _targets(below: Sequence[frozenset[int]], labels: Tensor) -> Tensor:
    place = {label: number for number, classes in enumerate(below) for label in classes}
    return torch.tensor([place.get(int(label), -1) for label in labels])


def spread_of(values: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean, half the range and all values of each of :data:`METRICS`, over seeds."""
    spread = {}
    for metric in METRICS:
        of_seeds = [value[metric] for value in values]
        half_range = (max(of_seeds) - min(of_seeds)) / 2
        spread[metric] = {"mean": statistics.fmean(of_seeds), "half_range": half_range, "seeds": of_seeds}
    return spread
