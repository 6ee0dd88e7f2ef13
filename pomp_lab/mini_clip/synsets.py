"""The WordNet synsets that give class names, and which ImageNet-1K classes a holdout build never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

HOLDOUT_SIZE = 200
# The novel classes of the base-to-novel comparison on Tiny-ImageNet; the build itself needs no copy of that data.
TINY_NOVEL = frozenset(
    """
    n01443537 n01742172 n01768244 n02226429 n02480495 n02669723 n02791270 n02802426 n02814860 n02815834 n02909870
    n03026506 n03042490 n03085013 n03250847 n03404251 n03599486 n03706229 n03763968 n03814639 n03854065 n03970156
    n03992509 n04023962 n04067472 n04099969 n04146614 n04275548 n04285008 n04366367 n04371430 n04376876 n04456115
    n04486054 n04507155 n04540053 n07614500 n07615774 n07873807 n09428293
    """.split()  # noqa: SIM905 - one quoted word each would take forty lines
)


@dataclass(frozen=True)
class Synsets:
    """The WordNet synsets of timm's lists, sorted by id.

    Attributes:
        ids: N ids such as ``n01440764``.
        lemmas: N lists of names.
        definitions: N sentences.
        in_1k: the rows of ImageNet-1K, in classifier order.
    """

    ids: list[str]
    lemmas: list[list[str]]
    definitions: list[str]
    in_1k: list[int]

    @classmethod
    def load(cls) -> Synsets:
        """Read the lists from the installed timm."""
        folder = resources.files("timm") / "data" / "_info"

        def table(name: str) -> dict[str, str]:
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            return dict(line.split("\t", 1) for line in lines if line)

        lemmas, definitions = table("imagenet_synset_to_lemma.txt"), table("imagenet_synset_to_definition.txt")
        ids = sorted(lemmas)
        place = {synset: row for row, synset in enumerate(ids)}
        order = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
        names = [lemmas[synset].split(", ") for synset in ids]
        return cls(ids, names, [definitions[synset] for synset in ids], [place[synset] for synset in order])

    @property
    def order_1k(self) -> list[str]:
        """Ids of the 1,000 classes of ImageNet-1K in classifier order."""
        return [self.ids[row] for row in self.in_1k]

    @property
    def described(self) -> list[str]:
        """ "first three lemmas: definition" of each synset, what the teacher reads."""
        return [f"{', '.join(names[:3])}: {text}" for names, text in zip(self.lemmas, self.definitions, strict=True)]


def holdout_classes(order: Sequence[str], novel: Sequence[str], seed: int = 0) -> list[int]:
    """Rows of the :data:`HOLDOUT_SIZE` classes of ``order`` kept out: ``novel`` and others drawn with ``seed``."""
    row = {synset: index for index, synset in enumerate(order)}
    fixed = [row[synset] for synset in novel]
    rest = sorted(set(range(len(order))) - set(fixed))
    drawn = np.random.default_rng(seed).permutation(rest)[: HOLDOUT_SIZE - len(fixed)]
    return sorted([*fixed, *drawn.tolist()])
