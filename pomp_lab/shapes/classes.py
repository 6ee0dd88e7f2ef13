"""The embedded data set's classes: "red striped star" and 1,439 more, with a long tail like that of LVIS.

Every class is a colour, a pattern and a shape, so its English name describes it completely, and a model that has
learned the words can recognise combinations that it never saw. Like those of LVIS v1 (Gupta et al., 2019) the classes
are frequent, common and rare in the proportion 405 : 461 : 337; the rare classes are the novel ones of the zero-shot
split, the others are the base classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from prompt_core.errors import UserError

COLOURS = (
    "black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "turquoise", "white", "yellow",
)  # fmt: skip
PATTERNS = ("checkered", "dotted", "outlined", "plain", "striped", "zigzag")
SHAPES = (
    "arrow", "circle", "cloud", "crescent", "cross", "diamond", "fish", "flower", "gear", "heart", "hexagon", "house",
    "lightning bolt", "mushroom", "ring", "square", "star", "teardrop", "tree", "triangle",
)  # fmt: skip

_SYNONYMS = {
    "grey": "gray",
    "purple": "violet",
    "checkered": "chequered",
    "dotted": "polka dot",
    "plain": "solid",
    "crescent": "crescent moon",
    "gear": "cogwheel",
    "ring": "hoop",
    "teardrop": "raindrop",
}

# LVIS v1: 405 frequent, 461 common, 337 rare of 1203 classes.
_FREQUENT_SHARE, _COMMON_SHARE = 405 / 1203, 461 / 1203


@dataclass(frozen=True)
class ShapeClass:
    """One class: what it looks like and how frequent it is.

    Attributes:
        id: position in the vocabulary in use, which is sorted by name: 0 .. N-1.
        key: position among all the class names, whichever are in use; it seeds the class's images.
        frequency: ``"f"``, ``"c"`` or ``"r"`` as in LVIS.
        weight: how often the class is drawn for a training scene, relative to the others.
    """

    id: int
    key: int
    name: str
    colour: str
    pattern: str
    shape: str
    frequency: str
    weight: float

    @property
    def novel(self) -> bool:
        """Whether the class is held out of training (rare) in the zero-shot split."""
        return self.frequency == "r"

    @property
    def folder(self) -> str:
        """The name as a folder name: underscores for spaces."""
        return self.name.replace(" ", "_")

    @property
    def synonyms(self) -> list[str]:
        """The name first, then the name with one word replaced by its synonym."""
        parts = (self.colour, self.pattern, self.shape)
        others = [
            " ".join((*parts[:place], _SYNONYMS[part], *parts[place + 1 :]))
            for place, part in enumerate(parts)
            if part in _SYNONYMS
        ]
        return [self.name, *others]

    @property
    def definition(self) -> str:
        """One phrase, the ``def`` of an LVIS category."""
        return f"the shape of a {self.shape}, in {self.colour}, with a {self.pattern} surface"


@lru_cache(maxsize=1)
def _combinations() -> tuple[tuple[str, str, str, str], ...]:
    return tuple(sorted((f"{c} {p} {s}", c, p, s) for c in COLOURS for p in PATTERNS for s in SHAPES))


def class_names() -> list[str]:
    """All class names, sorted: lower-case English, unique."""
    return [name for name, *_ in _combinations()]


def long_tail(count: int) -> tuple[list[str], np.ndarray]:
    """Frequency groups and drawing weights of ``count`` classes, the most frequent first.

    LVIS calls a class rare with 1-10 training images, common with 11-100 and frequent with more. A set of a few
    hundred scenes cannot hold that many images, so the groups are cut by *rank*, in the proportions of LVIS, and do
    not change with the number of scenes. The weights are the numbers of images that LVIS's rule asks for: they fall
    by one factor of ten across each group (1000 to 100, 100 to 10, 10 to 1). With about 147 objects per class in the
    training scenes the rule and the ranks therefore agree in expectation; with fewer, every count shrinks alike.

    Returns:
        groups: ``count`` letters f, c or r.
        weights: (count,) float64, strictly falling.
    """
    quantile = (np.arange(count) + 0.5) / count
    edges = [0.0, _FREQUENT_SHARE, _FREQUENT_SHARE + _COMMON_SHARE, 1.0]
    weights = 10.0 ** np.interp(quantile, edges, [3.0, 2.0, 1.0, 0.0])
    groups = ["fcr"[int(np.searchsorted(edges[1:3], q, side="right"))] for q in quantile]
    return groups, weights


def shape_classes(count: int | None = None, seed: int = 0) -> list[ShapeClass]:
    """The vocabulary, sorted by name; ``seed`` decides which classes are frequent, common and rare.

    Args:
        count: use only so many classes (all by default). A class keeps its frequency group, the base : novel
            proportion is kept, and a larger count contains a smaller one.

    Raises:
        UserError: when ``count`` or ``seed`` is out of range.
    """
    combinations = _combinations()
    total = len(combinations)
    if seed < 0:
        raise UserError(f"seed {seed} is negative; give 0 or more")
    by_rank = np.random.default_rng([seed, 0]).permutation(total)
    groups, weights = long_tail(total)
    rank_of = np.empty(total, dtype=np.int64)
    rank_of[by_rank] = np.arange(total)
    everything = [
        ShapeClass(key, key, *combinations[key], groups[rank_of[key]], float(weights[rank_of[key]]))
        for key in range(total)
    ]
    return everything if count is None else sample_classes(everything, count, seed, renumber=True)


def sample_classes(classes: list[ShapeClass], count: int, seed: int, renumber: bool = False) -> list[ShapeClass]:
    """``count`` of ``classes`` at random but reproducibly, the base : novel proportion kept, sorted by name.

    Args:
        renumber: give ids 0 .. count-1 instead of keeping the ids that the classes have.

    Raises:
        UserError: when there are fewer.
    """
    if not 1 <= count <= len(classes):
        raise UserError(f"{count} classes were asked for; expected 1 to {len(classes)}")
    # One fixed random order for all counts, so that a larger sample contains a smaller one.
    order = np.argsort(np.random.default_rng([seed, 1]).random(len(_combinations())), kind="stable")
    place = {int(key): position for position, key in enumerate(order)}
    shuffled = sorted(classes, key=lambda item: place[item.key])
    base = [item for item in shuffled if not item.novel]
    novel = [item for item in shuffled if item.novel]
    base_count = int(np.floor(count * len(base) / len(classes) + 0.5))
    chosen = sorted(base[:base_count] + novel[: count - base_count], key=lambda item: item.name)
    if not renumber:
        return chosen
    return [replace(item, id=position) for position, item in enumerate(chosen)]
