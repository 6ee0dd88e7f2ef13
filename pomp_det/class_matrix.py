"""The classifier that a configuration asks for: from a file, or from class names and a prompt."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.classifier import TextClassifier, load_matrix
from prompt_core.errors import UserError, nearest
from prompt_core.fetch.advice import where_from
from prompt_core.files import resolve_path
from prompt_core.prompt import SoftPrompt
from prompt_core.vocabulary import Vocabulary, plain_name, read_vocabulary

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

RANDOM = "rand"  # as the published code names it
# Template and CLIP of a matrix, by a part of its file's name; POMP's prompt cannot be told from it.
TEMPLATE = "a {}."
MADE_WITH = {
    "_clip_a+cname": ("a {}", "ViT-B-32-quickgelu"),
    "_clip_vitb16_a+cname": (TEMPLATE, "ViT-B-16-quickgelu"),
    "_clip_pomp+cname": (TEMPLATE, "ViT-B-16-quickgelu"),
}
# Detic's and POMP's matrices come without names; their rows are in the order of category ids.
PUBLISHED_FILES = {"lvis_v1_": "lvis", "coco_": "coco", "o365_": "objects365"}


class ClassMatrix(TextClassifier):
    """A classifier that keeps its unnormalised rows in addition to the unit-norm ones.

    A detector compares by these rows. Published matrices are half floats, whose norm is 1 to three digits, and with
    ``NORM_WEIGHT`` False the norm counts; a row that is normalised twice differs from the published detector's in its
    last bits.

    Attributes:
        rows: (C, E) float32, as they were given.
    """

    def __init__(self, rows: Tensor, names: Sequence[str], source: str, metadata: Mapping[str, Any] | None = None):
        """Raises UserError when a number is not finite."""
        if not bool(torch.isfinite(rows).all()):
            raise UserError(f"class matrix from {source} holds numbers that are not finite")
        self.rows, self.weight = rows, F.normalize(rows, dim=-1)
        self.names, self.metadata = list(names), {**(metadata or {}), "source": source}


def rows_of(classifier: TextClassifier) -> Tensor:
    """(C, E) rows as a detector takes them; it normalises them itself."""
    return classifier.rows if isinstance(classifier, ClassMatrix) else classifier.weight


def source_of(classifier: TextClassifier) -> str:
    """Where a classifier comes from, for messages."""
    return str(classifier.metadata.get("source") or classifier.metadata.get("vocabulary") or "a classifier")


def read_class_matrix(path: str | Path) -> TextClassifier:
    """A ``.npy`` matrix (C, E), or a classifier file (``.safetensors``).

    A ``.npy`` takes its names from ``NAME.names.json`` next to it. Without that, a matrix that is called like a
    published one (``lvis_v1_*``, ``coco_*``, ``o365_*``) and has as many rows takes those of its vocabulary.

    Raises:
        UserError: when the file is absent, truncated, or of another shape.
    """
    file = resolve_path(path)
    if not file.is_file():
        raise UserError(
            f"class matrix {file} does not exist; set MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH to a .npy matrix or a "
            f"classifier file (tools/build_classifier.py writes both), or to {RANDOM!r} for a random one"
            f"{where_from(path)}"
        )
    if file.suffix != ".npy":
        classifier = TextClassifier.load(file)
        classifier.metadata["source"] = str(path)
        return classifier
    rows, names, metadata = load_matrix(file)
    if len(names) != len(rows):
        raise UserError(f"class matrix {file} has {len(rows)} rows, its .names.json {len(names)} names")
    if not file.with_suffix(".names.json").is_file():
        names = _published_names(file.name, len(rows)) or names
    return ClassMatrix(rows, names, str(path), metadata)


def _published_names(file: str, count: int) -> list[str]:
    for prefix, vocabulary in PUBLISHED_FILES.items():
        if file.startswith(prefix):
            names = Vocabulary.load(vocabulary).names
            return list(names) if len(names) == count else []
    return []


def configured_classifier(cfg: CfgNode) -> TextClassifier | None:
    """The classes that a configuration asks for, by ``MODEL.VOCABULARY`` or ``ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH``.

    Returns:
        None for a random matrix, for an absent one that a checkpoint's replaces (``CLASSIFIER_FROM_CHECKPOINT``), or
        without a zero-shot classifier.

    Raises:
        UserError: a file that is missing or damaged, or class names that cannot be turned into features.
    """
    node = cfg.MODEL.ROI_BOX_HEAD
    if not node.USE_ZEROSHOT_CLS:
        if cfg.MODEL.VOCABULARY or cfg.MODEL.PROMPT:
            raise UserError("MODEL.VOCABULARY and MODEL.PROMPT need MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS True")
        return None
    if cfg.MODEL.VOCABULARY:
        return classifier_of_names(cfg, cfg.MODEL.VOCABULARY, cfg.MODEL.PROMPT)
    if cfg.MODEL.PROMPT:
        raise UserError("MODEL.PROMPT is set without MODEL.VOCABULARY; name the classes to encode")
    path = node.ZEROSHOT_WEIGHT_PATH
    replaced = node.CLASSIFIER_FROM_CHECKPOINT and not resolve_path(path).is_file()
    return None if path == RANDOM or replaced else read_class_matrix(path)


def classifier_of_names(cfg: CfgNode, words: str, prompt: str = "") -> TextClassifier:
    """The classifier of other words, for the detector of a configuration.

    Args:
        words: a published vocabulary's name, a file of names or a classifier file, or names joined by commas.
        prompt: a prompt file, or templates with ``{}`` separated by ``|``; without it, names are looked up in the
            detector's own class matrix. Where that is absent they are encoded with a template and its CLIP, if its
            name, which a published one has, or ``MODEL.CLIP.NAME`` says which CLIP that is.

    Raises:
        UserError: names that cannot be found or encoded; a class matrix of another CLIP than the prompt's.
    """
    path = cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH
    if words.endswith((".npy", ".safetensors")):
        classifier = read_class_matrix(words)
        _check_same_clip(prompt, classifier)
        return classifier
    vocabulary = read_vocabulary(words)
    there = resolve_path(path).is_file()
    template, clip = next((made for part, made in MADE_WITH.items() if part in Path(path).name), (TEMPLATE, ""))
    if prompt and there:
        _check_same_clip(prompt, read_class_matrix(path))
    if prompt and cfg.MODEL.VOCABULARY:
        clip = ""  # the detector learned with words of its own, not with the matrix
    if prompt:
        return _encode(cfg, vocabulary, prompt, clip)
    if there or path == RANDOM or not (clip or cfg.MODEL.CLIP.NAME):
        return _rows_by_name(path, vocabulary.names)
    logger.warning(
        "class matrix %s is absent: names are encoded as %r, by CLIP %s; if the detector learned with a prompt, give "
        "it as --prompt or MODEL.PROMPT", path, template, cfg.MODEL.CLIP.NAME or clip,
    )  # fmt: skip
    return _encode(cfg, vocabulary, template, clip)


def stage_matrix(cfg: CfgNode) -> tuple[Tensor, str]:
    """The matrix (NUM_CLASSES, E) of one stage, and its source.

    Raises:
        UserError: when the configured matrix has another number of classes.
    """
    count = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    classifier = configured_classifier(cfg)
    if classifier is None:
        return torch.randn(count, cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM), "random"
    check_class_count(classifier, count)
    return rows_of(classifier), source_of(classifier)


def check_class_count(classifier: TextClassifier, count: int) -> None:
    """Raises UserError unless the classifier has ``count`` classes."""
    if len(classifier) != count:
        raise UserError(
            f"class matrix {source_of(classifier)} has {len(classifier)} classes, MODEL.ROI_HEADS.NUM_CLASSES is "
            f"{count}; set both alike, or name the classes with MODEL.VOCABULARY"
        )


def _encode(cfg: CfgNode, vocabulary: Vocabulary, prompt: str, clip: str) -> TextClassifier:
    """Class features of a prompt file, or of templates separated by ``|``.

    Args:
        clip: for templates, where ``MODEL.CLIP.NAME`` is empty.
    """
    from prompt_core.clip import load_clip

    subject: SoftPrompt | Sequence[str]
    learned_with = None
    if "{}" in prompt:
        subject = prompt.split("|")
    else:
        subject = SoftPrompt.load(resolve_path(prompt))
        learned_with = subject.metadata.get("clip")
    name = cfg.MODEL.CLIP.NAME or learned_with or clip or "ViT-B-16-quickgelu"
    if learned_with and name != learned_with:
        raise UserError(f"prompt {prompt} was learned with CLIP {learned_with}; MODEL.CLIP.NAME is {name!r}")
    pretrained = cfg.MODEL.CLIP.PRETRAINED or (None if name == "mini" else "openai")
    classifier = TextClassifier.build(load_clip(name, pretrained, cfg.MODEL.DEVICE), vocabulary, subject)
    classifier.metadata["source"] = f"{len(vocabulary)} classes of {vocabulary.source} with {prompt}"
    return classifier


def _check_same_clip(prompt: str, classifier: TextClassifier) -> None:
    """Features of two CLIPs may be of one width and still have nothing in common."""
    made_with = classifier.metadata.get("clip")
    if not prompt or "{}" in prompt or made_with is None:
        return
    learned_with = SoftPrompt.load(resolve_path(prompt)).metadata.get("clip")
    if learned_with and learned_with != made_with:
        raise UserError(
            f"class matrix {source_of(classifier)} was made with CLIP {made_with}, MODEL.PROMPT {prompt} was "
            f"learned with {learned_with}; build the matrix with the prompt's CLIP (tools/build_classifier.py --prompt)"
        )


def _rows_by_name(path: str, names: Sequence[str]) -> ClassMatrix:
    """Rows of a classifier file by the names of its classes; case and underscores do not matter."""
    hint = "; set MODEL.PROMPT to a prompt file, or to a template such as 'a {}.', to encode any name"
    if path == RANDOM:
        raise UserError("MODEL.VOCABULARY names classes, and the class matrix is random" + hint)
    classifier = read_class_matrix(path)
    rows = {plain_name(name): row for row, name in enumerate(classifier.names)}
    for name in names:
        if plain_name(name) not in rows:
            raise UserError(f"MODEL.VOCABULARY: {path} has no class {name!r}{nearest(name, classifier.names)}{hint}")
    chosen = [rows[plain_name(name)] for name in names]
    source = f"{len(names)} classes of {source_of(classifier)}"
    return ClassMatrix(rows_of(classifier)[chosen], names, source, classifier.metadata)
