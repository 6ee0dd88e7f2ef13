"""Tensors of published backbones, name by name, as the files of their authors hold them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Shapes = dict[str, tuple[int, ...]]


def _batch_norm(name: str, width: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (width,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def _with_bias(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}


def resnet(depths: Sequence[int], bottleneck: bool, classes: int = 0) -> Shapes:
    """A ResNet of timm, also MIIL's of ImageNet-21K (11,221 classes), or torchvision's; 0 classes for none."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | _batch_norm("bn1", 64)
    width = 64
    for stage, depth in enumerate(depths):
        inner = 64 * 2**stage
        outer = 4 * inner if bottleneck else inner
        for block in range(depth):
            place = f"layer{stage + 1}.{block}"
            kernels = [(inner, width, 1), (inner, inner, 3), (outer, inner, 1)]
            if not bottleneck:
                kernels = [(inner, width, 3), (inner, inner, 3)]
            for number, (rows, columns, size) in enumerate(kernels, start=1):
                shapes[f"{place}.conv{number}.weight"] = (rows, columns, size, size)
                shapes |= _batch_norm(f"{place}.bn{number}", rows)
            if block == 0 and width != outer:
                shapes[f"{place}.downsample.0.weight"] = (outer, width, 1, 1)
                shapes |= _batch_norm(f"{place}.downsample.1", outer)
            width = outer
    return shapes | (_with_bias("fc", classes, width) if classes else {})


def swin(depths: Sequence[int], width: int, heads: Sequence[int], classes: int) -> Shapes:
    """A Swin transformer of its authors, window 7, input of 224 pixels."""
    shapes = _with_bias("patch_embed.proj", width, 3, 4, 4) | _with_bias("patch_embed.norm", width)
    for layer, depth in enumerate(depths):
        size = width * 2**layer
        for block in range(depth):
            place = f"layers.{layer}.blocks.{block}"
            shapes |= _with_bias(f"{place}.norm1", size) | _with_bias(f"{place}.norm2", size)
            shapes[f"{place}.attn.relative_position_bias_table"] = (13 * 13, heads[layer])
            shapes[f"{place}.attn.relative_position_index"] = (49, 49)
            shapes |= _with_bias(f"{place}.attn.qkv", 3 * size, size) | _with_bias(f"{place}.attn.proj", size, size)
            shapes |= _with_bias(f"{place}.mlp.fc1", 4 * size, size) | _with_bias(f"{place}.mlp.fc2", size, 4 * size)
            if block % 2 and layer < 3:
                shapes[f"{place}.attn_mask"] = ((56 // 2**layer // 7) ** 2, 49, 49)
        if layer < 3:
            shapes[f"layers.{layer}.downsample.reduction.weight"] = (2 * size, 4 * size)
            shapes |= _with_bias(f"layers.{layer}.downsample.norm", 4 * size)
    last = width * 8
    return shapes | _with_bias("norm", last) | _with_bias("head", classes, last)


def convnext(depths: Sequence[int], widths: Sequence[int], classes: int) -> Shapes:
    """A ConvNeXt of its authors."""
    shapes = _with_bias("downsample_layers.0.0", widths[0], 3, 4, 4) | _with_bias("downsample_layers.0.1", widths[0])
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            before = widths[stage - 1]
            shapes |= _with_bias(f"downsample_layers.{stage}.0", before)
            shapes |= _with_bias(f"downsample_layers.{stage}.1", width, before, 2, 2)
        for block in range(depth):
            place = f"stages.{stage}.{block}"
            shapes[f"{place}.gamma"] = (width,)
            shapes |= _with_bias(f"{place}.dwconv", width, 1, 7, 7) | _with_bias(f"{place}.norm", width)
            shapes |= _with_bias(f"{place}.pwconv1", 4 * width, width)
            shapes |= _with_bias(f"{place}.pwconv2", width, 4 * width)
    return shapes | _with_bias("norm", widths[-1]) | _with_bias("head", classes, widths[-1])


def numbered_state(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Tensors of these shapes, each with its own numbers; integers where a published file has them."""
    state = {}
    for number, (key, shape) in enumerate(shapes.items()):
        integer = key.endswith(("num_batches_tracked", "relative_position_index"))
        state[key] = torch.full(shape, number, dtype=torch.long if integer else torch.float32)
        state[key].view(-1)[-1] += 7
    return state
