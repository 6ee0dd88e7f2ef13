"""Names above, below and beside a word, by WordNet and by text; the table of hypernyms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prompt_core import UserError, Vocabulary
from prompt_core.background.hypernyms import Hypernyms, imagenet21k_hypernyms, parents_among
from prompt_core.background.relatives import relatives

# offset file type words (word id)… pointers (kind offset part 0000)… | definition
DATA = """  1 a licence
00000001 03 n 01 entity 0 000 | all
00000002 03 n 02 animal 0 beast 0 001 @ 00000001 n 0000 | moves
00000003 03 n 01 canine 0 001 @ 00000002 n 0000 | not of the list
00000004 05 n 02 dog 0 domestic_dog 0 003 @ 00000003 n 0000 @ 00000002 n 0000 #m 00000009 n 0000 | barks
00000005 05 n 01 Lassie 0 001 @i 00000004 n 0000 | one dog
"""
IDS = ["n00000002", "n00000004", "n00000005"]


@pytest.fixture
def data_noun(tmp_path: Path) -> Path:
    path = tmp_path / "data.noun"
    path.write_text(DATA, encoding="utf-8")
    return path


def test_parents_pass_synsets_that_are_not_listed(data_noun: Path) -> None:
    assert parents_among(IDS, data_noun) == [[], [0], [1]]
    assert parents_among(["n00000005", "n00000001"], data_noun) == [[1], []]


def test_other_files_are_refused(data_noun: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no synset n00000099"):
        parents_among([*IDS, "n00000099"], data_noun)
    with pytest.raises(UserError, match="cannot read"):
        parents_among(IDS, tmp_path / "absent")
    data_noun.write_text("dog n 1\n", encoding="utf-8")
    with pytest.raises(UserError, match="is not the noun data of WordNet"):
        parents_among(IDS, data_noun)


def hierarchy() -> Hypernyms:
    vocabulary = Vocabulary(["animal", "dog", "Lassie"], synsets=IDS, synonyms=[["beast"], ["domestic_dog"], []])
    return Hypernyms.of(vocabulary, [[], [0], [1]])


def test_words_are_found_as_people_write_them() -> None:
    small = hierarchy()
    for text in ("dog", "Dogs", "DOG", "domestic dog", "dog_(animal)", "domestic_dog"):
        assert small.senses_of(text) == {1}, text
    assert small.senses_of("dachshund") == set()
    assert small.related({1}) == {0, 1, 2}
    assert small.related({2}) == {0, 1, 2}
    assert small.related(set()) == set()
    plurals = Hypernyms.of(Vocabulary(["knife", "box", "cherry", "woman", "glass", "wineglass"]), [[]] * 6)
    found = [plurals.senses_of(text) for text in ("boxes", "cherries", "women", "glass", "glasses", "wine glass")]
    assert found == [{1}, {2}, {3}, {4}, {4}, {5}]


def out(words: Vocabulary, names: Vocabulary, **options: float) -> list[str]:
    """Names taken out, where no texts are alike."""
    features = torch.eye(len(words) + len(names))
    chosen = relatives(words, names, features[: len(words)], features[len(words) :], imagenet21k_hypernyms, **options)
    return [names.names[row] for row in np.flatnonzero(chosen)]


def test_relatives_of_imagenet() -> None:
    names = Vocabulary(["animal", "Chihuahua", "Dog", "tabby", "corgi", "wolf", "vehicle", "no lemma"])
    assert out(Vocabulary(["dog"]), names) == ["animal", "Chihuahua", "Dog", "corgi"]
    assert out(Vocabulary(["Chihuahua"]), names) == ["animal", "Chihuahua", "Dog"]
    assert out(Vocabulary(["no_lemma"]), names) == ["no lemma"]
    assert out(Vocabulary(["pooch"], synonyms=[["dog"]]), names)[0] == "animal"
    assert out(Vocabulary([]), names) == []


def test_an_id_says_which_sense_is_meant() -> None:
    wide = Vocabulary.load("imagenet21k")
    cranes = [row for row, name in enumerate(wide.names) if name == "crane"]
    assert len(cranes) == 2
    bird, machine = sorted(cranes, key=lambda row: str(wide.ids[row] if wide.ids else ""))
    names = Vocabulary(["bird", "lifting device"])
    assert out(wide[[bird]], names) == ["bird"]
    assert out(wide[[machine]], names) == ["lifting device"]
    assert out(Vocabulary(["crane"]), names) == ["bird", "lifting device"]


def test_names_with_the_same_text_feature_are_one() -> None:
    words, names = Vocabulary(["cell phone"]), Vocabulary(["mobile telephone", "banana"])
    word = torch.tensor([[1.0, 0.0]])
    others = torch.tensor([[0.96, 0.28], [0.9, 0.436]])
    chosen = relatives(words, names, word, others, imagenet21k_hypernyms)
    assert chosen.tolist() == [True, False]
    assert relatives(words, names, word, others, imagenet21k_hypernyms, same_text=0.97).tolist() == [False, False]
