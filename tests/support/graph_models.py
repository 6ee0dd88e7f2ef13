"""TensorFlow.js graph models as files: of single operations, and of a whole tiny NanoDet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pomp_engine.backbones.nanodet import LEVELS, NanoDet

TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


class GraphWriter:
    """Collects nodes and constants; each method returns the name of what it added."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = [{"name": "image", "op": "Placeholder"}]
        self._entries: list[dict[str, Any]] = []
        self._content = b""

    def constant(self, values: Any, dtype: str = "int32", stored: str = "") -> str:
        """``stored`` is float16 for numbers that the file has in half precision."""
        name = f"constant_{len(self._entries)}"
        array = np.array(values, {"float32": "<f4", "float16": "<f2", "int32": "<i4"}[stored or dtype])
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": dtype}
        if stored:
            entry["quantization"] = {"dtype": stored, "original_dtype": dtype}
        self._entries.append(entry)
        self._content += array.tobytes()
        self.nodes.append({"name": name, "op": "Const"})
        return name

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append({"name": name, "op": kind, "input": list(inputs), "attr": attributes})
        return name

    def write(self, folder: Path, name: str = "model") -> tuple[Path, Path]:
        """Description and weights."""
        description, weights = folder / f"{name}.json", folder / f"{name}.bin"
        manifest = [{"paths": [weights.name], "weights": self._entries}]
        description.write_text(json.dumps({"modelTopology": {"node": self.nodes}, "weightsManifest": manifest}))
        weights.write_bytes(self._content)
        return description, weights


class NanoDetWriter(GraphWriter):
    """The graph of a network, as its exporter laid it out: convolutions without padding, channels last."""

    def __init__(self, network: NanoDet, image_side: int) -> None:
        """
        Args:
            network: whose weights are numbers in half precision.
        """
        super().__init__()
        self._convolutions = -1
        laterals = self._trunk(network)
        three, four, five = laterals
        sides = [image_side // 2**level for level in LEVELS]
        four_down = self.node("Add", four, self._resized(five, sides[1]))
        three = self.node("Add", three, self._resized(four_down, sides[0]))
        four = self.node("Add", four_down, self._resized(three, sides[1]))
        five = self.node("Add", five, self._resized(four, sides[2]))
        for number, x in enumerate((three, four, five)):
            x = self._convolution(network.cells[number], self._layer(network.hidden[number], x))
            sizes = self.constant([network.num_classes, network.cells[number].out_channels - network.num_classes])
            split = self.node("SplitV", x, sizes, self.constant(1))
            for place, output in ((self.node("Sigmoid", split), number), (f"{split}:1", number + len(LEVELS))):
                flat = self.node("Reshape", place, self.constant([1, -1, 0]))
                swapped = self.node("Transpose", flat, self.constant([0, 2, 1]))
                self.node("Identity", swapped, name=f"Identity_{output}" if output else "Identity")

    def _trunk(self, network: NanoDet) -> list[str]:
        x = self._layer(network.stem, "image")
        lowest = self.constant(-np.inf, "float32")
        x = self.node("PadV2", x, self.constant([[0, 0], [0, 0], [1, 1], [1, 1]]), lowest)
        x = self.node("MaxPool", self.node("Transpose", x, self.constant(TO_NHWC)))
        x = self.node("Transpose", x, self.constant(TO_NCHW))
        stages = []
        for stage in network.stages:
            x = inner = self._layer(stage.entry, x)
            for first, second in stage.pairs:
                inner = self._layer(first, inner)
                inner = self.node("ConcatV2", self._layer(second, inner), inner, self.constant(1))
            x = self.node("ConcatV2", self._layer(stage.exit, inner), x, self.constant(1))
            stages.append(x)
        return [self._convolution(lateral, x) for lateral, x in zip(network.lateral, stages[1:], strict=True)]

    def _layer(self, layer: nn.Sequential, x: str) -> str:
        return self.node("LeakyRelu", self._convolution(layer[0], x), alpha={"f": 0.1})

    def _convolution(self, layer: Any, x: str) -> str:
        self._convolutions += 1
        if pad := layer.padding[0]:
            x = self.node("Pad", x, self.constant([[0, 0], [0, 0], [pad, pad], [pad, pad]]))
        x = self.node("Transpose", x, self.constant(TO_NHWC))
        weight = self.constant(layer.weight.detach().permute(2, 3, 1, 0).numpy(), "float32", "float16")
        stride = str(layer.stride[0])
        name = f"net/convolution_{self._convolutions}" if self._convolutions else "net/convolution"
        x = self.node("Conv2D", x, weight, name=name, strides={"list": {"i": ["1", stride, stride, "1"]}})
        x = self.node("AddV2", x, self.constant(layer.bias.detach().numpy(), "float32", "float16"))
        return self.node("Transpose", x, self.constant(TO_NCHW))

    def _resized(self, x: str, side: int) -> str:
        x = self.node("Transpose", x, self.constant(TO_NHWC))
        return self.node(
            "Transpose", self.node("ResizeBilinear", x, self.constant([side, side])), self.constant(TO_NCHW)
        )
