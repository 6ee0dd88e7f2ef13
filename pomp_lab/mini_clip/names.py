"""The names that the text tower learns, and the target direction of each in the joint space.

Classes of the image classifier have their own direction. All other names get one predicted from the similarity of
their teacher embeddings to those of the classes, by kernel ridge regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.mini_clip.architecture import SOT, bpe_tokenizer
from pomp_lab.mini_clip.synsets import Synsets
from pomp_lab.mini_clip.visual_space import CONSTANT, VisualSpace

KERNEL_WIDTH, RIDGE = 5.0, 0.1
# First names of known classes, their synonyms, names of other synsets, plain words.
SAMPLING_SHARES = (0.25, 0.10, 0.57, 0.08)


def kernel_ridge(train: Tensor, values: Tensor, queries: Sequence[Tensor]) -> list[Tensor]:
    """Predict unit-norm targets with the kernel exp(KERNEL_WIDTH (cos - 1)).

    Args:
        train: (N, D) unit-norm inputs.
        values: (N, R) their targets.
        queries: tensors (M, D) of unit-norm inputs.

    Returns:
        one (M, R) for each of ``queries``.
    """
    gram = torch.exp(KERNEL_WIDTH * (train @ train.T - 1))
    centre = values.mean(0)
    dual = torch.linalg.solve(gram + RIDGE * torch.eye(len(train)), values - centre)
    return [F.normalize(torch.exp(KERNEL_WIDTH * (query @ train.T - 1)) @ dual + centre, dim=1) for query in queries]


@dataclass(frozen=True)
class Corpus:
    """The training data of the text tower.

    Attributes:
        names: N names.
        targets: (N, R) unit-norm directions.
        bias: (N,) class biases.
        weights: (N,) sampling weights.
    """

    names: list[str]
    targets: Tensor
    bias: Tensor
    weights: Tensor


def vocabulary_words() -> list[str]:
    """Text of every token of CLIP's vocabulary, in the order of the ids."""
    decoder = bpe_tokenizer().decoder
    return [decoder[index].removesuffix("</w>") for index in range(SOT)]


def whole_words(words: Sequence[str]) -> list[int]:
    """Ids of the tokens that are complete words of three letters or more."""
    decoder = bpe_tokenizer().decoder
    ends = (decoder[index].endswith("</w>") for index in range(SOT))
    return [index for index, (word, end) in enumerate(zip(words, ends, strict=True))
            if end and len(word) > 2 and word.isalpha()]  # fmt: skip


def make_corpus(
    synsets: Synsets,
    space: VisualSpace,
    known: Tensor,
    teacher: Tensor,
    words: Sequence[str],
    word_embeddings: Tensor,
) -> Corpus:
    """All lemmas of all synsets and the plain ``words``, each with one target.

    A name of several synsets gets their normalised sum; where any of them has a classifier row, only such synsets.

    Args:
        known: rows of ImageNet-1K whose classifier rows may be used.
        teacher: (N, 384) embeddings of the synsets.
        word_embeddings: (M, 384) embeddings of ``words``.
    """
    known_rows = torch.tensor(synsets.in_1k)[known]
    centre = teacher.mean(0)
    teacher, word_embeddings = (F.normalize(part - centre, dim=1) for part in (teacher, word_embeddings))
    predicted, word_targets = kernel_ridge(teacher[known_rows], space.targets[known], [teacher, word_embeddings])
    predicted[known_rows] = space.targets[known]
    synset_bias = torch.zeros(len(synsets.ids))
    synset_bias[known_rows] = space.bias[known]
    exact = set(known_rows.tolist())
    first = {synsets.lemmas[row][0] for row in exact}
    owners: dict[str, list[int]] = {}
    for row, lemmas in enumerate(synsets.lemmas):
        for lemma in lemmas:
            owners.setdefault(lemma, []).append(row)
    names, targets, biases, kinds = [], [], [], []
    for name, rows in owners.items():
        chosen = [row for row in rows if row in exact] or rows
        names.append(name)
        targets.append(F.normalize(predicted[chosen].sum(0), dim=0))
        biases.append(synset_bias[chosen].mean())
        kinds.append(0 if name in first else 1 if chosen[0] in exact else 2)
    for word, target in zip(words, word_targets, strict=True):
        if word not in owners:
            names.append(word)
            targets.append(target)
            biases.append(torch.tensor(0.0))
            kinds.append(3)
    kind = torch.tensor(kinds)
    weights = torch.tensor(SAMPLING_SHARES)[kind] / torch.bincount(kind, minlength=len(SAMPLING_SHARES))[kind]
    return Corpus(names, torch.stack(targets), torch.stack(biases), weights)


def text_bias(targets: Tensor, bias: Tensor, shifts: Tensor, domain: Tensor) -> Tensor:
    """Last text coordinate (G, N), before normalisation, of targets (N, R) or (G, N, R) in domains (G, J).

    In a domain the mean feature of photos moves by m = shifts · strength. The last coordinate, constant for images,
    holds the class bias that cancels this shift: -target · m.
    """
    return (bias - ((targets @ shifts) * domain[:, None]).sum(-1)) / CONSTANT


def text_targets(targets: Tensor, bias: Tensor, shifts: Tensor, domain: Tensor) -> Tensor:
    """Unit-norm text features (G, N, E) wanted for names with targets (G, N, R) in domains (G, J)."""
    last = text_bias(targets, bias, shifts, domain)
    return F.normalize(torch.cat([targets, last[..., None]], dim=-1), dim=-1)
