"""NanoDet-g out of its graph: weights by the order of the convolutions, checked against the graph itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pomp_engine.backbones.nanodet import LEVELS, NanoDet
from pomp_lab.mini_detector.graph import Graph
from prompt_core.errors import UserError

IMAGE_SIDE = 416  # pixels; the graph has no other
TOLERANCE = 1e-4  # of logits in float32, whose convolutions add up in another order


def convert(graph: Graph, network: NanoDet) -> NanoDet:
    """The network with the graph's weights, in evaluation mode.

    Raises:
        UserError: when the graph has other convolutions, or gives other outputs.
    """
    names, layers = _convolution_names(graph), _layers(network)
    if len(names) != len(layers):
        raise UserError(f"the graph has {len(names)} convolutions, expected {len(layers)}")
    for name, layer in zip(names, layers, strict=True):
        node = graph.nodes[name]
        weight = torch.from_numpy(graph.constants[node["input"][1]].copy()).permute(3, 2, 0, 1)
        bias = torch.from_numpy(graph.constants[_bias_name(graph, name)].copy())
        if weight.shape != layer.weight.shape:
            raise UserError(f"{name} of the graph is {tuple(weight.shape)}, expected {tuple(layer.weight.shape)}")
        layer.load_state_dict({"weight": weight, "bias": bias})
    network.eval()
    difference = largest_difference(graph, network)
    if not difference <= TOLERANCE:
        raise UserError(f"the converted network differs from its graph by {difference:.2g}, at most {TOLERANCE} is due")
    return network


@torch.no_grad()
def largest_difference(graph: Graph, network: NanoDet) -> float:
    """Between the graph's and the network's outputs for noise: probabilities of classes and logits of box sides."""
    image = torch.randn((1, 3, IMAGE_SIDE, IMAGE_SIDE), generator=torch.Generator().manual_seed(0))
    names = ["Identity", *(f"Identity_{number}" for number in range(1, 2 * len(LEVELS)))]
    expected = [output.reshape(-1, output.shape[-1]) for output in graph.run(image, names)]  # (H * W, C) or (H * W, 44)
    features, differences = network(image), []
    for number, level in enumerate(LEVELS):
        cells: Tensor = features[f"cells{level}"][0].flatten(1).T
        classes, sides = cells.split((network.num_classes, cells.shape[1] - network.num_classes), dim=1)
        differences += [classes.sigmoid() - expected[number], sides - expected[len(LEVELS) + number]]
    return max(float(difference.abs().max()) for difference in differences)


def _convolution_names(graph: Graph) -> list[str]:
    """Names of the graph's convolutions, which it numbers in the order of the network's layers."""
    names = [name for name, node in graph.nodes.items() if node["op"] == "Conv2D"]
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]) if name[-1].isdigit() else 0)


def _bias_name(graph: Graph, convolution: str) -> str:
    return next(node["input"][1] for node in graph.nodes.values() if node.get("input", [""])[0] == convolution)


def _layers(network: NanoDet) -> list[nn.Conv2d]:
    """The network's convolutions in the graph's order: the heads level by level."""
    parts = [*network.stem.modules(), *network.stages.modules(), *network.lateral.modules()]
    for hidden, cells in zip(network.hidden, network.cells, strict=True):
        parts += [*hidden.modules(), cells]
    return [part for part in parts if isinstance(part, nn.Conv2d)]
