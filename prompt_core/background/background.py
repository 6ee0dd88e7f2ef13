"""The background of a classifier: names that a photo may show instead of the user's words."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.background.hypernyms import imagenet21k_hypernyms
from prompt_core.background.kinds import Kinds
from prompt_core.background.relatives import AGAINST, SAME_TEXT, Comparison
from prompt_core.documents.schema import Finite, check
from prompt_core.errors import UserError
from prompt_core.files import read_safetensors, sha256_of_json, write_safetensors
from prompt_core.vocabulary import Vocabulary, plain_name, read_vocabulary

# Logit scales at which own shares are probabilities, where that is not the model's own: chosen on photos by
# ``tools/measure_own_share.py`` (docs/results/own_share.json).
CALIBRATED_SCALES: Mapping[str, float] = {"mini": 40.0}

PACKAGED = "backgrounds"  # folder of the package's assets
_KEPT = 2  # matrices kept in this process
_matrices: OrderedDict[str, Tensor] = OrderedDict()


class BackgroundNotes(msgspec.Struct):
    """What a classifier file says about a background."""

    names: list[str]
    logit_scale: Finite
    metadata: dict[str, Any] = {}
    kinds: list[str] = []
    kind_of: list[int] = []


@dataclass(frozen=True, eq=False)
class Background:
    """Names beside a classifier's own words.

    Attributes:
        weight: (B, E) float32, unit-norm rows.
        names: B names.
        logit_scale: at which own shares are taken.
        metadata: provenance: vocabulary and hash, negative words, number of relatives left out.
        kinds: names that count for a word because it is above them.
    """

    weight: Tensor
    names: Sequence[str]
    logit_scale: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kinds: Kinds | None = None

    def __post_init__(self) -> None:
        if self.weight.dim() != 2 or len(self.weight) != len(self.names):
            given = f"{tuple(self.weight.shape)}, {len(self.names)} names"
            raise UserError(f"a background (B, E) with B names is expected, given {given}")
        if not bool(torch.isfinite(self.weight).all()) or not 0 < self.logit_scale < float("inf"):
            raise UserError(f"a background needs finite features and a logit scale above 0, given {self.logit_scale}")
        rows = self.weight.detach().float().cpu()
        if bool(((rows.norm(dim=1) - 1).abs() > 1e-6).any()):  # what was saved comes back to the last bit
            rows = F.normalize(rows, dim=1)
        columns = rows.T.contiguous()  # one photo's products take half the time so
        object.__setattr__(self, "weight", columns.T)
        object.__setattr__(self, "names", list(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def encoded_by(self, encode: Callable[[Vocabulary], Tensor]) -> Background:
        """The same names with other features, such as those of a learned prompt: ``encode`` gives (n, E) unit-norm."""
        names, kinds = Vocabulary(self.names, source="background"), self.kinds
        if kinds is not None:
            kinds = Kinds(encode(Vocabulary(kinds.names, source="kinds")), kinds.names, kinds.word)
        return Background(encode(names), self.names, self.logit_scale, self.metadata, kinds)

    @property
    def notes(self) -> dict[str, Any]:
        """What a classifier file says about it, besides the features."""
        notes = {"names": list(self.names), "logit_scale": self.logit_scale, "metadata": dict(self.metadata)}
        if self.kinds is not None:
            notes |= {"kinds": list(self.kinds.names), "kind_of": self.kinds.word.tolist()}
        return notes

    @classmethod
    def from_notes(
        cls, weight: Tensor, notes: Any, path: Path, kinds: Tensor | None = None, words: int = 0
    ) -> Background:
        """The background of a classifier file of so many words. Raises UserError when the notes do not fit."""
        given: BackgroundNotes = check(notes, BackgroundNotes, path, "background")
        try:
            counted = None
            if kinds is not None:
                if not all(0 <= word < words for word in given.kind_of):
                    raise UserError(f"kinds of words 0 to {words - 1} are expected")
                counted = Kinds(kinds, given.kinds, torch.tensor(given.kind_of, dtype=torch.long))
            return cls(weight, given.names, given.logit_scale, given.metadata, counted)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def calibrated_scale(clip: str, own: float) -> float:
    """The logit scale of own shares for a CLIP by its name; ``own``, the model's, where none was chosen on photos."""
    return CALIBRATED_SCALES.get(clip, own)


def background_vocabulary(background: Vocabulary | Sequence[str] | str | None) -> Vocabulary:
    """What ``background=`` takes as a vocabulary: one, names, or what ``--vocabulary`` takes; None has no names.

    Raises:
        UserError: an unknown name, an absent or malformed file.
    """
    if isinstance(background, Vocabulary):
        return background
    if isinstance(background, str):
        return read_vocabulary(background)
    return Vocabulary(list(background or ()), source="the given names")


