"""The classifier that a configuration asks for: from a file, or from class names and a prompt."""

from __future__ import annotations

import functools
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
from prompt_core.safe_load import load_restricted
from prompt_core.towers.origin import Origin, recognise, stated_origin
from prompt_core.visible import shortened
from prompt_core.vocabulary import Vocabulary, plain_name, read_vocabulary

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from prompt_core.clip import Clip

logger = logging.getLogger(__name__)

RANDOM = "rand"  # as the published code names it
DEFAULT_CLIP = "ViT-B-16-quickgelu"  # POMP's
# Template and CLIP of a matrix, by a part of its file's name; POMP's prompt cannot be told from it.
TEMPLATE = "a {}."
MADE_WITH = {
    "_clip_a+cname": ("a {}", "ViT-B-32-quickgelu"),
    "_clip_vitb16_a+cname": (TEMPLATE, "ViT-B-16-quickgelu"),
    "_clip_pomp+cname": (TEMPLATE, "ViT-B-16-quickgelu"),
}
# Detic's and POMP's matrices come without names; their rows are in the order of category ids.
PUBLISHED_FILES = {"lvis_v1_": "lvis", "coco_": "coco", "o365_": "objects365", "oid_": "openimages"}


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
    """A ``.npy`` matrix (C, E), a classifier file (``.safetensors``), or a bare tensor (``.pth``, ``.pt``).

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
    if file.suffix in (".pth", ".pt"):
        return _bare_tensor(file, str(path))
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


def _bare_tensor(file: Path, source: str) -> ClassMatrix:
    """DetPro's and PromptDet's class features, (C, E) or (1, C, E) without names (dyabel/detpro, prompt/trainer.py)."""
    tensor = load_restricted(file)
    if isinstance(tensor, Tensor) and tensor.dim() == 3 and len(tensor) == 1:
        tensor = tensor[0]
    if not isinstance(tensor, Tensor) or tensor.dim() != 2 or not tensor.is_floating_point():
        raise UserError(
            f"{file}: a class matrix as a bare tensor (C, E) is expected of a .pth, a .npy or .safetensors else"
        )
    return ClassMatrix(tensor.detach().float(), [f"class {row}" for row in range(len(tensor))], source)


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


def classifier_of_names(
    cfg: CfgNode,
    words: str | Vocabulary,
    prompt: str = "",
    learned_with: Origin | None = None,
    negatives: Sequence[str] = (),
) -> TextClassifier:
    """The classifier of other words, for the detector of a configuration.

    Args:
        words: a published vocabulary's name, a file of names or a classifier file, or names joined by commas; or a
            vocabulary.
        prompt: a prompt file, or templates with ``{}`` separated by ``|``; without it, names are looked up in the
            detector's own class matrix. Where that is absent they are encoded with a template and its CLIP, if its
            name, which a published one has, or ``MODEL.CLIP.NAME`` says which CLIP that is.
        learned_with: the CLIP of the class matrix in the detector's weights, where it is known; otherwise that of the
            configured matrix is taken.
        negatives: further words of the background, which names that are encoded can have.

    Raises:
        UserError: names that cannot be found or encoded; features of another CLIP than the detector learned with.
    """
    path = cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH
    if isinstance(words, str) and words.endswith((".npy", ".safetensors")):
        _refuse(negatives, words)
        classifier = read_class_matrix(words)
        given = origin_of(classifier)
        if prompt and "{}" not in prompt:
            of_prompt = stated_origin(SoftPrompt.load(resolve_path(prompt)).metadata)
            check_same_clip(given, of_prompt, f"class matrix {words}", f"MODEL.PROMPT {prompt}")
        check_same_clip(learned_with, given, "the matrix in the detector's weights", f"class matrix {words}")
        return classifier
    vocabulary = words if isinstance(words, Vocabulary) else read_vocabulary(words)
    there = resolve_path(path).is_file()
    own, place = learned_with, "the matrix in the detector's weights"
    if own is None and there:
        own, place = origin_of(read_class_matrix(path)), f"class matrix {path}"
        if own is not None and own.by_content and cfg.MODEL.VOCABULARY:
            own = None  # the detector learned with words of its own, and this is a published configuration's default
    template, clip = next((made for part, made in MADE_WITH.items() if part in Path(path).name), (TEMPLATE, ""))
    if own is not None:
        clip = clip if "." in own.clip else own.clip  # a file would need its weights
    elif prompt and cfg.MODEL.VOCABULARY:
        clip = ""
    if prompt:
        return _encode(cfg, vocabulary, prompt, clip, own, place, negatives)
    if there or path == RANDOM or not (clip or cfg.MODEL.CLIP.NAME):
        _refuse(negatives, path)
        return _rows_by_name(path, vocabulary.names)
    logger.warning(
        "class matrix %s is absent: names are encoded as %r, by CLIP %s; if the detector learned with a prompt, give "
        "it as --prompt or MODEL.PROMPT", path, template, cfg.MODEL.CLIP.NAME or clip,
    )  # fmt: skip
    return _encode(cfg, vocabulary, template, clip, own, place, negatives)


def origin_of(classifier: TextClassifier) -> Origin | None:
    """The CLIP of a classifier's features, as far as it is known."""
    return stated_origin(classifier.metadata) or recognise(rows_of(classifier))


