"""Classes that are no negatives: sparse lists against the dense matrix of all pairs, and what a step does with them."""

from __future__ import annotations

import math
import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prompt_core import UserError, Vocabulary, full_softmax_logits, local_contrast_logits
from prompt_core.background.hypernyms import Hypernyms, imagenet21k_hypernyms
from prompt_core.hierarchy.class_lists import ClassLists
from prompt_core.hierarchy.not_negatives import not_negatives, rejected_lists


def random_hierarchy(size: int, seed: int) -> tuple[Hypernyms, Tensor]:
    """Synsets with parents of smaller rows, several for some; and (S, S) booleans: is the column above the row."""
    draw = random.Random(seed)
    parents = [sorted({draw.randrange(row) for _ in range(draw.randrange(3))}) if row else [] for row in range(size)]
    above = torch.zeros(size, size, dtype=torch.float64)
    for row, of_row in enumerate(parents):
        above[row, of_row] = 1
    closed = above.clone()
    for _ in range(size):
        closed = ((closed + closed @ above) > 0).double()
    names = Vocabulary([f"synset {row}" for row in range(size)], synsets=[f"n{row:08d}" for row in range(size)])
    return Hypernyms.of(names, parents), closed > 0


def dense(vocabulary: Vocabulary, above: Tensor, reject: str) -> Tensor:
    """(N, N) booleans: is the column no negative of the row."""
    size = len(vocabulary)
    related = torch.zeros(size, size, dtype=torch.bool)
    for row, first in enumerate(vocabulary.ids or []):
        for column, second in enumerate(vocabulary.ids or []):
            a, b = int(str(first)[1:]), int(str(second)[1:])
            if max(a, b) < len(above):
                related[row, column] = above[a, b] or (reject == "relatives" and above[b, a])
    same = torch.tensor([[one == other for other in vocabulary.names] for one in vocabulary.names])
    related |= torch.eye(size, dtype=torch.bool)
    return (related.double() @ same.double()) > 0


@st.composite
def cases(draw: st.DrawFn) -> tuple[Hypernyms, Tensor, Vocabulary, str]:
    size = draw(st.integers(2, 9))
    tree, above = random_hierarchy(size, draw(st.integers(0, 999)))
    synsets = draw(st.permutations(range(size + 2)))[: draw(st.integers(2, size + 2))]  # the last two are unknown
    if all(synset >= size for synset in synsets):
        synsets = [0, *synsets[1:]]
    names = [draw(st.sampled_from(["crane", "dog", "fox", "oak", "ash"])) for _ in synsets]
    return (
        tree,
        above,
        Vocabulary(names, ids=[f"n{row:08d}" for row in synsets]),
        draw(st.sampled_from(["ancestors", "relatives"])),
    )


@settings(max_examples=60, deadline=None)
@given(case=cases(), data=st.data())
def test_losses_are_those_of_the_dense_matrix(
    case: tuple[Hypernyms, Tensor, Vocabulary, str], data: st.DataObject
) -> None:
    tree, above, vocabulary, reject = case
    lists, matrix, size = rejected_lists(vocabulary, reject, tree), dense(vocabulary, above, reject), len(vocabulary)
    labels = torch.tensor(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=4)))
    drawn = torch.tensor(data.draw(st.permutations(range(size)))[: data.draw(st.integers(1, size))])
    assert torch.equal(lists.mask(labels), matrix[labels])
    assert torch.equal(lists.counts(labels), matrix[labels].sum(dim=1))

    generator = torch.Generator().manual_seed(0)
    images, classes = (F.normalize(torch.randn(n, 6, generator=generator).double(), dim=1) for n in (len(labels), size))
    logits = local_contrast_logits(
        images, classes[labels], classes[drawn], labels, drawn, size, 7.0, "ln", not_negatives=lists
    )
    full = full_softmax_logits(images, classes, labels, 7.0, not_negatives=lists)
    for image, label in enumerate(labels.tolist()):
        foes = [row for row in drawn.tolist() if not matrix[label, row]]
        margin = math.log(max(size - int(matrix[label].sum()), 1) / max(len(foes), 1))
        cosines = [7.0 * float(images[image] @ row) for row in classes]
        expected = [cosines[label]]
        expected += [-math.inf if matrix[label, row] else cosines[row] + margin for row in drawn.tolist()]
        assert logits[image].tolist() == pytest.approx(expected, abs=1e-6)
        kept = [row == label or not matrix[label, row] for row in range(size)]
        assert full[image].tolist() == pytest.approx(
            [cosine if keep else -math.inf for cosine, keep in zip(cosines, kept, strict=True)], abs=1e-9
        )


def test_lists_hold_what_they_say() -> None:
    lists = ClassLists.of([[2, 0, 2], [], [1]])
    assert lists.mask(torch.tensor([1, 0, 2, 0])).tolist() == [
        [False] * 3,
        [True, False, True],
        [False, True, False],
        [True, False, True],
    ]
    assert lists.counts(torch.tensor([0, 1])).tolist() == [2, 0]
    with pytest.raises(UserError, match="classes 0 to 1 are expected, given 2"):
        ClassLists.of([[2], []])
    features, rows = torch.eye(4), torch.arange(4)
    with pytest.raises(UserError, match="3 lists of classes that are no negatives for 4 classes"):
        local_contrast_logits(features, features, features, rows, rows, 4, 1.0, not_negatives=lists)


def test_a_beagle_is_a_dog_and_no_machine() -> None:
    """In ImageNet-21K: its lists stay short, and a namesake of an ancestor is rejected too."""
    vocabulary, tree = Vocabulary.load("imagenet21k"), imagenet21k_hypernyms()
    lists = not_negatives(vocabulary, "ancestors")
    assert not_negatives(vocabulary, "ancestors") is lists
    row = {str(identity): number for number, identity in enumerate(vocabulary.ids or ())}
    beagle, dog, animal, lorry = (row[wnid] for wnid in ("n02088364", "n02084071", "n00015388", "n03417042"))
    rejected = lists.mask(torch.tensor([beagle, dog]))
    assert rejected[:, [beagle, dog, animal, lorry]].tolist() == [[True, True, True, False], [False, True, True, False]]
    assert len(lists.classes) < 20 * len(vocabulary)
    dogs = [place for place, name in enumerate(vocabulary.names) if name == "dog"]
    assert rejected[0, dogs].all()
    above = tree.above([beagle])
    assert set(torch.nonzero(rejected[0])[:, 0].tolist()) >= above | {beagle}


def test_names_without_wordnet_ids_are_refused() -> None:
    with pytest.raises(UserError, match=r"LOSS.REJECT ancestors needs WordNet ids .* none of the 2 classes"):
        not_negatives(Vocabulary(["cat", "dog"], ids=[1, 2]), "ancestors")