def background_of(
    words: Vocabulary,
    word_features: Tensor,
    names: Vocabulary,
    negatives: Sequence[str],
    encode: Callable[[Vocabulary], Tensor],
    logit_scale: float,
    cache_key: Any = None,
    cache: str | Path | None = None,
    same_text: float = SAME_TEXT,
) -> Background:
    """The background of some words: ``names`` without the words' relatives, and negative words; kinds beside it.

    Args:
        word_features: (N, E) unit-norm.
        names: the background vocabulary; may be empty.
        negatives: words that are in the background whatever they are related to.
        encode: features (n, E) of a vocabulary, by the CLIP and the prompt that made ``word_features``.
        cache_key: what, besides ``names``, determines the features of ``names``, as JSON.
        cache: a folder that keeps these features; without it they are kept in this process only.
        same_text: see :func:`prompt_core.background.relatives.relatives`.

    Raises:
        UserError: a negative word that is also one of the words.
    """
    own = {plain_name(name) for name in words.names}
    both = next((name for name in negatives if plain_name(name) in own), None)
    if both is not None:
        raise UserError(f"{both!r} is one of the words and a negative word; give it as one of them")
    refused = Vocabulary(list(dict.fromkeys(negatives)), source="negative words").check()
    features = word_features.new_empty(0, word_features.shape[1])
    if len(names):
        key = sha256_of_json({"format": 1, "names": names.sha256, "of": cache_key})
        features = cached_matrix(key, lambda: encode(names), cache)
    comparison = Comparison.of(words, names, word_features, features, imagenet21k_hypernyms, same_text)
    out, word = comparison.relatives(), comparison.kinds(refused)
    out &= word != AGAINST
    taken = {plain_name(name) for name in refused.names}
    kept, counted = _kept(names, out, taken), _kept(names, word < 0, taken)
    kinds = Kinds(features[counted], [names.names[row] for row in counted], torch.from_numpy(word[counted]))
    rows = [features[kept], *([encode(refused)] if len(refused) else [])]
    metadata = {
        "source": names.source,
        "vocabulary_sha256": names.sha256,
        "relatives_left_out": int((out & (word < 0)).sum()),
        "kinds": len(kinds),
        "same_text": same_text,
        "negatives": list(refused.names),
    }
    listed = [names.names[row] for row in kept] + list(refused.names)
    return Background(torch.cat(rows), listed, logit_scale, metadata, kinds if len(kinds) else None)


def _kept(names: Vocabulary, out: np.ndarray, taken: set[str]) -> list[int]:
    """Rows that stay: of names that are the same text one, so that none counts twice, and none that is ``taken``."""
    seen, kept = set(taken), []
    for row, name in enumerate(names.names):
        plain = plain_name(name)
        if not out[row] and plain not in seen:
            seen.add(plain)
            kept.append(row)
    return kept


def cached_matrix(key: str, make: Callable[[], Tensor], folder: str | Path | None = None) -> Tensor:
    """A class matrix (B, E) float32: from this process, ``folder/background_KEY.safetensors``, the package, or made.

    The package has that of ImageNet-21K's names by ``mini`` and "a photo of a {}.", in half precision. A damaged file
    of ``folder`` is made anew.

    Raises:
        UserError: when the folder cannot be written.
    """
    name = f"background_{key[:32]}.safetensors"
    path = Path(folder) / name if folder is not None else None
    matrix = _matrices.get(key)
    if matrix is None and path is not None and path.is_file():
        matrix = _read_matrix(path, key)
        if matrix is None:
            path.unlink(missing_ok=True)
    packaged = Path(str(resources.files("prompt_core") / "assets" / PACKAGED / name))
    if matrix is None and packaged.is_file():
        matrix = _read_matrix(packaged, key)
    if matrix is None:
        matrix = make().detach().float().cpu().contiguous()
    if path is not None and not path.is_file():
        write_safetensors(path, {"weight": matrix}, {"key": key})
    _matrices[key] = matrix
    _matrices.move_to_end(key)
    while len(_matrices) > _KEPT:
        _matrices.popitem(last=False)
    return matrix


def _read_matrix(path: Path, key: str) -> Tensor | None:
    try:
        tensors, notes = read_safetensors(path)
    except UserError:
        tensors, notes = {}, {}
    if notes.get("key") == key and "weight" in tensors:
        return tensors["weight"].float()
    return None
