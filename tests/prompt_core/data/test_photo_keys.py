"""Keys in arrays behave as the list of their texts, in a fraction of its memory."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core.data.photo_keys import KeyPacker, PhotoKeys

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/"), max_size=8)


def packed(folders: dict[str, list[str]]) -> tuple[PhotoKeys, list[str]]:
    packer, texts = KeyPacker(), []
    for folder, names in folders.items():
        assert packer.add(folder, names) == len(names)
        texts += [f"{folder}/{name}" if folder else name for name in names]
    return packer.keys(), texts


@settings(max_examples=40)
@given(folders=st.dictionaries(NAMES, st.lists(NAMES, max_size=5), max_size=4), data=st.data())
def test_keys_are_their_texts(folders: dict[str, list[str]], data: st.DataObject) -> None:
    keys, texts = packed(folders)
    assert list(keys) == texts
    assert keys == texts
    assert texts == keys
    assert [keys[index] for index in range(-len(texts), len(texts))] == texts + texts
    assert keys[1:-1] == texts[1:-1]
    chosen = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=6)) if texts else []
    taken = keys.take(np.array(chosen, dtype=np.int64))
    assert taken == [texts[index] for index in chosen]
    again = list(range(len(chosen)))[::-1]
    assert taken.take(np.array(again, dtype=np.int64)) == [texts[chosen[index]] for index in again]
    assert (keys == [*texts, "more"]) is False


def test_ends_names_that_are_no_utf8_and_many_keys() -> None:
    odd = b"\xff.jpg".decode("utf-8", "surrogateescape")
    keys, texts = packed({"a": [odd, ""], "b": [f"{number}.JPEG" for number in range(10_000)]})
    assert list(keys) == texts
    with pytest.raises(IndexError):
        keys[len(texts)]
    with pytest.raises(IndexError):
        keys[-len(texts) - 1]
    assert repr(keys) == f"<10,002 keys, the first is {texts[0]!r}>"
    assert packed({})[0] == []


def test_keys_take_a_third_of_the_memory_of_a_list() -> None:
    names = [f"n01440764_{number}.JPEG" for number in range(10_000, 20_000)]
    keys, texts = packed({"imagenet21k_train/n01440764": names})
    arrays = sum(array.nbytes for array in vars(keys).values() if isinstance(array, np.ndarray))
    assert arrays < 0.35 * (sys.getsizeof(texts) + sum(map(sys.getsizeof, texts)))
