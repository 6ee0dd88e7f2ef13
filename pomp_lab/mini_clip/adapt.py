"""Fitting the image side to photos of few pixels and to regions, without losing accuracy on large photos.

The trunk learned from large photos; enlarged 64-pixel ones land elsewhere in its feature space. First only the last
linear layer changes, towards the class features of the finished text tower, and the result is averaged with the layer
that it started from (weight-space averaging, arXiv 2109.01903), which keeps what the layer had learned. Crops of boxes
need more: the last stage of the trunk learns from them too (:mod:`pomp_lab.mini_clip.lessons`). The text tower stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pomp_lab.mini_clip.box_crops import jittered, whole_photos
from pomp_lab.mini_clip.last_stage import LastStage, LowerTrunk
from pomp_lab.mini_clip.lessons import Lesson, taught
from pomp_lab.shipped_weights import half_precision
from pomp_lab.tables.data_folders import NOVEL_CLASSES, SPLIT_SEED, base_novel_classes
from prompt_core.clip import Clip, load_clip
from prompt_core.command_line import counting
from prompt_core.data.feature_cache import CachedFeatures, cached_features
from prompt_core.data.images import ImageSet
from prompt_core.data.readers.coco_crops import Crops
from prompt_core.data.readers.imagenet import tiny_imagenet
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, sha256_of_file, write_json
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

TEMPLATE = "a photo of a {}."
STEPS, BATCH, RATE = 200, 256, 1e-3
DISTILLATION = 0.5  # weight of staying close to the answers over all 1,000 classes
MIX = 0.5  # share of the adapted layer in the average
# Regions: about how many crops of each file, and one of how many small photos.
CROPS, SMALL_SHARE = 4500, 4
# Pictures in a step, weight of keeping the answers, weight of the labels: crops, small photos, whole photos.
CROP, SMALL, WHOLE = (96, 0.05, 2.0), (32, 1.0, 0.3), (64, 4.0, 0.0)
TEMPLATES = (TEMPLATE, "{}")
CACHE = Path("build/mini_cache/features")


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


def adapt(
    folder: Path, tiny_root: Path, output: Path, seed: int, regions: Sequence[Crops] = (), cache: Path = CACHE
) -> Path:
    """Adapt ``mini`` in ``folder`` to training photos of Tiny-ImageNet's base classes, unless its file says that this
    was done, and to ``regions``, if any; write it into ``output``.

    The novel classes of the base-to-novel split and all validation photos stay unseen.

    Args:
        regions: boxes of training photos, all with the same classes.
        cache: folder of image features.

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
    with safe_open(source, "pt") as file:
        metadata = dict(file.metadata() or {})
    if "regions" in metadata:
        raise UserError(f"{source} was adapted to regions already; start from one that was not")
    make_output_folder(output)
    clip = load_clip(folder / "mini.json", source)
    images = tiny_imagenet(tiny_root, "train")
    base, _ = base_novel_classes(len(images.names), NOVEL_CLASSES, SPLIT_SEED)
    images = images.select_classes(base)
    state = load_file(source)
    if "adapted" not in metadata:
        layer = layer_for_small_photos(clip, images, seed)
        state |= half_precision(layer)
        clip.model.load_state_dict({**clip.model.state_dict(), **layer})
        photos = f"Tiny-ImageNet, {len(images)} training photos of {len(base)} classes"
        metadata["adapted"] = json.dumps({"photos": photos, "steps": STEPS, "mix": MIX, "seed": seed})
    elif not regions:
        raise UserError(f"{source} was adapted to small photos already; give --regions to go on")
    if regions:
        learned, told = stage_for_regions(clip, images, regions, seed, cache)
        state |= half_precision(learned)
        metadata["regions"] = json.dumps({**told, "start": sha256_of_file(source), "seed": seed})
    weights = output / source.name
    with atomic_path(weights) as temporary:
        save_file(state, temporary, metadata)
    write_json(weights.with_suffix(".json"), json.loads((folder / "mini.json").read_text(encoding="utf-8")))
    say(f"wrote {weights}, {weights.stat().st_size:,} bytes")
    return weights


def layer_for_small_photos(clip: Clip, images: ImageSet, seed: int) -> dict[str, Tensor]:
    """The linear layer fitted to small photos, under its names in the state dict."""
    encoder = PromptedTextEncoder(clip)
    with counting("encoding Tiny-ImageNet photos") as progress:
        pooled = pooled_features(clip, images, progress)
    classes, kept = (
        encoder.encode_texts([TEMPLATE.format(name) for name in names])
        for names in (images.names, Vocabulary.load("imagenet1k").names)
    )
    layer = [f"visual.head.proj.{part}" for part in ("weight", "bias")]
    state = clip.model.state_dict()
    weight, bias = (state[name].float() for name in layer)
    labels = torch.from_numpy(np.asarray(images.labels, dtype=np.int64))
    parts = adapted_layer(weight, bias, pooled, labels, classes, kept, clip.logit_scale, seed)
    return dict(zip(layer, parts, strict=True))


def stage_for_regions(
    clip: Clip, images: ImageSet, regions: Sequence[Crops], seed: int, cache: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The last stage fitted to crops, under its names in the state dict, and what it learned from.

    Three lessons: crops of ``regions`` by their names; small photos by theirs; and the whole photos of ``regions``,
    which have no label: their answers over the 1,000 classes of ImageNet should stay.

    Args:
        images: small photos, of which every :data:`SMALL_SHARE`-th is used.
    """
    lower, encoder = LowerTrunk(clip), PromptedTextEncoder(clip)

    def maps(shown: ImageSet, what: str) -> CachedFeatures:
        with counting(f"encoding {what}") as progress:
            return cached_features(lower, shown, 0, None, 0, cache, progress=progress)

    def tables(names: Sequence[str]) -> list[Tensor]:
        return [encoder.encode_texts([template.format(name) for name in names]) for template in TEMPLATES]

    views = [max(1, round(CROPS / len(part))) for part in regions]
    crops = [
        maps(jittered(part, times, 0), f"crops of {part.source}") for part, times in zip(regions, views, strict=True)
    ]
    whole = [maps(whole_photos(part), f"photos of {part.source}") for part in regions]
    small = maps(images.subset(np.arange(0, len(images), SMALL_SHARE)), "Tiny-ImageNet photos")
    lessons = [
        Lesson(_rows(crops), *CROP, _labels(crops), tables(regions[0].names)),
        Lesson(_rows([small]), *SMALL, _labels([small]), tables(images.names)),
        Lesson(_rows(whole), *WHOLE),
    ]
    kept = encoder.encode_texts([TEMPLATE.format(name) for name in Vocabulary.load("imagenet1k").names])
    start = LastStage(clip, lower.shape)
    with counting("learning regions: steps") as progress:
        stage = taught(start, lessons, kept, clip.logit_scale, seed, progress)
    told = {
        "boxes": {part.source: len(part) for part in regions},
        "crops": sum(map(len, crops)),
        "photos": sum(map(len, whole)),
        "small photos": len(small),
    }
    trunk: Any = clip.model.visual.trunk  # type: ignore[union-attr]
    return stage.named_weights(trunk), told


def _rows(cached: Sequence[CachedFeatures]) -> np.ndarray:
    return np.concatenate([part.features[:, 0] for part in cached])


def _labels(cached: Sequence[CachedFeatures]) -> Tensor:
    return torch.from_numpy(np.concatenate([part.labels for part in cached]))
