"""Suffixes of many classes in rows of equal length, so that attention within them is a few dense products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prompt_core.text.tokens import TokenSequences

# Tokens of a row at least: attention is computed between all tokens of a row and masked, so that long rows waste
# products; very short ones would leave much padding.
ROW_TOKENS = 16


@dataclass(frozen=True)
class SuffixPack:
    """Suffixes of N classes in R rows of equal length, each within one row.

    What does not fill up a row is padding: token 0 of class 0, which sees itself alone and whose state nobody reads.

    Attributes:
        ids: (T,) token ids and context slots, T = R times the length of a row.
        rows: (T,) class that each token belongs to.
        positions: (T,) position in the sequence.
        starts: (T,) place in the pack where the suffix of each token starts.
        ends: (N,) place in the pack of each class's end-of-text token.
        length: tokens of a row.
    """

    ids: np.ndarray
    rows: np.ndarray
    positions: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    length: int

    @property
    def visible(self) -> np.ndarray:
        """(R, length, length) bool, which tokens of its row each token sees: its own suffix up to itself."""
        places = np.arange(len(self.ids)).reshape(-1, self.length)
        starts = self.starts.reshape(-1, self.length)
        return (places[:, None] >= starts[:, :, None]) & (places[:, None] <= places[:, :, None])


def pack_suffixes(sequences: TokenSequences) -> SuffixPack:
    """Lay the suffixes of ``sequences`` into as few rows as possible."""
    lengths = sequences.lengths - sequences.prefix_length
    length, starts = _arrange(lengths)
    total = -(-int((starts + lengths).max()) // length) * length
    ids, rows = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=np.int64)
    positions, first = np.full(total, sequences.prefix_length), np.arange(total)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    inside = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = starts[owners] + inside
    rows[places], positions[places], first[places] = owners, sequences.prefix_length + inside, starts[owners]
    ids[places] = sequences.ids[owners, positions[places]]
    return SuffixPack(ids, rows, positions, first, starts + lengths - 1, length)


def _arrange(lengths: np.ndarray) -> tuple[int, np.ndarray]:
    """The length of a row and the start of each suffix: little padding, or the least of some lengths."""
    total, longest = int(lengths.sum()), int(lengths.max())
    shortest = -(-longest // 8) * 8
    even = max(longest, -(-total // max(1, total // (2 * ROW_TOKENS))))
    best: tuple[int, int, np.ndarray] | None = None
    for length in (*range(max(shortest, ROW_TOKENS), shortest + 24, 8), *range(even, even + 8)):
        starts = _fill(lengths, length)
        size = -(-int((starts + lengths).max()) // length) * length
        if best is None or size < best[0]:
            best = size, length, starts
        if size - total <= total // 50:
            break
    assert best is not None
    return best[1], best[2]


def _fill(lengths: np.ndarray, row: int) -> np.ndarray:
    """The start of each suffix: into each row the longest that fits, if what then remains is empty or fits another."""
    order = np.argsort(-lengths, kind="stable")
    values, first, counts = np.unique(-lengths[order], return_index=True, return_counts=True)
    kinds = [
        [-value, place, place + count]
        for value, place, count in zip(values.tolist(), first.tolist(), counts.tolist(), strict=True)
    ]
    starts = np.empty(len(lengths), dtype=np.int64)
    start = 0
    while kinds:
        room = row
        while kinds and room >= kinds[-1][0]:
            shortest = kinds[-1][0]
            fitting = [kind for kind in kinds if kind[0] <= room]
            kind = next((kind for kind in fitting if room == kind[0] or room - kind[0] >= shortest), fitting[0])
            starts[order[kind[1]]] = start + row - room
            room -= kind[0]
            kind[1] += 1
            if kind[1] == kind[2]:
                kinds.remove(kind)
        start += row
    return starts
