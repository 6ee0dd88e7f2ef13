"""The class matrix that a configuration asks for: from a file, or from class names and a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from prompt_core.errors import UserError, nearest
from prompt_core.files import resolve_path
from prompt_core.vocabulary import plain_name, read_vocabulary

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from prompt_core.prompt import SoftPrompt
    from prompt_core.vocabulary import Vocabulary

RANDOM = "rand"  # as the published code names it
# Detic's and POMP's matrices come without names; their rows are in the order of category ids.
PUBLISHED_FILES = {"lvis_v1_": "lvis", "coco_": "coco", "o365_": "objects365"}


class ClassMatrix(NamedTuple):
    """Class features in rows.

    Attributes:
        weight: (C, E) of any norm, as the file holds them.
        names: C class names; ``class 0`` … where the file has none.
        source: where they come from, for messages.
        clip: the CLIP that made them, where the file says so.
    """

    weight: Tensor
    names: list[str]
    source: str
    clip: str | None = None


def read_class_matrix(path: str | Path) -> ClassMatrix:
    """A ``.npy`` matrix (C, E), or a classifier file (``.safetensors``).

    A ``.npy`` takes its names from ``NAME.names.json`` beside it. Without that, a matrix that is called like a
    published one (``lvis_v1_*``, ``coco_*``, ``o365_*``) and has as many rows takes those of its vocabulary.

    Raises:
        UserError: when the file is absent, truncated, or of another shape.
    """
    from prompt_core.classifier import TextClassifier, _load_matrix

    file = resolve_path(path)
    if not file.is_file():
        raise UserError(
            f"class matrix {file} does not exist; set MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH to a .npy matrix or a "
            f"classifier file (tools/build_classifier.py writes both), or to {RANDOM!r} for a random one"
        )
    if file.suffix != ".npy":
        classifier = TextClassifier.load(file)
        return ClassMatrix(classifier.weight, classifier.names, str(path), classifier.metadata.get("clip"))
    weight, names, metadata = _load_matrix(file)
    if not bool(torch.isfinite(weight).all()):
        raise UserError(f"class matrix {file} holds numbers that are not finite")
    if len(names) != len(weight):
        raise UserError(f"class matrix {file} has {len(weight)} rows, its .names.json {len(names)} names")
    if not file.with_suffix(".names.json").is_file():
        names = _published_names(file.name, len(weight)) or names
    return ClassMatrix(weight, names, str(path), metadata.get("clip"))


def _published_names(file: str, count: int) -> list[str]:
    from prompt_core.vocabulary import Vocabulary

    for prefix, vocabulary in PUBLISHED_FILES.items():
        if file.startswith(prefix):
            names = Vocabulary.load(vocabulary).names
            return list(names) if len(names) == count else []
    return []


def configured_matrix(cfg: CfgNode) -> ClassMatrix | None:
    """The classes that the configuration asks for; None for a random matrix, or without a zero-shot classifier.

    Raises:
        UserError: a file that is missing or damaged, or class names that cannot be turned into features.
    """
    node = cfg.MODEL.ROI_BOX_HEAD
    if not node.USE_ZEROSHOT_CLS:
        if cfg.MODEL.VOCABULARY or cfg.MODEL.PROMPT:
            raise UserError("MODEL.VOCABULARY and MODEL.PROMPT need MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS True")
        return None
    if not cfg.MODEL.VOCABULARY:
        if cfg.MODEL.PROMPT:
            raise UserError("MODEL.PROMPT is set without MODEL.VOCABULARY; name the classes to encode")
        return None if node.ZEROSHOT_WEIGHT_PATH == RANDOM else read_class_matrix(node.ZEROSHOT_WEIGHT_PATH)
    if cfg.MODEL.VOCABULARY.endswith((".npy", ".safetensors")):
        matrix = read_class_matrix(cfg.MODEL.VOCABULARY)
        _check_same_clip(cfg, matrix)
        return matrix
    vocabulary = read_vocabulary(cfg.MODEL.VOCABULARY)
    if cfg.MODEL.PROMPT:
        trained_with = resolve_path(node.ZEROSHOT_WEIGHT_PATH)
        if trained_with.is_file():  # the matrix that the detector learned with
            _check_same_clip(cfg, read_class_matrix(node.ZEROSHOT_WEIGHT_PATH))
        return _encode(cfg, vocabulary)
    return _rows_by_name(node.ZEROSHOT_WEIGHT_PATH, vocabulary.names)


def stage_matrix(cfg: CfgNode) -> tuple[Tensor, str]:
    """The matrix (NUM_CLASSES, E) of one stage, and its source.

    Raises:
        UserError: when the configured matrix has another number of classes.
    """
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    matrix = configured_matrix(cfg)
    if matrix is None:
        return torch.randn(count, cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM), "random"
    check_class_count(matrix, count)
    return matrix.weight, matrix.source


def check_class_count(matrix: ClassMatrix, count: int) -> None:
    """Raises UserError unless the matrix has ``count`` classes."""
    if len(matrix.weight) != count:
        raise UserError(
            f"class matrix {matrix.source} has {len(matrix.weight)} classes, MODEL.ROI_HEADS.NUM_CLASSES is {count}; "
            "set both alike, or name the classes with MODEL.VOCABULARY"
        )


def _encode(cfg: CfgNode, vocabulary: Vocabulary) -> ClassMatrix:
    """Class features of a prompt file, or of templates separated by ``|``."""
    from prompt_core.classifier import TextClassifier
    from prompt_core.clip import load_clip
    from prompt_core.prompt import SoftPrompt

    subject: SoftPrompt | Sequence[str]
    learned_with = None
    if "{}" in cfg.MODEL.PROMPT:
        subject = cfg.MODEL.PROMPT.split("|")
    else:
        subject = SoftPrompt.load(resolve_path(cfg.MODEL.PROMPT))
        learned_with = subject.metadata.get("clip")
    name = cfg.MODEL.CLIP.NAME or learned_with or "ViT-B-16-quickgelu"
    if learned_with and name != learned_with:
        raise UserError(f"prompt {cfg.MODEL.PROMPT} was learned with CLIP {learned_with}; MODEL.CLIP.NAME is {name!r}")
    pretrained = cfg.MODEL.CLIP.PRETRAINED or (None if name == "mini" else "openai")
    classifier = TextClassifier.build(load_clip(name, pretrained, cfg.MODEL.DEVICE), vocabulary, subject)
    source = f"{len(vocabulary)} classes of {vocabulary.source} behind {cfg.MODEL.PROMPT}"
    return ClassMatrix(classifier.weight, classifier.names, source)


def _check_same_clip(cfg: CfgNode, matrix: ClassMatrix) -> None:
    """Features of two CLIPs may be of one width and still have nothing in common."""
    if not cfg.MODEL.PROMPT or "{}" in cfg.MODEL.PROMPT or matrix.clip is None:
        return
    from prompt_core.prompt import SoftPrompt

    learned_with = SoftPrompt.load(resolve_path(cfg.MODEL.PROMPT)).metadata.get("clip")
    if learned_with and learned_with != matrix.clip:
        raise UserError(
            f"class matrix {matrix.source} was made with CLIP {matrix.clip}, MODEL.PROMPT {cfg.MODEL.PROMPT} was "
            f"learned with {learned_with}; build the matrix with the prompt's CLIP (tools/build_classifier.py --prompt)"
        )


def _rows_by_name(path: str, names: Sequence[str]) -> ClassMatrix:
    """Rows of a classifier file by the names of its classes; case and underscores do not matter."""
    hint = "; set MODEL.PROMPT to a prompt file, or to a template such as 'a {}.', to encode any name"
    if path == RANDOM:
        raise UserError("MODEL.VOCABULARY names classes, and the class matrix is random" + hint)
    matrix = read_class_matrix(path)
    rows = {plain_name(name): row for row, name in enumerate(matrix.names)}
    for name in names:
        if plain_name(name) not in rows:
            raise UserError(f"MODEL.VOCABULARY: {path} has no class {name!r}{nearest(name, matrix.names)}{hint}")
    chosen = [rows[plain_name(name)] for name in names]
    return ClassMatrix(matrix.weight[chosen], list(names), f"{len(names)} classes of {matrix.source}")
