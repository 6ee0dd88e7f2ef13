"""The graph of the package: each operation, files that do not fit, and the conversion that is checked against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("detectron2")

from pomp_engine.backbones.nanodet import NanoDet
from pomp_lab.mini_detector.convert import IMAGE_SIDE, TOLERANCE, convert, largest_difference
from pomp_lab.mini_detector.graph import OPERATIONS, Graph
from prompt_core.errors import UserError

from ...support.graph_models import GraphWriter, NanoDetWriter

TINY = (4, 8, 16, 32)
IMAGE = torch.randn(1, 5, 7, 4, generator=torch.Generator().manual_seed(0))  # (B, H, W, C), as TensorFlow has it
OTHER = np.random.default_rng(1).normal(size=(1, 5, 7, 4)).astype(np.float32)
KERNEL = np.random.default_rng(2).normal(size=(3, 3, 4, 6)).astype(np.float32)


def convolved(x: np.ndarray, stride: int) -> np.ndarray:
    """By its definition, without padding."""
    rows, columns = ((size - 3) // stride + 1 for size in x.shape[1:3])
    result = np.zeros((1, rows, columns, 6))
    for row in range(rows):
        for column in range(columns):
            window = x[0, row * stride : row * stride + 3, column * stride : column * stride + 3]
            result[0, row, column] = np.einsum("abc,abco->o", window, KERNEL)
    return result


def pooled(x: np.ndarray) -> np.ndarray:
    rows, columns = ((size - 3) // 2 + 1 for size in x.shape[1:3])
    windows = [
        [x[0, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max(axis=(0, 1)) for c in range(columns)] for r in range(rows)
    ]
    return np.array(windows)[None]


def resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, with the centres of pixels at halves."""

    def places(size: int, new: int) -> list[tuple[int, int, float]]:
        spots = [min(max((place + 0.5) * size / new - 0.5, 0), size - 1) for place in range(new)]
        return [(int(spot), min(int(spot) + 1, size - 1), spot - int(spot)) for spot in spots]

    result = np.zeros((1, height, width, x.shape[3]))
    for row, (top, below, down) in enumerate(places(x.shape[1], height)):
        for column, (left, right, along) in enumerate(places(x.shape[2], width)):
            upper = (1 - along) * x[0, top, left] + along * x[0, top, right]
            lower = (1 - along) * x[0, below, left] + along * x[0, below, right]
            result[0, row, column] = (1 - down) * upper + down * lower
    return result


def one_operation(kind: str, graph: GraphWriter) -> str:
    """A graph of one operation on the image; its name."""
    other = graph.constant(OTHER, "float32")
    inputs: dict[str, tuple[str, ...]] = {
        "Add": (other,),
        "AddV2": (other,),
        "Pad": (graph.constant([[0, 0], [1, 2], [0, 3], [0, 0]]),),
        "PadV2": (graph.constant([[0, 0], [1, 2], [0, 3], [0, 0]]), graph.constant(-7.0, "float32")),
        "Transpose": (graph.constant([0, 3, 1, 2]),),
        "Conv2D": (graph.constant(KERNEL, "float32"),),
        "ConcatV2": (other, graph.constant(2)),
        "ResizeBilinear": (graph.constant([9, 3]),),
        "SplitV": (graph.constant([2, 5]), graph.constant(2)),
    }
    attributes: dict[str, dict[str, Any]] = {
        "Conv2D": {"strides": {"list": {"i": ["1", "2", "2", "1"]}}},
        "LeakyRelu": {"alpha": {"f": 0.25}},
    }
    return graph.node(kind, "image", *inputs.get(kind, ()), **attributes.get(kind, {}))


def expected_of(kind: str, x: np.ndarray) -> np.ndarray:
    pads = ((0, 0), (1, 2), (0, 3), (0, 0))
    expected: dict[str, np.ndarray] = {
        "Add": x + OTHER,
        "AddV2": x + OTHER,
        "Pad": np.pad(x, pads),
        "PadV2": np.pad(x, pads, constant_values=-7),
        "Transpose": x.transpose(0, 3, 1, 2),
        "Conv2D": convolved(x, 2),
        "LeakyRelu": np.where(x > 0, x, 0.25 * x),
        "MaxPool": pooled(x),
        "ConcatV2": np.concatenate((x, OTHER), axis=2),
        "ResizeBilinear": resized(x, 9, 3),
        "SplitV": x[:, :, :2],
        "Sigmoid": 1 / (1 + np.exp(-x)),
        "Identity": x,
    }
    return expected[kind]


