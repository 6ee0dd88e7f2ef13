"""A class matrix as a file of this toolkit, of Detic or of open_clip; what ``pomp export --words`` does."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from prompt_core.classifier import TextClassifier
from prompt_core.command_line import ArgumentParser, add_subject_arguments, load_model, resolve_subject
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, check_writable, write_safetensors
from prompt_core.hierarchy.pooled_words import pooled_classifier
from prompt_core.metrics import uniformity
from prompt_core.vocabulary import read_vocabulary

# Each format with the endings that its files may have.
FORMATS = {"detic": (".npy",), "open_clip": (".pt", ".safetensors"), "safetensors": (".safetensors",)}
OWN = "safetensors"  # the format with room for a background
NO_TEMPLATE = "{}"


def add_classifier_arguments(parser: ArgumentParser, *words: str, required: bool = True) -> None:
    """The options of a class matrix.

    Args:
        words: option names for the words.
        required: whether they have to be given.
    """
    add_subject_arguments(parser)
    parser.add_argument(
        *words,
        dest="words",
        required=required,
        metavar="WORDS",
        help="names joined by commas, a file, or a published vocabulary",
    )
    parser.add_argument("--format", choices=FORMATS, help="of a class matrix (default: by the ending of --output)")
    parser.add_argument("--synonyms", action="store_true", help="average over the synonyms of each class")
    parser.add_argument(
        "--average-raw", action="store_true", help="average synonyms before features are normalised, as Detic does"
    )
    parser.add_argument(
        "--keep-underscores", action="store_true", help="encode names with their underscores, as Detic does"
    )
    parser.add_argument(
        "--background",
        metavar="WORDS",
        help="names that a photo may show instead: a vocabulary (imagenet21k), a file, …",
    )
    parser.add_argument(
        "--kinds",
        metavar="WORDS",
        help="a general word is the mean of its kinds among these names (imagenet21k), without a template",
    )
    parser.add_argument("--negatives", metavar="WORDS", help="further such words, joined by commas, or a file")


def export_classifier(arguments: argparse.Namespace) -> str:
    """Encode the words and write the file; returns what was done in one line.

    Raises:
        UserError: options that do not go together, a CLIP or a prompt that cannot be loaded, words that cannot be read.
    """
    output = arguments.output
    kind = chosen_format(output, arguments.format)
    if arguments.average_raw and not arguments.synonyms:
        raise UserError("--average-raw is about synonyms; give --synonyms, or leave it out")
    if kind != OWN and (arguments.background or arguments.negatives):
        name = "a .npy" if kind == "detic" else f"the format {kind}"
        raise UserError(f"{name} has no room for --background and --negatives; write a .safetensors")
    check_writable(output)
    classifier = encoded(arguments)
    pooled = f", pooled from {classifier.metadata['pooled_from_kinds']:,} kinds" if arguments.kinds else ""
    write_classifier(classifier, output, kind)
    size, width = classifier.weight.shape
    spread = f", uniformity {float(uniformity(classifier.weight)):.3f}" if size > 1 else ""
    beside = f", {len(classifier.background)} names in the background" if classifier.background else ""
    return f"{size} classes of {arguments.words}, {width} dimensions{pooled}{spread}{beside}, written to {output}"


def chosen_format(output: str | None, given: str | None = None) -> str:
    """The format of a file, by its ending unless it is given.

    Raises:
        UserError: an ending that the format does not have, or that no format has.
    """
    suffix = Path(output or "").suffix
    if given:
        if suffix not in FORMATS[given]:
            raise UserError(f"--output is {output}; --format {given} is written to {' or '.join(FORMATS[given])}")
        return given
    if suffix == ".safetensors":
        return OWN
    fitting = [name for name, endings in FORMATS.items() if suffix in endings]
    if not fitting:
        raise UserError(
            f"--output is {output}; a file ending in .safetensors or .npy is expected (or .pt for open_clip)"
        )
    return fitting[0]


def encoded(arguments: argparse.Namespace) -> TextClassifier:
    """The classifier that the options ask for.

    Raises:
        UserError: a CLIP or a prompt that cannot be loaded, words that cannot be read, options that do not go together.
    """
    if arguments.kinds and (arguments.background or arguments.negatives):
        raise UserError("--kinds pools words, own shares add up their kinds instead; leave out --background or --kinds")
    vocabulary = read_vocabulary(arguments.words)
    names = read_vocabulary(arguments.kinds) if arguments.kinds else None
    cfg, subject = resolve_subject(arguments)
    clip = load_model(cfg, arguments.random_weights)
    classifier = TextClassifier.build(
        clip,
        vocabulary,
        subject,
        arguments.synonyms,
        keep_underscores=arguments.keep_underscores or None,
        average_raw=arguments.average_raw,
        background=arguments.background,
        negatives=read_vocabulary(arguments.negatives).names if arguments.negatives else (),
        cache=cfg.DATA.CACHE,
    )
    classifier.metadata["vocabulary"] = vocabulary.source or arguments.words
    if names is not None:
        classifier = pooled_classifier(
            classifier, vocabulary, names, lambda of: TextClassifier.build(clip, of, NO_TEMPLATE).weight
        )
    return classifier


def write_classifier(classifier: TextClassifier, path: str | Path, kind: str) -> None:
    """Write one of :data:`FORMATS`.

    ``detic`` is the matrix (N, E), with names beside it; ``open_clip`` is ``weight`` (E, N), the matrix that
    open_clip's ``build_zero_shot_classifier`` gives, with ``classnames``.
    """
    if kind != "open_clip":
        classifier.save(path)
        return
    columns = classifier.weight.T.contiguous()  # (E, N)
    if Path(path).suffix == ".safetensors":
        write_safetensors(path, {"weight": columns}, {**classifier.metadata, "classnames": classifier.names})
        return
    document = {"weight": columns, "classnames": list(classifier.names), "metadata": json.dumps(classifier.metadata)}
    with atomic_path(path, durable=True, size=columns.nbytes) as temporary:
        torch.save(document, temporary)
