"""Classes that are no negatives of an image: a photo of a beagle shows a dog as well (``LOSS.REJECT``).

The softmax over all names of ImageNet-21K has many names that are right for the same photo. The semantic softmax of
arXiv 2104.10972 learns the classes above an image's class as further labels; here they are left out of the loss: they
are neither the class to be learned nor wrong.
"""

from __future__ import annotations

from collections import defaultdict

from prompt_core.background.hypernyms import Hypernyms, imagenet21k_hypernyms
from prompt_core.errors import UserError
from prompt_core.hierarchy.class_lists import ClassLists
from prompt_core.vocabulary import Vocabulary

# LOSS.REJECT by what is above a class, or above and below it.
BY_HIERARCHY = ("ancestors", "relatives")
_last: list[tuple[Vocabulary, str, ClassLists]] = []  # every step asks for the same


def not_negatives(vocabulary: Vocabulary, reject: str) -> ClassLists:
    """For each class those that are no negatives of its images, the class itself among them.

    They are the classes of its name; with ``ancestors`` those above it in WordNet, with ``relatives`` also those below
    it; and the classes that share a name with one of these, since one text cannot be both.

    Args:
        vocabulary: WordNet ids say where a class is; one without has nothing above it.
        reject: ``ancestors`` or ``relatives``.

    Raises:
        UserError: when no class has the WordNet id of one of ImageNet-21K's synsets.
    """
    if _last and _last[0][0] is vocabulary and _last[0][1] == reject:
        return _last[0][2]
    lists = rejected_lists(vocabulary, reject, imagenet21k_hypernyms())
    _last[:] = [(vocabulary, reject, lists)]
    return lists


def rejected_lists(vocabulary: Vocabulary, reject: str, hierarchy: Hypernyms) -> ClassLists:
    """The same in a given hierarchy."""
    synsets = [hierarchy.synset_of(vocabulary, row) for row in range(len(vocabulary))]
    if all(synset is None for synset in synsets):
        raise UserError(
            f"LOSS.REJECT {reject} needs WordNet ids such as n02084071, and none of the {len(vocabulary)} classes has "
            "one; use a vocabulary with them (imagenet21k), or LOSS.REJECT name"
        )
    groups = vocabulary.name_groups.tolist()
    of_group: dict[int, list[int]] = defaultdict(list)
    groups_of_synset: dict[int, set[int]] = defaultdict(set)
    for row, (group, synset) in enumerate(zip(groups, synsets, strict=True)):
        of_group[group].append(row)
        if synset is not None:
            groups_of_synset[synset].add(group)
    reach = hierarchy.related if reject == "relatives" else hierarchy.above
    lists = []
    for group, synset in zip(groups, synsets, strict=True):
        chosen = {group}
        for other in reach([synset]) if synset is not None else ():
            chosen |= groups_of_synset.get(other, set())
        lists.append([row for one in chosen for row in of_group[one]])
    return ClassLists.of(lists)
