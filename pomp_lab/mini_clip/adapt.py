"""Fitting the image side's one linear layer to photos of few pixels, without losing accuracy on large ones.

The trunk learned from large photos; enlarged 64-pixel ones land elsewhere in its feature space. Only the last linear
layer changes, towards the class features of the finished text tower, and the result is averaged with the layer that it
started from (weight-space averaging, arXiv 2109.01903), which keeps what the layer had learned.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.tables.data_folders import NOVEL_CLASSES, SPLIT_SEED, base_novel_classes
from prompt_core.clip import Clip, load_clip
from prompt_core.command_line import counting
from prompt_core.data.images import ImageSet
from prompt_core.data.readers.imagenet import tiny_imagenet
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, write_json
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

TEMPLATE = "a photo of a {}."
STEPS, BATCH, RATE = 200, 256, 1e-3
DISTILLATION = 0.5  # weight of staying close to the answers over all 1,000 classes
MIX = 0.5  # share of the adapted layer in the average


@torch.inference_mode()
def pooled_features(clip: Clip, images: ImageSet, progress: Callable[[int, int], None] | None = None) -> Tensor:
    """Trunk features (N, 1280) of images, with the model's own preprocessing."""
    trunk: Any = clip.model.visual.trunk  # type: ignore[union-attr]
    features = []
    for start in range(0, len(images), 32):
        rows = range(start, min(start + 32, len(images)))
        batch = torch.stack([clip.preprocess(images.read(row)) for row in rows])  # (B, 3, S, S)
        features.append(trunk(batch.contiguous(memory_format=torch.channels_last)))
        if progress is not None:
            progress(start + len(batch), len(images))
    return torch.cat(features)


def adapted_layer(
    weight: Tensor, bias: Tensor, pooled: Tensor, labels: Tensor, classes: Tensor, kept: Tensor, scale: float, seed: int
) -> tuple[Tensor, Tensor]:
    """The linear layer after adaptation and averaging.

    Args:
        weight: (E, F), bias: (E,), the layer to start from.
        pooled: (N, F) trunk features of photos, with ``labels`` (N,) into ``classes`` (C, E) unit-norm.
        kept: (K, E) unit-norm features of the classes whose answers should not change.
        scale: logit scale.

    Returns:
        weight (E, F) and bias (E,).
    """
    generator = torch.Generator().manual_seed(seed)
    moved = [part.clone().requires_grad_() for part in (weight, bias)]
    optimizer = torch.optim.Adam(moved, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(pooled), (BATCH,), generator=generator)
        images = F.normalize(F.linear(pooled[chosen], *moved), dim=1)  # (B, E)
        before = F.normalize(F.linear(pooled[chosen], weight, bias), dim=1)
        drift = F.kl_div(
            (scale * images @ kept.T).log_softmax(1), (scale * before @ kept.T).softmax(1), reduction="batchmean"
        )
        loss = F.cross_entropy(scale * images @ classes.T, labels[chosen]) + DISTILLATION * drift
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return torch.lerp(weight, moved[0], MIX), torch.lerp(bias, moved[1], MIX)


def adapt(folder: Path, tiny_root: Path, output: Path, seed: int) -> Path:
    """Adapt ``mini`` in ``folder`` to training photos of Tiny-ImageNet's base classes; write it into ``output``.

    The novel classes of the base-to-novel split and all validation photos stay unseen.

    Returns:
        the weights.

    Raises:
        UserError: when ``folder`` holds no ``mini``, or the photos are missing.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    source = folder / "mini.safetensors"
    if not source.is_file():
        raise UserError(f"no mini.safetensors in {folder}; build it first")
    make_output_folder(output)
    clip = load_clip(folder / "mini.json", source)
    encoder = PromptedTextEncoder(clip)
    images = tiny_imagenet(tiny_root, "train")
    base, _ = base_novel_classes(len(images.names), NOVEL_CLASSES, SPLIT_SEED)
    images = images.select_classes(base)
    with counting("encoding Tiny-ImageNet photos") as progress:
        pooled = pooled_features(clip, images, progress)
    classes, kept = (
        encoder.encode_texts([TEMPLATE.format(name) for name in names])
        for names in (images.names, Vocabulary.load("imagenet1k").names)
    )
    state = load_file(source)
    layer = [f"visual.head.proj.{part}" for part in ("weight", "bias")]
    weight, bias = (state[name].float() for name in layer)
    labels = torch.from_numpy(np.asarray(images.labels, dtype=np.int64))
    for name, part in zip(
        layer, adapted_layer(weight, bias, pooled, labels, classes, kept, clip.logit_scale, seed), strict=True
    ):
        state[name] = part.half().contiguous()
    with safe_open(source, "pt") as file:
        metadata = dict(file.metadata())
    photos = f"Tiny-ImageNet, {len(images)} training photos of {len(base)} classes"
    metadata["adapted"] = json.dumps({"photos": photos, "steps": STEPS, "mix": MIX, "seed": seed})
    weights = output / source.name
    with atomic_path(weights) as temporary:
        save_file(state, temporary, metadata)
    write_json(weights.with_suffix(".json"), json.loads((folder / "mini.json").read_text(encoding="utf-8")))
    say(f"wrote {weights}, {weights.stat().st_size:,} bytes")
    return weights