@pytest.mark.parametrize("kind", sorted(OPERATIONS))
def test_operations(kind: str, tmp_path: Path) -> None:
    writer = GraphWriter()
    name = one_operation(kind, writer)
    (found,) = Graph(*writer.write(tmp_path)).run(IMAGE, [name])
    np.testing.assert_allclose(found.numpy(), expected_of(kind, IMAGE.numpy()), rtol=1e-5, atol=1e-6)


def test_several_outputs_of_a_node_and_numbers_in_half_precision(tmp_path: Path) -> None:
    writer = GraphWriter()
    split = one_operation("SplitV", writer)
    half = writer.node("Add", "image", writer.constant(OTHER, "float32", "float16"))
    flat = writer.node("Reshape", "image", half)
    graph = Graph(*writer.write(tmp_path))
    first, second, added, reshaped = graph.run(IMAGE, [split, f"{split}:1", half, flat])
    assert torch.equal(torch.cat((first, second), dim=2), IMAGE)
    assert torch.equal(added, IMAGE + torch.from_numpy(OTHER.astype(np.float16).astype(np.float32)))
    assert torch.equal(reshaped, IMAGE.flatten(2))


def test_an_unknown_operation(tmp_path: Path) -> None:
    writer = GraphWriter()
    name = writer.node("Softmax", "image")
    with pytest.raises(UserError, match="the graph has the operation Softmax, which is not known here"):
        Graph(*writer.write(tmp_path)).run(IMAGE, [name])


@pytest.fixture(scope="module")
def tiny() -> NanoDet:
    """Random, of numbers in half precision."""
    torch.manual_seed(0)
    network = NanoDet(5, TINY, width=12).eval()
    for value in network.parameters():
        value.requires_grad_(False).copy_(value.half().float())
    return network


@pytest.fixture(scope="module")
def files(tiny: NanoDet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return NanoDetWriter(tiny, IMAGE_SIDE).write(tmp_path_factory.mktemp("graph"))


def fresh(*channels: int, classes: int = 5, width: int = 12) -> NanoDet:
    return NanoDet(classes, channels or TINY, width)


def test_the_converted_network_is_the_graph(tiny: NanoDet, files: tuple[Path, Path]) -> None:
    converted = convert(Graph(*files), fresh())
    assert not converted.training
    state: dict[str, Tensor] = converted.state_dict()
    for name, value in tiny.state_dict().items():
        assert torch.equal(state[name], value), name


def test_another_graph_is_noticed(tiny: NanoDet, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph(*files)
    assert largest_difference(graph, tiny) < TOLERANCE
    with pytest.raises(UserError, match=r"net/convolution of the graph is \(4, 3, 3, 3\), expected \(8, 3, 3, 3\)"):
        convert(graph, fresh(8, 16, 32, 64))
    with pytest.raises(UserError, match=r"of the graph is \(49, 12, 1, 1\), expected \(50, 12, 1, 1\)"):
        convert(graph, fresh(classes=6))
    graph.nodes["net/convolution_more"] = graph.nodes["net/convolution_1"]
    with pytest.raises(UserError, match="the graph has 35 convolutions, expected 34"):
        convert(graph, fresh())

    graph = Graph(*files)
    slopes = [node for node in graph.nodes.values() if node["op"] == "LeakyRelu"]
    slopes[-1]["attr"] = {"alpha": {"f": 0.3}}
    with pytest.raises(UserError, match=r"the converted network differs from its graph by .*, at most 0.0001 is due"):
        convert(graph, fresh())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text, content: (text, content[:-1]), r"model.bin ends before constant_\d+, which model.json lists"),
        (lambda text, content: (text, content + b"1"), r"model.bin has \d+ bytes, model.json lists \d+"),
        (lambda text, content: (text[:-9], content), "model.json is not valid JSON"),
        (lambda text, content: ("[]", content), "model.json describes no TensorFlow.js graph model"),
        (
            lambda text, content: ('{"modelTopology": {"node": [{}]}}', content),
            "describes no TensorFlow.js graph model",
        ),
        (lambda text, content: (text.replace("int32", "int64"), content), "describes no TensorFlow.js graph"),
        (lambda text, content: (text.replace("[3, 3,", "[-3, 3,", 1), content), "describes no TensorFlow.js graph"),
    ],
)
def test_damaged_files(files: tuple[Path, Path], tmp_path: Path, damage: Any, message: str) -> None:
    text, content = damage(files[0].read_text(), files[1].read_bytes())
    (tmp_path / "model.json").write_text(text)
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        Graph(tmp_path / "model.json", tmp_path / "model.bin")
    assert "\n" not in str(caught.value)


def test_absent_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.json"):
        Graph(tmp_path / "absent.json", files[1])
    with pytest.raises(UserError, match=r"absent.bin"):
        Graph(files[0], tmp_path / "absent.bin")
