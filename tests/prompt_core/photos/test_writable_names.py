"""Names of files, of whatever people call things."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_core.photos.writable_names import NAME_BYTES, FlatNames, without_ending, writable


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text() | st.sampled_from(["a/b.jpg", "a_b.png", "../a", "/", "", ".", "A_B", "con\\d"]), max_size=6))
def test_names_are_of_one_folder_and_each_its_own(texts: list[str]) -> None:
    names = FlatNames()
    given_out = [names.new(text) for text in texts]
    assert len({name.casefold() for name in given_out}) == len(texts)
    for name in given_out:
        assert Path(name).name == name
        assert name not in ("", ".", "..")
        assert not set(name) & set('\\/:*?"<>|\0\n')
        assert len(name.encode()) <= NAME_BYTES + 10


def test_names_stay_readable() -> None:
    names = FlatNames()
    assert [names.new(name) for name in ("holiday 1/a.jpg", "holiday 1/a.png", "../犬.jpg")] == [
        "holiday 1_a",
        "holiday 1_a_2",
        "犬",
    ]
    assert writable("a/b:c\x1b") == "a_b_c_"
    assert (without_ending("a.b.jpg"), without_ending(".a"), without_ending("a.")) == ("a.b", ".a", "a.")
