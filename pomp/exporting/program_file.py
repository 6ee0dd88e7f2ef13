"""A graph as a file of ``torch.export``, reloaded and compared."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from pomp.exporting.model_graph import Graph
from pomp.exporting.notes_file import write_notes
from prompt_core.files import atomic_path


def write_program(graph: Graph, path: Path) -> dict[str, Any]:
    """Write ``path``, which ``torch.export.load`` reads, and ``path.json``.

    Returns:
        the notes.

    Raises:
        UserError: a model that cannot be traced, or answers otherwise when it is loaded again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = graph.traced()
        with atomic_path(path, durable=True) as temporary:
            with open(temporary, "wb") as stream:
                torch.export.save(program, stream)
            with open(temporary, "rb") as stream:
                loaded = torch.export.load(stream).module()
            worst = 0.0
            for inputs in (graph.inputs, graph.others):
                with torch.no_grad():
                    answers = loaded(*inputs.values())
                given = dict(zip(graph.outputs, answers, strict=True))
                worst = max(worst, graph.check(given, inputs, "the traced program"))
    versions = {"torch": str(torch.__version__)}
    notes = {**graph.notes, "format": "torch.export", "largest_difference": worst, "versions": versions}
    return write_notes(path, graph, notes)
