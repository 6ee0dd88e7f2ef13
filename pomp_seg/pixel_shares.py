"""Own shares of pixels: what belongs to none of the words, by names beside them that training taught the pixels.

A pixel's own share of a word is its probability against all words and the background. It is the word's probability
among the words, times the probability that the pixel shows one of them; only the latter needs the background, and it
is made where the embeddings are, on cells of several pixels (:func:`named_probability`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pomp_seg.data.label_sets import LABEL_SETS, label_set
from prompt_core.background.hypernyms import imagenet21k_hypernyms
from prompt_core.background.own_share import background_total
from prompt_core.background.relatives import relatives
from prompt_core.errors import UserError
from prompt_core.fetch.places import PACKAGE, packaged_path
from prompt_core.vocabulary import Vocabulary, read_vocabulary

NONE_OF_THESE = "none of these"  # the name of pixels that show none of the words


def background_names(given: str) -> Vocabulary | None:
    """What ``MODEL.SEM_SEG_HEAD.BACKGROUND`` names.

    Args:
        given: a published vocabulary or label set, a file, ``package://PACKAGE/FILE``, or names joined by commas; empty
            for none.

    Raises:
        UserError: an absent or malformed file.
    """
    if not given:
        return None
    if given in LABEL_SETS:
        return label_set(given).vocabulary
    if given.startswith(PACKAGE):
        return Vocabulary.load(packaged_path(given))
    return read_vocabulary(given)


def background_rows(words: Sequence[str], background: Vocabulary, features: Tensor, others: Tensor) -> Tensor:
    """The names that stand against the words: all but the words themselves and their relatives.

    Args:
        features: (C, E) unit-norm, of the words.
        others: (B, E) unit-norm, of the background.

    Returns:
        (b, E) of ``others``.
    """
    asked = Vocabulary(list(words), source="the words")
    out = relatives(asked, background, features.float().cpu(), others.float().cpu(), imagenet21k_hypernyms)
    return others[torch.from_numpy(~out).to(others.device)]


def named_probability(embeddings: Tensor, words: Tensor, background: Tensor, logit_scale: float) -> Tensor:
    """Probability (N,) that something shows one of the words and no name of the background.

    Args:
        embeddings: (N, E) unit-norm.
        words: (C, E) unit-norm text features.
        background: (B, E) unit-norm text features; B may be 0.
    """
    of_words, of_background = (background_total(embeddings, names, logit_scale) for names in (words, background))
    return torch.sigmoid(of_words - of_background)


def check_none_of_these(background: str, threshold: float, has_shares: bool) -> None:
    """Check the two settings of a segmenter that may say "none of these".

    Args:
        has_shares: whether the segmenter's scores can be own shares.

    Raises:
        UserError: a segmenter whose scores are no shares, or a threshold without a background.
    """
    if background and not has_shares:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.BACKGROUND is {background!r}; only META_ARCHITECTURE ZeroShotPerPixelModel has "
            "shares of pixels"
        )
    if threshold and not background:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.NONE_OF_THESE is {threshold:g} without MODEL.SEM_SEG_HEAD.BACKGROUND; name what "
            "pixels may show instead, such as the names that the segmenter learned from"
        )
