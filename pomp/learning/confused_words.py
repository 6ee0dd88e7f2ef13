"""Pairs of words that a model takes for each other: by its answers to corrected photos, and by their text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from prompt_core.classifier import TextClassifier

NEAR = 10  # a word is near another where it is nearer than all but so many other names
FEWEST_WRONG = 2


def confused_words(
    classifier: TextClassifier, taken_for: Counter[tuple[int, int]], known: np.ndarray
) -> list[dict[str, Any]]:
    """Pairs of words, those that were taken for each other most often first.

    A pair is listed where at least two corrected things of one got the other, or where their text is nearer than the
    names of the background: among thousands of names, only a few are as near. So no cosine has to be chosen for each
    CLIP.

    Args:
        classifier: C words, with a background.
        taken_for: how often a thing of the first word got the second one, as rows.
        known: (C,) times that a person gave each word.

    Returns:
        ``words`` (two), ``cosine``, ``near`` (whether the text says so), ``wrong`` (things) ``of`` (all of both words).
    """
    names, text = classifier.names, classifier.weight
    cosine = text @ text.T  # (C, C)
    assert classifier.background is not None
    others = text @ classifier.background.weight.T  # (C, B)
    bound = others.topk(min(NEAR, others.shape[1]), dim=1).values[:, -1]  # (C,)
    pairs = []
    for one in range(len(names)):
        for other in range(one + 1, len(names)):
            wrong = taken_for[one, other] + taken_for[other, one]
            value = float(cosine[one, other])
            near = value >= float(min(bound[one], bound[other]))
            if near or wrong >= FEWEST_WRONG:
                entry = {"words": [names[one], names[other]], "cosine": round(value, 4), "near": near, "wrong": wrong}
                pairs.append(entry | {"of": int(known[one] + known[other])})
    return sorted(pairs, key=lambda pair: (-pair["wrong"], -pair["cosine"]))
