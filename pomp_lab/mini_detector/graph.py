"""A TensorFlow.js graph model as a file, and its plain interpretation: the reference of the converted network."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.documents.bounds import read_bytes
from prompt_core.documents.json_files import read_json
from prompt_core.errors import UserError

TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}


class Graph:
    """Nodes and constants of a graph model.

    Attributes:
        nodes: by name, as the file has them.
        constants: of the nodes ``Const``, by name.
    """

    def __init__(self, description: Path, weights: Path) -> None:
        """
        Args:
            description: the JSON file.
            weights: its one binary file.

        Raises:
            UserError: when the two do not fit together, or the description is no such model.
        """
        document, content, place = read_json(description), read_bytes(weights), 0
        self.nodes: dict[str, dict[str, Any]] = {}
        self.constants: dict[str, np.ndarray] = {}
        try:
            self.nodes = {node["name"]: node for node in document["modelTopology"]["node"]}
            for entry in (entry for group in document["weightsManifest"] for entry in group["weights"]):
                stored = np.dtype(TYPES[entry.get("quantization", entry)["dtype"]])
                count = math.prod(entry["shape"])
                if place + count * stored.itemsize > len(content):
                    raise UserError(f"{weights} ends before {entry['name']}, which {description.name} lists")
                value = np.frombuffer(content, stored, count, place).reshape(entry["shape"])
                self.constants[entry["name"]] = value.astype(TYPES[entry["dtype"]])
                place += count * stored.itemsize
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{description} describes no TensorFlow.js graph model ({error!r})") from error
        if place != len(content):
            raise UserError(f"{weights} has {len(content)} bytes, {description.name} lists {place}")

    def run(self, image: Tensor, outputs: list[str]) -> list[Tensor]:
        """The outputs for an image (1, 3, H, W), operation by operation as TensorFlow defines them.

        Raises:
            UserError: an operation that these models do not have.
        """
        values: dict[str, Any] = {}

        def value(reference: str) -> Any:
            name, _, place = reference.partition(":")
            if name not in values:
                values[name] = self._compute(self.nodes[name], image, value)
            found = values[name]
            return found[int(place or 0)] if isinstance(found, (list, tuple)) else found

        return [value(output) for output in outputs]

    def _compute(self, node: dict[str, Any], image: Tensor, value: Callable[[str], Any]) -> Any:
        kind, inputs = node["op"], node.get("input", [])
        if kind == "Const":
            return torch.from_numpy(np.array(self.constants[node["name"]]))
        if kind == "Placeholder":
            return image
        if kind == "Reshape":
            return value(inputs[0]).flatten(2)  # its shape is computed from the input's; all cells of a level
        arguments = [value(name) for name in inputs]
        operation = OPERATIONS.get(kind)
        if operation is None:
            raise UserError(f"the graph has the operation {kind}, which is not known here")
        return operation(node, *arguments)


def _nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _pad(node: dict[str, Any], x: Tensor, sides: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    return F.pad(x, sides.flip(0).flatten().tolist(), value=float(fill))


def _convolve(node: dict[str, Any], x: Tensor, weight: Tensor) -> Tensor:
    stride = int(node["attr"]["strides"]["list"]["i"][1])
    return _nhwc(F.conv2d(_nchw(x), weight.permute(3, 2, 0, 1), stride=stride))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda node, x, y: x + y,
    "AddV2": lambda node, x, y: x + y,
    "Pad": _pad,
    "PadV2": _pad,
    "Transpose": lambda node, x, order: x.permute(*order.tolist()),
    "Conv2D": _convolve,
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node["attr"]["alpha"]["f"]),
    "MaxPool": lambda node, x: _nhwc(F.max_pool2d(_nchw(x), 3, 2)),
    "ConcatV2": lambda node, *inputs: torch.cat(inputs[:-1], dim=int(inputs[-1])),
    "ResizeBilinear": lambda node, x, size: _nhwc(
        F.interpolate(_nchw(x), tuple(size.tolist()), mode="bilinear", align_corners=False)
    ),
    "SplitV": lambda node, x, sizes, dim: torch.split(x, sizes.tolist(), dim=int(dim)),
    "Sigmoid": lambda node, x: x.sigmoid(),
    "Identity": lambda node, x: x,
}
