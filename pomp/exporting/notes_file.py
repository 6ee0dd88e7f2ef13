"""What stands beside an exported model: its inputs and outputs, how photos are prepared, and its hash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pomp.exporting.model_graph import Graph
from prompt_core.files import sha256_of_file, write_json


def write_notes(path: Path, graph: Graph, notes: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``PATH.json`` beside a model; returns what was written."""
    written = {
        **notes,
        "inputs": {name: _shape(name, graph) for name in graph.inputs},
        "outputs": list(graph.outputs),
        "file": path.name,
        "sha256": sha256_of_file(path),
    }
    write_json(path.with_name(f"{path.name}.json"), written, durable=True)
    return written


def _shape(name: str, graph: Graph) -> list[int | str]:
    free = graph.free.get(name, ())
    return [f"number_of_{name}" if dim in free else size for dim, size in enumerate(graph.inputs[name].shape)]
