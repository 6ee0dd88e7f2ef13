"""Finished texts through a model's own tokenizer and text tower: the way that every open_clip model has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.errors import UserError

if TYPE_CHECKING:
    from prompt_core.clip import Clip


@torch.no_grad()
def encode_plain_texts(clip: Clip, texts: Sequence[str], chunk_size: int, normalise: bool = True) -> Tensor:
    """Features of finished texts, tokenised to the model's context length and pooled as the model does it.

    Args:
        texts: N of them, at least one.
        chunk_size: texts per pass.

    Returns:
        (N, E), float32 or float64, unit-norm unless ``normalise`` is off.

    Raises:
        UserError: a text that the tokenizer would cut; a tokenizer that is absent and cannot be fetched.
    """
    ids = clip.tokenizer(list(texts))  # (N, L)
    _check_lengths(clip.tokenizer, texts, ids)
    with clip.autocast():
        features = torch.cat(
            [
                clip.model.encode_text(part.to(clip.device), normalize=False)  # type: ignore[operator]
                for part in ids.split(chunk_size)
            ]
        )
    features = features if features.dtype == torch.float64 else features.float()
    return F.normalize(features, dim=-1) if normalise else features


def _check_lengths(tokenizer: Any, texts: Sequence[str], ids: Tensor) -> None:
    """open_clip's tokenizers cut long texts silently: with room for one more token, a cut text has one more."""
    padding = getattr(getattr(tokenizer, "tokenizer", tokenizer), "pad_token_id", 0) or 0
    longer = tokenizer(list(texts), context_length=ids.shape[1] + 1)
    cut = torch.nonzero((longer != padding).sum(dim=1) > (ids != padding).sum(dim=1))
    if len(cut):
        raise UserError(
            f"text {texts[int(cut[0])][:60]!r} needs more than the {ids.shape[1]} tokens that the text tower takes; "
            "shorten the name or the template"
        )
