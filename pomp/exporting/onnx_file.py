"""A graph as an ONNX file that onnxruntime has been seen to answer alike."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pomp.exporting.model_graph import Graph
from pomp.exporting.notes_file import write_notes
from prompt_core.errors import UserError
from prompt_core.files import atomic_path
from prompt_core.lazy import import_optional

OPSET = 20
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def write_onnx(graph: Graph, path: Path) -> dict[str, Any]:
    """Write ``path`` and ``path.json``.

    The model is translated, run by onnxruntime on two sets of inputs of different sizes, and compared with the module;
    only what agrees is given its name. The notes, with opset and largest difference, are its ``metadata_props`` too.

    Returns:
        the notes.

    Raises:
        UserError: packages that are not installed, a model that cannot be translated or answers otherwise.
    """
    onnx, runtime = check_installed()
    with _quiet():
        model = _translated(graph)
    _name_sizes(model, graph)
    opset = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    with atomic_path(path, durable=True) as temporary:
        onnx.save(model, str(temporary))
        worst = max(_difference(graph, inputs, temporary, runtime) for inputs in (graph.inputs, graph.others))
        made_by = {"onnxruntime": runtime.__version__, "onnx": onnx.__version__, "torch": str(torch.__version__)}
        notes = {**graph.notes, "format": "onnx", "opset": opset, "largest_difference": worst, "versions": made_by}
        onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in notes.items()})
        onnx.checker.check_model(model)
        onnx.save(model, str(temporary))
    return write_notes(path, graph, notes)


def check_installed() -> tuple[Any, Any]:
    """The packages onnx and onnxruntime.

    Raises:
        UserError: when one that is needed is not installed.
    """
    onnx, runtime, _ = (import_optional(name, "export", "to write ONNX files") for name in PACKAGES)
    return onnx, runtime


def _translated(graph: Graph) -> Any:
    program = graph.traced()
    try:
        translated = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            verbose=False,
        )
    except Exception as error:  # the exporter has errors of its own for each step
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"this model cannot be translated to ONNX: {reason.strip()[:300]}") from error
    assert translated is not None
    return translated.model_proto


def _name_sizes(model: Any, graph: Graph) -> None:
    """Names that a person can read for the free sizes of inputs, instead of ``s34``."""
    readable = {}
    for value in model.graph.input:
        for dim in graph.free.get(value.name, ()):
            readable[value.type.tensor_type.shape.dim[dim].dim_param] = f"number_of_{value.name}"
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in readable:
                size.dim_param = readable[size.dim_param]


def _difference(graph: Graph, inputs: Any, file: Path, runtime: Any) -> float:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        answers = session.run(list(graph.outputs), {name: value.numpy() for name, value in inputs.items()})
    except Exception as error:  # onnxruntime's errors have no common class
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"onnxruntime cannot run the translated model: {reason.strip()[:300]}") from error
    given: dict[str, Tensor] = dict(zip(graph.outputs, map(torch.from_numpy, answers), strict=True))
    return graph.check(given, inputs, "the translated model in onnxruntime")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and its optimiser print and log while they work."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", "torch.fx")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
