"""The sentence encoder that teaches which names have similar meanings: all-MiniLM-L6-v2, without its own packages.

Its embeddings are the mean over the tokens of a BERT of six layers (Sentence-BERT, arXiv 1908.10084; MiniLM, arXiv
2002.10957). It is used only at build time; nothing of it is in the built model.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.files import atomic_path

LAYERS, HEADS, WIDTH = 6, 12, 384
MAX_TOKENS, BATCH = 48, 256


class WordPiece:
    """BERT's uncased tokenizer (arXiv 1810.04805): words and single signs, each split greedily into known pieces."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.ids = {piece: index for index, piece in enumerate(pieces)}

    def __call__(self, text: str, limit: int = MAX_TOKENS) -> list[int]:
        """Token ids of a text, at most ``limit`` with ``[CLS]`` and ``[SEP]``."""
        decomposed = unicodedata.normalize("NFD", text.lower())
        plain = "".join(sign for sign in decomposed if unicodedata.category(sign) != "Mn")
        ids = [index for word in re.findall(r"[^\W_]+|[^\w\s]|_", plain) for index in self._split(word)]
        return [self.ids["[CLS]"], *ids[: limit - 2], self.ids["[SEP]"]]

    def _split(self, word: str) -> list[int]:
        ids, start = [], 0
        while start < len(word):
            end = len(word)
            while end > start and ("##" * (start > 0) + word[start:end]) not in self.ids:
                end -= 1
            if end == start:
                return [self.ids["[UNK]"]]
            ids.append(self.ids["##" * (start > 0) + word[start:end]])
            start = end
        return ids


def minilm(tokens: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Forward pass: ids (B, L), padded with 0, to unit-norm mean-pooled embeddings (B, 384)."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    mask = tokens != 0
    x = weights["embeddings.word_embeddings.weight"][tokens]  # (B, L, 384)
    x = x + weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            linear(x, f"{name}.attention.self.{part}").unflatten(-1, (HEADS, -1)).transpose(1, 2)  # (B, 12, L, 32)
            for part in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        mixed = linear(mixed.transpose(1, 2).flatten(2), f"{name}.attention.output.dense")  # (B, L, 384)
        x = norm(x + mixed, f"{name}.attention.output.LayerNorm")
        hidden = F.gelu(linear(x, f"{name}.intermediate.dense"))
        x = norm(x + linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return F.normalize((x * mask[..., None]).sum(1), dim=-1)


@torch.inference_mode()
def teacher_embeddings(texts: Sequence[str], files: dict[str, Path], cache: Path) -> Tensor:
    """Unit-norm embeddings (N, 384) of texts; kept in ``cache`` under a name made from the texts.

    Args:
        files: paths of ``model.safetensors`` and ``vocab.txt``.
    """
    from safetensors.torch import load_file, save_file

    key = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    path = cache / f"teacher_{key}.safetensors"
    if path.is_file():
        return load_file(path)["embeddings"]
    weights = load_file(files["model.safetensors"])
    tokenize = WordPiece(files["vocab.txt"].read_text(encoding="utf-8").splitlines())
    ids = [tokenize(text) for text in texts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # grouped by length: hardly any padding
    result = torch.empty(len(ids), WIDTH)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        longest = max(len(ids[i]) for i in rows)
        result[rows] = minilm(torch.tensor([ids[i] + [0] * (longest - len(ids[i])) for i in rows]), weights)
    with atomic_path(path) as temporary:
        save_file({"embeddings": result}, temporary)
    return result
