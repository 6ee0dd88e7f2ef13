"""How wrong answers are: "dog" for a photo of a beagle is right, "cat" is less wrong than "lorry".

Three numbers beside top-1, over the classes' places in WordNet. They are of use together: a classifier that always says
"animal" has a high share of answers that are right or above, and a low F-measure.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prompt_core.background.hypernyms import Hypernyms, imagenet21k_hypernyms
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class HierarchicalAccuracy:
    """Numbers over all images.

    Attributes:
        right_or_above: share of images whose answer is their class or a class above it, in [0, 1].
        f1: hierarchical F-measure in [0, 1]: with T the true class and all above it, P the answer and all above it,
            precision = Σ|P ∩ T| / Σ|P| and recall = Σ|P ∩ T| / Σ|T| over the images (Kiritchenko et al. 2005; Silla and
            Freitas 2011, section 5).
        lca_height: mean over all images of the height of the lowest class that is above, or is, both the answer and the
            true class, in edges of the longest way down; 0 for a right answer (Deng et al. 2010, "What does classifying
            more than 10,000 image categories tell us?"; arXiv 1912.09393 divides by the number of mistakes instead).
    """

    right_or_above: float
    f1: float
    lca_height: float


def hierarchical_accuracy(
    answers: Sequence[int],
    labels: Sequence[int],
    candidates: Vocabulary,
    hierarchy: Hypernyms,
    merge_namesakes: bool = True,
) -> HierarchicalAccuracy:
    """Compare answers with true classes in a hierarchy.

    Classes that have nothing above them in common meet at one root over everything, one edge above the highest class;
    it counts in no precision and no recall. A class without a place in the hierarchy is alone: an answer is right
    there, or as wrong as can be. Where namesakes count as one class, the one that is best for the answer counts.

    Args:
        answers: (n,) rows of the candidates.
        labels: (n,) rows of the candidates.
        candidates: with WordNet ids.
        merge_namesakes: classes of one name count as one.

    Raises:
        UserError: no images, or another number of answers.
    """
    if not len(labels) or len(answers) != len(labels):
        raise UserError(f"an answer for each image is expected, given {len(answers)} for {len(labels)}")
    synsets = [hierarchy.synset_of(candidates, row) for row in range(len(candidates))]
    groups = candidates.name_groups.tolist() if merge_namesakes else list(range(len(candidates)))
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    compare = _Comparer(hierarchy)
    total = np.zeros(5, dtype=np.int64)
    for (answer, label), count in Counter(zip(map(int, answers), map(int, labels), strict=True)).items():
        if groups[answer] == groups[label]:
            found = compare.right(synsets[label])
        else:
            of_members = [compare.wrong(synsets[row], synsets[label]) for row in members[groups[answer]]]
            found = max(of_members, key=lambda one: (one[0], -one[4], one[1] / (one[2] + one[3])))
        total += count * np.array(found)
    above, shared, of_answers, of_labels, height = total.tolist()
    return HierarchicalAccuracy(above / len(labels), 2 * shared / (of_answers + of_labels), height / len(labels))


def in_wordnet(
    answers: Sequence[int], labels: Sequence[int] | np.ndarray, candidates: Vocabulary, merge_namesakes: bool = True
) -> dict[str, float]:
    """The numbers as ``metrics.json`` has them; none where no candidate has a WordNet id.

    Returns:
        ``right_or_above`` and ``hierarchical_f1`` in percent, ``lca_height`` in edges, in the hierarchy of
        ImageNet-21K's synsets.
    """
    if not any(
        _WNID.fullmatch(str(identity)) for ids in (candidates.synsets, candidates.ids) for identity in ids or ()
    ):
        return {}
    found = hierarchical_accuracy(answers, list(labels), candidates, imagenet21k_hypernyms(), merge_namesakes)
    return {
        "right_or_above": 100 * found.right_or_above,
        "hierarchical_f1": 100 * found.f1,
        "lca_height": found.lca_height,
    }


class _Comparer:
    """Two synsets at a time: whether right or above; how many are in P and T, in P, in T; the height where they meet.

    None is a class without a place, alone in its set.
    """

    def __init__(self, hierarchy: Hypernyms) -> None:
        self.hierarchy = hierarchy
        self.root_height = 1 + max(hierarchy.heights, default=0)
        self._kept: dict[int, frozenset[int]] = {}

    def right(self, synset: int | None) -> tuple[int, ...]:
        size = len(self._up(synset)) or 1
        return 1, size, size, size, 0

    def wrong(self, answer: int | None, label: int | None) -> tuple[int, ...]:
        above_answer, above_label = self._up(answer), self._up(label)
        both = above_answer & above_label
        height = min((self.hierarchy.heights[row] for row in both), default=self.root_height)
        return int(answer in both), len(both), len(above_answer) or 1, len(above_label) or 1, height

    def _up(self, synset: int | None) -> frozenset[int]:
        """A synset and all above it."""
        if synset is None:
            return frozenset()
        if synset not in self._kept:
            self._kept[synset] = frozenset({synset, *self.hierarchy.above([synset])})
        return self._kept[synset]
