"""A model without its text side as a file, with the matrices of given words beside it; ``pomp export --image-side``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pomp.exporting.model_graph import Graph
from prompt_core.background.background import Background, calibrated_scale
from prompt_core.classifier import TextClassifier
from prompt_core.errors import UserError
from prompt_core.files import check_writable
from prompt_core.visible import visible_path

# Each kind of file with its ending.
KINDS = {"onnx": ".onnx", "torch.export": ".pt2"}


def export_image_side(arguments: argparse.Namespace) -> str:
    """Trace, write, compare; returns what was done in one line.

    Raises:
        UserError: a model that cannot be loaded, traced or translated, or a file that answers otherwise.
    """
    output = Path(arguments.output or "")
    kind, ending = arguments.image_side, KINDS[arguments.image_side]
    if output.suffix != ending:
        raise UserError(f"--output is {arguments.output}; --image-side {kind} is written to a file ending in {ending}")
    write = _writer(kind)
    check_writable(output)
    graph, classifier = _of_configuration(arguments, output) if arguments.model else _of_clip(arguments)
    if classifier is not None:
        graph = replace(graph, notes={**graph.notes, **_write_words(classifier, output)})
    notes = write(graph, output)
    difference = f"largest difference {notes['largest_difference']:.1e}"
    opset = f", opset {notes['opset']['ai.onnx']}" if "opset" in notes else ""
    words = f"; {len(classifier)} words in {notes['words_file']}" if classifier is not None else ""
    return f"{notes['task']} model written to {visible_path(output)}{opset}, {difference}{words}"


def _writer(kind: str) -> Callable[[Graph, Path], dict[str, Any]]:
    """The function that writes a kind; fails at once where packages are absent, not after minutes."""
    if kind == "onnx":
        from pomp.exporting.onnx_file import check_installed, write_onnx

        check_installed()
        return write_onnx
    from pomp.exporting.program_file import write_program

    return write_program


def _of_clip(arguments: argparse.Namespace) -> tuple[Graph, TextClassifier | None]:
    from pomp.exporting.classifier_file import encoded
    from pomp.exporting.image_graph import image_graph
    from prompt_core.command_line import load_model, resolve_subject

    cfg, _ = resolve_subject(arguments)
    clip = load_model(cfg, arguments.random_weights)
    graph = image_graph(clip, arguments.own_share)
    if arguments.own_share:
        scale = calibrated_scale(clip.name, clip.logit_scale)
        graph = replace(graph, notes={**graph.notes, "own_share_logit_scale": scale})
    if not arguments.words:
        return graph, None
    if arguments.own_share and not arguments.background and not arguments.negatives:
        arguments.background = "imagenet21k"
    return graph, encoded(arguments)


def _of_configuration(arguments: argparse.Namespace, output: Path) -> tuple[Graph, TextClassifier | None]:
    """A detector or a segmenter of ``--model``, by the words of a prompt or template."""
    from pomp.models.load import load

    if arguments.clip or arguments.pretrained or arguments.config or arguments.own_share:
        raise UserError(
            "--clip, --pretrained, --config and --own-share are for a CLIP; --model is a detector or segmenter"
        )
    prompt = arguments.prompt or "|".join(arguments.template)
    negatives = arguments.negatives.split(",") if arguments.negatives else []
    model: Any = load(arguments.model, prompt=prompt or None)
    if model.task == "classify":
        raise UserError(f"--model is {arguments.model}, a CLIP; give its name as --clip and --pretrained")
    if arguments.words:
        model.words(os.fspath(arguments.words), negatives)
    names: list[str] = model.names if arguments.words else []
    if model.task == "detect":
        from pomp.exporting.detector_graph import detector_graph

        graph = detector_graph(model.predictor)
        scorer = model.predictor.model.roi_heads.last_predictor.cls_score
        rows, others = scorer.zs_weight[:, :-1].T, scorer.other_names
        if names and scorer.untuned is not None:
            save_matrix(output.with_suffix(".untuned.npy"), scorer.untuned)
            graph = replace(graph, notes={**graph.notes, "untuned_file": output.with_suffix(".untuned.npy").name})
    else:
        from pomp.exporting.segmenter_graph import segmenter_graph, segmenter_matrices

        graph = segmenter_graph(model.predictor)
        if names:
            names, rows, others = segmenter_matrices(model.predictor)
    graph = replace(graph, notes={**graph.notes, "model": arguments.model})
    return graph, _classifier(rows, names, others) if names else None


def _classifier(rows: Tensor, names: list[str], others: Tensor | None) -> TextClassifier:
    background = None
    if others is not None:
        background = Background(others.detach(), [f"name {row}" for row in range(len(others))], 1.0)
    return TextClassifier(rows.detach(), names, background=background)


def _write_words(classifier: TextClassifier, output: Path) -> dict[str, Any]:
    """``NAME.words.npy`` and, with a background, ``NAME.background.npy`` and kinds; what the notes say of them."""
    words = output.with_suffix(".words.npy")
    TextClassifier(classifier.weight, classifier.names, classifier.metadata).save(words)
    notes: dict[str, Any] = {"names": classifier.names, "words_file": words.name}
    background = classifier.background
    if background is not None:
        save_matrix(output.with_suffix(".background.npy"), background.weight)
        notes["background_file"] = output.with_suffix(".background.npy").name
        if background.kinds is not None:
            save_matrix(output.with_suffix(".kinds.npy"), background.kinds.weight)
            notes |= {"kinds_file": output.with_suffix(".kinds.npy").name, "kind_of": background.kinds.word.tolist()}
    return notes


def save_matrix(path: Path, rows: Tensor) -> None:
    """Write a matrix as ``.npy``, atomic."""
    import numpy as np

    from prompt_core.files import atomic_path

    with atomic_path(path, durable=True) as temporary, open(temporary, "wb") as stream:
        np.save(stream, np.ascontiguousarray(rows.detach().cpu().numpy()), allow_pickle=False)
