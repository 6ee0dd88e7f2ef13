"""Suffixes in rows of equal length: nothing is lost, nothing is cut, little is padding."""

from __future__ import annotations

import numpy as np
import open_clip
from hypothesis import given
from hypothesis import strategies as st

from prompt_core import Vocabulary
from prompt_core.text.suffix_pack import ROW_TOKENS, pack_suffixes
from prompt_core.text.tokens import PromptTokenizer, TokenSequences


def sequences(lengths: list[int], prefix: int) -> TokenSequences:
    """Sequences whose tokens tell class and position."""
    total = np.array(lengths) + prefix
    ids = 100 * np.arange(1, len(total) + 1)[:, None] + np.arange(total.max())
    ids[:, :prefix] = np.arange(prefix)
    return TokenSequences(ids, total, prefix)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=80), prefix=st.integers(1, 5))
def test_each_suffix_is_whole_within_a_row(lengths: list[int], prefix: int) -> None:
    given_sequences = sequences(lengths, prefix)
    pack = pack_suffixes(given_sequences)
    visible = pack.visible
    assert pack.length >= max(lengths)
    assert visible.shape == (len(pack.ids) // pack.length, pack.length, pack.length)
    used = np.zeros(len(pack.ids), dtype=bool)
    for row, (length, end) in enumerate(zip(lengths, pack.ends.tolist(), strict=True)):
        places = np.arange(end - length + 1, end + 1)
        assert places[0] // pack.length == end // pack.length
        assert not used[places].any()
        used[places] = True
        assert pack.ids[places].tolist() == given_sequences.ids[row, prefix : prefix + length].tolist()
        assert set(pack.rows[places]) == {row}
        assert pack.positions[places].tolist() == list(range(prefix, prefix + length))
        inside = places % pack.length
        seen = visible[end // pack.length, inside]
        assert seen[:, inside].tolist() == np.tri(length, dtype=bool).tolist()
        assert seen.sum() == length * (length + 1) // 2, "a token sees another suffix"
    padding = np.flatnonzero(~used)
    assert visible[padding // pack.length, padding % pack.length].sum() == len(padding), "padding sees itself alone"


def test_names_leave_little_padding() -> None:
    names = Vocabulary.load("imagenet21k").names
    tokenizer = PromptTokenizer(open_clip.SimpleTokenizer())
    for count in (128, 1000):
        chosen = [names[row] for row in np.random.default_rng(0).permutation(len(names))[:count]]
        pack = pack_suffixes(tokenizer.prompts(chosen, 16))
        tokens = int((tokenizer.prompts(chosen, 16).lengths - 17).sum())
        assert len(pack.ids) <= 1.03 * tokens
        assert pack.length <= 1.5 * ROW_TOKENS
