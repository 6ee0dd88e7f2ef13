"""The embeddings of class names that features are generated from: CLIP's text features, or a matrix of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from prompt_core.classifier import TextClassifier
from prompt_core.errors import UserError
from prompt_core.files import resolve_path
from prompt_core.vocabulary import plain_name


def word_rows(names: Sequence[str], file: str, clip: Callable[[Sequence[str]], Tensor]) -> Tensor:
    """(C, W) rows of the names, each of the norm sqrt(W).

    The rows less their mean: CLIP's texts have most in common. The norm is that of a Gaussian code of the same width,
    so that the generator sees both alike.

    Args:
        file: ``NAME.npy`` with ``NAME.names.json``, or a classifier file: word2vec, fastText or whatever has a row for
            each name; empty for CLIP.
        clip: gives CLIP's features (C, W) of names.

    Raises:
        UserError: an absent or malformed file, or one without a row for a name.
    """
    rows = clip(names) if not file else _of_file(names, file)
    centred = rows - rows.mean(dim=0) if len(rows) > 2 else rows
    return F.normalize(centred.float(), dim=1) * rows.shape[1] ** 0.5


def matrix_of(file: str) -> TextClassifier:
    """The rows of a file with their names. Raises UserError for an absent or malformed one."""
    return TextClassifier.load(resolve_path(file))


def _of_file(names: Sequence[str], file: str) -> Tensor:
    matrix = matrix_of(file)
    place = {plain_name(name): row for row, name in reversed(list(enumerate(matrix.names)))}
    absent = next((name for name in names if plain_name(name) not in place), None)
    if absent is not None:
        raise UserError(
            f"MODEL.GENERATOR.EMBEDDINGS {file} has no row for the class {absent!r}; its names are in "
            "NAME.names.json beside it"
        )
    return matrix.weight[[place[plain_name(name)] for name in names]]
