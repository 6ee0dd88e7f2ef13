"""From class names to token sequences, with slots where the learned context goes.

A sequence mixes token ids (>= 0) and context slots: slot k is written ``-1 - k`` and stands for context vector k. All
class-token positions, hand-written templates and plain texts are then the same: sequences with a common prefix.

Layout of the published implementation (``trainers/pomp.py``): the string ``"X " * n_ctx + name + "."`` is tokenised
as a whole, so that a name ending in ``)`` merges with the full stop into one token, and the context replaces the ``X``
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from prompt_core.errors import UserError

Position = Literal["end", "middle", "front"]
POSITIONS: tuple[str, ...] = get_args(Position)


@dataclass(frozen=True)
class TokenSequences:
    """Token sequences of N classes.

    Attributes:
        ids: (N, T) int64, token ids and context slots, padded with 0 (CLIP's padding id) after each end.
        lengths: (N,) int64, number of used positions, counted up to and including the end-of-text token.
        prefix_length: number of leading positions that are the same in every sequence (at least 1, the start token).
    """

    ids: np.ndarray
    lengths: np.ndarray
    prefix_length: int

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, rows: np.ndarray) -> TokenSequences:
        """The sequences of some rows; the prefix stays the same."""
        return TokenSequences(self.ids[rows], self.lengths[rows], self.prefix_length)

    def padded(self, length: int, context_token: int) -> np.ndarray:
        """(N, length) plain token ids; each context slot becomes ``context_token``, the id of "X"."""
        out = np.zeros((len(self), length), dtype=np.int64)
        out[:, : self.ids.shape[1]] = np.where(self.ids < 0, context_token, self.ids)
        return out


def prompt_text(name: str, keep_underscores: bool = False) -> str:
    """A class name as it is prompted: underscores become spaces, unless they are kept as in Detic's matrices."""
    return name if keep_underscores else name.replace("_", " ")


class PromptTokenizer:
    """Turns names into :class:`TokenSequences`, remembering what it has tokenised.

    Args:
        tokenizer: an open_clip ``SimpleTokenizer``.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.context_length = int(tokenizer.context_length)
        self.context_token = int(tokenizer.encode("X")[0])
        self._bodies: dict[tuple[str, int], tuple[int, ...]] = {}
        self._name_lengths: dict[str, int] = {}

    def prompts(
        self, names: Sequence[str], n_ctx: int, position: str = "end", keep_underscores: bool = False
    ) -> TokenSequences:
        """Sequences ``[SOT] context name . [EOT]`` (end), or with the name between or before the context.

        With position ``middle`` the first ``n_ctx // 2`` vectors precede the name. "The name" is as many tokens as the
        name has by itself, so a full stop merged with a closing bracket stays with it, as in the published code.

        Raises:
            UserError: for a name that does not fit into the context length, or an unknown position.
        """
        if position not in POSITIONS:
            raise UserError(f"unknown class token position {position!r}; expected one of {', '.join(POSITIONS)}")
        sot, eot = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        slots = [-1 - k for k in range(n_ctx)]
        head, tail = {"end": (slots, []), "front": ([], slots)}.get(
            position, (slots[: n_ctx // 2], slots[n_ctx // 2 :])
        )
        sequences = []
        for text in (prompt_text(name, keep_underscores) for name in names):
            body = self._body(text, n_ctx)
            if tail:
                cut = self._name_length(text)
                body = (*body[:cut], *tail, *body[cut:])
            sequences.append((sot, *head, *body, eot))
        return self._pack(sequences, 1 + len(head), names, f"with {n_ctx} context vectors")

    def separate_prompts(self, names: Sequence[str], n_prefix: int, n_suffix: int = 0) -> TokenSequences:
        """Sequences ``[SOT] context name context . [EOT]`` with a separate token for the full stop and names as given.

        This is how ZSSeg (arXiv 2112.14757, ``modeling/clip_adapter/text_prompt.py``) builds prompts: a closing bracket
        does not merge with the full stop, underscores stay.

        Args:
            n_prefix: context vectors before the name, slots 0..n_prefix - 1.
            n_suffix: context vectors between the name and the full stop, the slots after them.

        Raises:
            UserError: for a name that does not fit into the context length.
        """
        sot, eot = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        slots = [-1 - k for k in range(n_prefix + n_suffix)]
        full_stop = self.tokenizer.encode(".")
        head, tail = slots[:n_prefix], slots[n_prefix:]
        sequences = [(sot, *head, *self.tokenizer.encode(name), *tail, *full_stop, eot) for name in names]
        return self._pack(sequences, 1 + n_prefix, names, f"with {n_prefix + n_suffix} context vectors")

    def texts(self, texts: Sequence[str]) -> TokenSequences:
        """Sequences of finished texts; the prefix is the longest run of tokens that all of them begin with.

        Raises:
            UserError: for a text that does not fit into the context length.
        """
        sot, eot = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        sequences = [(sot, *self.tokenizer.encode(text), eot) for text in texts]
        prefix = 1
        if sequences:
            first, last = min(sequences), max(sequences)
            # The end-of-text token stays in the suffix even where all texts are the same.
            limit = min(len(first), len(last)) - 1
            while prefix < limit and first[prefix] == last[prefix]:
                prefix += 1
        return self._pack(sequences, prefix, texts, "as a text")

    def _body(self, text: str, n_ctx: int) -> tuple[int, ...]:
        key = (text, n_ctx)
        if key not in self._bodies:
            joined = self.tokenizer.encode("X " * n_ctx + text + ".")
            if joined[:n_ctx] != [self.context_token] * n_ctx:
                raise UserError(f"class name {text!r} changes how the context before it is tokenised; rename the class")
            self._bodies[key] = tuple(joined[n_ctx:])
        return self._bodies[key]

    def _name_length(self, text: str) -> int:
        if text not in self._name_lengths:
            self._name_lengths[text] = len(self.tokenizer.encode(text))
        return self._name_lengths[text]

    def _pack(
        self, sequences: list[tuple[int, ...]], prefix: int, names: Sequence[str], setting: str
    ) -> TokenSequences:
        eot = self.tokenizer.eot_token_id
        lengths = np.zeros(len(sequences), dtype=np.int64)
        for row, sequence in enumerate(sequences):
            if len(sequence) > self.context_length:
                raise UserError(
                    f"class name {str(names[row])[:60]!r} needs {len(sequence)} tokens {setting}, "
                    f"the text tower takes {self.context_length}; shorten the name or the context"
                )
            # CLIP pools at the first end-of-text token; a name that spells one ends its sequence there.
            lengths[row] = sequence.index(eot) + 1
        width = int(lengths.max()) if len(sequences) else prefix
        ids = np.zeros((len(sequences), width), dtype=np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : lengths[row]] = sequence[: lengths[row]]
        if len(sequences):
            prefix = min(prefix, int(lengths.min()) - 1)
        return TokenSequences(ids, lengths, prefix)