def check_same_clip(own: Origin | None, other: Origin | None, place: str, other_place: str) -> None:
    """Features of two CLIPs may be of one width and still have nothing in common.

    Args:
        own: of what the detector learned with, at ``place``; None where it is not known.
        other: of what it is given, at ``other_place``.

    Raises:
        UserError: when both are known and differ.
    """
    if own is not None and other is not None and own.differs_from(other):
        raise UserError(
            f"{place} was made with {own}, {other_place} with {other}: their features have nothing in common; encode "
            f"names with {own.clip} (MODEL.CLIP.NAME, tools/build_classifier.py --clip), a prompt of it or a template, "
            f"or take a detector that learned with {other.clip}"
        )


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


def check_background(cfg: CfgNode, classifier: TextClassifier | None) -> None:
    """Warn where a background is configured, and the classes came without its features.

    Raises:
        UserError: where classes are swapped for others, which it is not for.
    """
    background = cfg.MODEL.ROI_BOX_HEAD.BACKGROUND
    if background and (cfg.MODEL.RESET_CLS_TRAIN or cfg.MODEL.RESET_CLS_TESTS):
        raise UserError(
            f"MODEL.ROI_BOX_HEAD.BACKGROUND is {background!r}, and is for the configured words; RESET_CLS_TRAIN and "
            "RESET_CLS_TESTS take other classes: set them to False, or leave the background out"
        )
    if background and (classifier is None or classifier.background is None):
        logger.warning(
            "%s has no background, so that MODEL.ROI_BOX_HEAD.BACKGROUND %s has no effect: set MODEL.VOCABULARY and "
            "MODEL.PROMPT to encode it too, or take a file of tools/build_classifier.py --background",
            source_of(classifier) if classifier is not None else "a random class matrix", background,
        )  # fmt: skip


def _encode(
    cfg: CfgNode,
    vocabulary: Vocabulary,
    prompt: str,
    clip: str,
    own: Origin | None,
    place: str,
    negatives: Sequence[str] = (),
) -> TextClassifier:
    """Class features of a prompt file, or of templates separated by ``|``.

    Args:
        clip: for templates, where ``MODEL.CLIP.NAME`` is empty.
        own: the CLIP that the detector learned with, at ``place``.
    """
    from prompt_core.clip import load_clip

    subject: SoftPrompt | Sequence[str]
    learned_with = None
    if "{}" in prompt:
        subject, name = prompt.split("|"), cfg.MODEL.CLIP.NAME or clip or DEFAULT_CLIP
    else:
        subject = SoftPrompt.load(resolve_path(prompt))
        learned_with = stated_origin(subject.metadata)
        name = cfg.MODEL.CLIP.NAME or (learned_with.clip if learned_with else DEFAULT_CLIP)
    pretrained = cfg.MODEL.CLIP.PRETRAINED or (None if name == "mini" else "openai")
    encoder = Origin(name, pretrained)
    if learned_with is not None and learned_with.clip != name and learned_with.differs_from(encoder):
        raise UserError(f"prompt {prompt} was learned with {learned_with}; MODEL.CLIP.NAME is {name!r}")
    check_same_clip(own, encoder, place, f"names are encoded by {prompt!r}")
    background = cfg.MODEL.ROI_BOX_HEAD.BACKGROUND or None
    # Loading mini takes three times as long as encoding a few words, and it is small.
    loaded = (_kept_clip if name == "mini" else load_clip)(name, pretrained, cfg.MODEL.DEVICE)
    classifier = TextClassifier.build(loaded, vocabulary, subject, background=background, negatives=negatives)
    classifier.metadata["source"] = f"{len(vocabulary)} classes of {vocabulary.source} with {prompt}"
    if isinstance(subject, SoftPrompt) and cfg.MODEL.ROI_HEADS.NAME == "RegionWordsROIHeads":
        # A learned prompt moves words away from the names of the seen classes, which are in this template.
        classifier.untuned = TextClassifier.build(loaded, vocabulary, cfg.MODEL.WORDS.SEEN_TEMPLATE).weight
    return classifier


@functools.lru_cache(maxsize=1)
def _kept_clip(name: str, pretrained: str | None, device: str) -> Clip:
    from prompt_core.clip import load_clip

    return load_clip(name, pretrained, device)


def _refuse(negatives: Sequence[str], matrix: str) -> None:
    if negatives:
        raise UserError(
            f"negative words ({shortened(negatives[0])}, …) are encoded beside the others, and the classes are rows of "
            f"{matrix}; give a prompt or a template that encodes them"
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
