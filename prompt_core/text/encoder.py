"""The prompted text encoder: class names and a soft prompt in, class features out, exact and differentiable."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.prompt import SoftPrompt
from prompt_core.text.embedding import embed_rows, embed_tokens
from prompt_core.text.gradient_cache import KeptStates, chunked_features
from prompt_core.text.name_lists import class_names, keeps_underscores, unique_names
from prompt_core.text.plain import encode_plain_texts
from prompt_core.text.reference import encode_full_context, encode_truncated
from prompt_core.text.shared_prefix import encode_shared_prefix
from prompt_core.text.suffix_pack import pack_suffixes
from prompt_core.text.tokens import PromptTokenizer, TokenSequences
from prompt_core.text.tower import TextTower, learned_context_obstacle
from prompt_core.towers.placement import upload

if TYPE_CHECKING:
    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary

# Names per pass where no gradient is kept: enough to fill the matrix units, little memory.
INFERENCE_CHUNK = 1024
# Prompts per pass of the full-length reference.
REFERENCE_CHUNK = 256
# Below this many multiply-adds per block, the many small calls of the packed path cost more than they save; plain
# truncation is used. Measured: docs/results/text_benchmark.json, "crossover".
PACKED_MINIMUM_WORK = 2e7
# Bytes of states that chunks may keep between the forward and the backward pass: enough for all 21,843 names of
# ImageNet-21K in the text tower of ViT-B/16, with room for the rest within 4 GiB.
KEPT_BYTES = int(2.25 * 2**30)

# Of sequences, their classes (class-specific contexts only), a context (L, D), (N, L, D) or (B, L, D), a deep context.
_Encode = Callable[..., Tensor]


class PromptedTextEncoder:
    """Encodes class names with a soft prompt and a frozen CLIP text tower.

    The prefix that all classes share is encoded once, suffixes are packed by length, the last block computes only
    what the end-of-text token needs (:mod:`prompt_core.text.shared_prefix`). Towers that do not allow it get a correct
    slower path; the reason is in :attr:`slow_because`.

    Args:
        clip: the frozen model.
        kept_bytes: memory in which the passes of ``chunk_size`` may keep the inputs of their blocks for the backward
            pass, which then has less to recompute; 0 for the least memory.
        normalise: False leaves the L2 norm out, for methods that change features before it (LASP).

    A tower that takes no learned context (:func:`prompt_core.text.tower.learned_context_obstacle`) encodes finished
    texts (:meth:`encode_texts`); all else raises a UserError that says so.
    """

    def __init__(self, clip: Clip, kept_bytes: int = KEPT_BYTES, normalise: bool = True) -> None:
        self.clip = clip
        self.kept_bytes = kept_bytes
        self.normalise = normalise
        self.texts_only = learned_context_obstacle(clip) is not None
        self.slow_because = None if self.texts_only else self.tower.truncation_obstacle
        if self.slow_because is not None:
            warnings.warn(
                f"{clip.name}: the text tower is encoded at full length because {self.slow_because}", stacklevel=2
            )

    @cached_property
    def tower(self) -> TextTower:
        """The text tower. Raises UserError where it takes no learned context."""
        return TextTower(self.clip, self.normalise)

    @cached_property
    def tokenizer(self) -> PromptTokenizer:
        """Names to tokens with slots for the context. Raises UserError where the tower takes none."""
        return PromptTokenizer(self.tower.clip.tokenizer)

    def __call__(
        self,
        prompt: SoftPrompt,
        vocabulary: Vocabulary | Sequence[str],
        chunk_size: int | None = None,
        reference: bool = False,
    ) -> Tensor:
        """Class features of ``vocabulary`` with ``prompt``.

        Args:
            prompt: its context is (L, D), or (N, L, D) with one context per class of ``vocabulary``.
            vocabulary: N class names; duplicates are encoded once.
            chunk_size: classes per pass. Bounds memory at the price of at most one more forward pass; the gradient is
                the same, since it is first computed at the features and then propagated to the prompt chunk by chunk
                (gradient caching, arXiv 2101.06983).
            reference: run open_clip's own tower on the 77-token prompts.

        Returns:
            (N, E) unit-norm features, float32 (float64 for a float64 model), differentiable in the prompt.

        Raises:
            UserError: a name too long for the context length, a prompt of the wrong width or number of classes.
        """
        return self.encode_context(
            prompt.context,
            class_names(vocabulary),
            prompt.position,
            prompt.deep_context,
            chunk_size,
            reference,
            keeps_underscores(vocabulary),
        )

    def encode_context(
        self,
        context: Tensor,
        names: Sequence[str],
        position: str = "end",
        deep_context: Tensor | None = None,
        chunk_size: int | None = None,
        reference: bool = False,
        keep_underscores: bool = False,
    ) -> Tensor:
        """The same for context vectors that are not a :class:`SoftPrompt`, such as some rows of a class-specific one.

        Args:
            context: (L, D), or (N, L, D) with one context per name.
            deep_context: (J, M, D), see :class:`SoftPrompt`.
            keep_underscores: those of names do not become spaces.
        """
        class_specific = context.dim() == 3
        self._check(context, names if class_specific else None)
        sequences = self.tokenizer.prompts(names, context.shape[-2], position, keep_underscores)
        if not names:
            return torch.zeros(0, self.tower.embed_dim, device=self.tower.device)
        if class_specific:
            # The contexts differ from class to class, so only the start token is common.
            sequences = TokenSequences(sequences.ids, sequences.lengths, 1)
            return self._encode(sequences, np.arange(len(names)), context, deep_context, chunk_size, reference)
        first, inverse = unique_names(names)
        features = self._encode(sequences.select(first), None, context, deep_context, chunk_size, reference)
        return features[upload(inverse, features.device)]

    def encode_sequences(
        self, sequences: TokenSequences, context: Tensor, chunk_size: int | None = None, reference: bool = False
    ) -> Tensor:
        """Features (N, E) of any token sequences with slots for a shared context (L, D).

        Raises:
            UserError: a context of another width.
        """
        self._check(context, None)
        if not len(sequences):
            return torch.zeros(0, self.tower.embed_dim, device=self.tower.device)
        return self._encode(sequences, None, context, None, chunk_size, reference)

    def encode_conditional(
        self,
        contexts: Tensor,
        vocabulary: Vocabulary | Sequence[str],
        position: str = "end",
        chunk_size: int | None = None,
        reference: bool = False,
        keep_underscores: bool | None = None,
    ) -> Tensor:
        """Class features with one context per image, as in CoCoOp (arXiv 2203.05557).

        Args:
            contexts: (B, L, D).
            keep_underscores: those of names do not become spaces; None for what the vocabulary says.

        Returns:
            (B, N, E) unit-norm features, differentiable in ``contexts``.
        """
        names = class_names(vocabulary)
        self._check(contexts, None)
        first, inverse = unique_names(names)
        keep = keeps_underscores(vocabulary) if keep_underscores is None else keep_underscores
        sequences = self.tokenizer.prompts(names, contexts.shape[1], position, keep).select(first)
        if reference or self.tower.sharing_obstacle is not None:
            features = torch.stack(
                [self._encode(sequences, None, context, None, chunk_size, reference) for context in contexts]
            )
        else:
            features = self._encode(sequences, None, contexts, None, chunk_size, False)
        return features[:, upload(inverse, features.device)]

    def encode_texts(self, texts: Sequence[str], chunk_size: int | None = None, reference: bool = False) -> Tensor:
        """Features (N, E) of finished texts, such as a hand-written template filled with each name.

        Raises:
            UserError: a text too long for the context length.
        """
        if not texts:
            return torch.zeros(0, self.clip.embed_dim, device=self.clip.device)
        first, inverse = unique_names(texts)
        if self.texts_only:
            unique = [texts[row] for row in first]
            features = encode_plain_texts(self.clip, unique, chunk_size or REFERENCE_CHUNK, self.normalise)
            return features[upload(inverse, features.device)]
        sequences = self.tokenizer.texts([texts[row] for row in first])
        nothing = torch.zeros(0, self.tower.width, dtype=self.tower.dtype, device=self.tower.device)
        with torch.no_grad():
            features = self._encode(sequences, None, nothing, None, chunk_size, reference)
        return features[upload(inverse, features.device)]

    def _check(self, context: Tensor, names: Sequence[str] | None) -> None:
        if context.shape[-1] != self.tower.width:
            raise UserError(
                f"the prompt has width {context.shape[-1]}, the text tower of {self.clip.name} has {self.tower.width}; "
                "use a prompt that was learned with this architecture"
            )
        if names is not None and len(context) != len(names):
            raise UserError(f"the class-specific prompt holds {len(context)} classes, the vocabulary {len(names)}")

    def _encode(
        self,
        sequences: TokenSequences,
        rows: np.ndarray | None,
        context: Tensor,
        deep_context: Tensor | None,
        chunk_size: int | None,
        reference: bool,
    ) -> Tensor:
        if chunk_size is not None and chunk_size < 1:
            raise UserError(f"chunk_size is {chunk_size}; give a positive number of classes, or None for no chunks")
        tensors = [context] if deep_context is None else [context, deep_context]
        learning = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if chunk_size is None and not learning:
            chunk_size = INFERENCE_CHUNK
        if reference or self.tower.truncation_obstacle is not None:
            encode: _Encode = self._full_length
            chunk_size = min(chunk_size or REFERENCE_CHUNK, REFERENCE_CHUNK) if not learning else chunk_size
        elif context.dim() == 3 and rows is None:
            encode = self._packed
        else:
            encode = self._choose(sequences)
        if chunk_size is None or chunk_size >= len(sequences):
            return encode(sequences, rows, context, deep_context)
        # Chunks of equally long suffixes: sort once, cut, and put the features back.
        order = np.argsort(sequences.lengths, kind="stable")
        chunks = [order[start : start + chunk_size] for start in range(0, len(order), chunk_size)]
        dim = 1 if context.dim() == 3 and rows is None else 0
        kept: list[KeptStates | None] = [None] * len(chunks)
        if learning and encode == self._packed:
            kept = self._places(sequences, chunks, len(context) if dim else 1)

        def encode_chunk(index: int, context: Tensor, deep: Tensor | None = None) -> Tensor:
            chunk, states = chunks[index], kept[index]
            options = {} if states is None else {"kept": states}
            return encode(sequences.select(chunk), None if rows is None else rows[chunk], context, deep, **options)

        features = chunked_features(encode_chunk, len(chunks), dim, *tensors)
        unsort = upload(np.argsort(order), features.device)
        return features.index_select(dim, unsort)

    def _places(self, sequences: TokenSequences, chunks: list[np.ndarray], prefixes: int) -> list[KeptStates | None]:
        """Where each chunk keeps its states, as far as :attr:`kept_bytes` allows."""
        packs = [pack_suffixes(sequences.select(chunk)) for chunk in chunks]
        sizes = [KeptStates.size(self.tower, prefixes, sequences.prefix_length, pack) for pack in packs]
        element = torch.finfo(self.tower.dtype).bits // 8
        kept = int((np.cumsum(sizes) * element <= self.kept_bytes).sum())
        memory = torch.empty(sum(sizes[:kept]), dtype=self.tower.dtype, device=self.tower.device)
        places = zip(packs, memory.split(sizes[:kept]), strict=False)
        return [KeptStates(pack, place) for pack, place in places] + [None] * (len(chunks) - kept)

    def _choose(self, sequences: TokenSequences) -> _Encode:
        """Packed or truncated, by the work of one block, since call overhead dominates for small matrices."""
        if self.tower.sharing_obstacle is not None:
            return self._truncated
        tokens = float((sequences.lengths - sequences.prefix_length).sum())
        return self._packed if tokens * 12 * self.tower.width**2 >= PACKED_MINIMUM_WORK else self._truncated

    def _packed(
        self,
        sequences: TokenSequences,
        rows: np.ndarray | None,
        context: Tensor,
        deep_context: Tensor | None,
        kept: KeptStates | None = None,
    ) -> Tensor:
        pack = pack_suffixes(sequences) if kept is None else kept.pack
        common = sequences.prefix_length
        conditional = context.dim() == 3 and rows is None
        contexts = context if conditional else context[None]  # (B, L, D), or (1, N, L, D) when class-specific
        prefix = embed_tokens(self.tower, sequences.ids[0, :common], None, contexts if rows is None else None)
        suffix = embed_tokens(self.tower, pack.ids, None if rows is None else rows[pack.rows], contexts)
        positions = self.tower.positional_embedding
        prefix = prefix + positions[:common]
        suffix = suffix + positions[upload(pack.positions, positions.device)]
        if conditional:
            prefix, suffix = (part.expand(len(context), -1, -1) for part in (prefix, suffix))
        if kept is None:
            states = encode_shared_prefix(self.tower, prefix, suffix, pack, deep_context)
        else:
            states = kept.encode(self.tower, prefix, suffix, deep_context)
        features = self.tower.project(states)
        return features if conditional else features[0]

    def _truncated(
        self, sequences: TokenSequences, rows: np.ndarray | None, context: Tensor, deep_context: Tensor | None
    ) -> Tensor:
        embeddings = embed_rows(self.tower, sequences.ids, rows, context)
        embeddings = embeddings + self.tower.positional_embedding[: embeddings.shape[1]]
        lengths = upload(sequences.lengths, embeddings.device)
        return encode_truncated(self.tower, embeddings, lengths, deep_context)

    def _full_length(
        self, sequences: TokenSequences, rows: np.ndarray | None, context: Tensor, deep_context: Tensor | None
    ) -> Tensor:
        length = self.tower.context_length
        ids = np.zeros((len(sequences), length), dtype=np.int64)
        ids[:, : sequences.ids.shape[1]] = sequences.ids
        plain = sequences.padded(length, self.tokenizer.context_token)
        embeddings = embed_rows(self.tower, ids, rows, context)
        return encode_full_context(self.tower, upload(plain, self.tower.device), embeddings, deep_context)


__all__ = ["PromptedTextEncoder", "class_names"]
