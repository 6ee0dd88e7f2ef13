"""ImageNet-21K's real size without its photos: an index of generated names and random features, through the product.

Each stage runs in a process of its own, and reads what the stages before it left in a folder: the index, the few shots,
two feature caches, a learned prompt. Only the photos and what an image tower makes of them are generated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pomp_lab.benchmarks.generated_photos import EMBEDDING, GeneratedPhotos, RandomTower, tiny_clip
from pomp_lab.benchmarks.harness import Measured, in_fresh_process, measure_memory, timed
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.images import ImageSet
from prompt_core.data.photo_index import Archive, ArchivePhotos, photo_index
from prompt_core.data.readers.class_tars import index_folder, processed_wnids
from prompt_core.data.readers.winter_21 import VAL_PHOTOS, imagenet21k
from prompt_core.data.splits import few_shot, hash_rank
from prompt_core.metrics import zero_shot_accuracy
from prompt_core.visible import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from prompt_core.clip import Clip

ARCHIVE, CACHE, RUN = "winter21_whole.tar", "cache", "run"
BATCH = 1024  # images of a batch of the evaluation


@dataclass(frozen=True)
class RealSize:
    """What is generated.

    Attributes:
        classes: the first of the 10,450 of the processed release.
        photos: of each class, of which 50 are val.
        shots: of each class.
        views: stored views of each photo.
        sampled: classes K of a training step.
        batch: images of a training step.
    """

    classes: int = 10_450
    photos: int = 1_058
    shots: int = 16
    views: int = 4
    sampled: int = 128
    batch: int = 256

    def part(self, share: int) -> RealSize:
        """The same with that share of the photos: the square root of it of classes, and of photos of each."""
        side = share**0.5
        return dataclasses.replace(
            self,
            classes=max(2, round(self.classes / side)),
            photos=max(VAL_PHOTOS + self.shots + 1, round(self.photos / side)),
            sampled=min(self.sampled, max(2, round(self.classes / side) // 2)),
        )

    @property
    def train(self) -> int:
        """Photos that are chosen for training."""
        return self.classes * min(self.shots, self.photos - VAL_PHOTOS)

    @property
    def val(self) -> int:
        """Photos of the evaluation."""
        return self.classes * VAL_PHOTOS


def measure_stages(folder: Path, size: RealSize) -> dict[str, Measured]:
    """Each stage in a fresh process of one thread: ``seconds``, ``peak_bytes`` (of the whole process), ``extra_bytes``.

    ``ratio`` is the time over that of the ``beside``, measured in the same process: the least that such work takes.

    Args:
        folder: an empty one, for 1.5 GB at full size.
    """
    measured = {}
    for name, stage in STAGES.items():
        measured[name] = in_fresh_process(stage, folder, size)
        say(f"  {name}: {shown(measured[name])}", error=True)
    return measured


def shown(stage: Measured) -> str:
    """One line."""
    peak = stage["peak_bytes"] / 2**30
    return f"{stage['seconds']:.1f} s, {stage['ratio']:.2f} times {stage['beside']}; peak {peak:.2f} GiB"


def _measured(work: Callable[[], Any], beside: Callable[[], Any], text: str) -> Measured:
    """A stage and what it is compared with; ``beside`` comes last, so that it adds nothing to the memory."""
    measured = measure_memory(work)
    least = timed(beside)[1]
    return {**measured, "beside": text, "beside_seconds": least, "ratio": measured["seconds"] / least}


def index(folder: Path, size: RealSize) -> Measured:
    """The index of class tars, whose members have generated names, places and sizes."""
    file = folder / ARCHIVE
    file.write_bytes(bytes(10_240))  # it has a size and a time, and no photo
    place = index_folder(str(file), [file])
    archives = [Archive(f"{wnid}.tar", 0, row << 30, 1 << 30) for row, wnid in enumerate(_wnids(size))]

    def build() -> dict[str, int]:
        made = photo_index(place, [file], lambda faults: iter(archives), lambda archive: _photos(archive, size))
        return {"photos": len(made.places), "disk_bytes": sum(path.stat().st_size for path in place.iterdir())}

    def names_alone() -> None:
        for archive in archives:
            _photos(archive, size)

    return _measured(build, names_alone, "the time of the names alone")


def _wnids(size: RealSize) -> tuple[str, ...]:
    return processed_wnids()[: size.classes]


def _photos(archive: Archive, size: RealSize) -> ArchivePhotos:
    """Names as ImageNet's: numbers with gaps, in no order."""
    wnid = archive.name.partition(".")[0]
    numbers = [(row * 7919 + archive.start) % 100_003 for row in range(size.photos)]
    sizes = [60_000 + number for number in numbers]
    offsets = [archive.start + row * 200_000 for row in range(size.photos)]
    return ArchivePhotos(archive, [wnid] * size.photos, [f"{wnid}_{number}.JPEG" for number in numbers], offsets, sizes)


def choose(folder: Path, size: RealSize) -> Measured:
    """Opening the index, and the few shots of all training photos."""
    images = ImageSet([], [], np.empty(0, np.int64), [], "", folder)

    def open_and_choose() -> dict[str, int]:
        nonlocal images
        images = imagenet21k(folder / ARCHIVE, "train")
        return {"photos": len(images), "chosen": len(few_shot(images, size.shots, 42)), "classes": len(images.ids)}

    def ranks_alone() -> None:
        for key in images.keys:
            hash_rank(b"", key)

    return _measured(open_and_choose, ranks_alone, "the time of a hash of each name")


def cache_training(folder: Path, size: RealSize) -> Measured:
    """The feature cache of the few shots, with several views."""
    return _cache(folder, few_shot(imagenet21k(folder / ARCHIVE, "train"), size.shots, 42), size.views)


def cache_val(folder: Path, size: RealSize) -> Measured:
    """The feature cache of all val photos."""
    return _cache(folder, imagenet21k(folder / ARCHIVE, "val"), 0)


def _cache(folder: Path, chosen: ImageSet, views: int) -> Measured:
    torch.manual_seed(0)
    fields = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    photos, clip = GeneratedPhotos(**fields), tiny_clip(folder)
    tower = RandomTower(clip.image_fingerprint, _transform(clip).fingerprint)

    def fill() -> dict[str, int]:
        cached = cached_features(
            tower, photos, views, tower if views else None, 42, folder / CACHE, batch_size=BATCH, workers=0
        )
        return {"photos": len(cached), "views": cached.features.shape[1], "disk_bytes": cached.features.nbytes}

    def features_alone() -> None:
        with open(folder / "features", "wb") as stream:
            for start in range(0, len(photos), BATCH):
                count = min(BATCH, len(photos) - start) * max(1, views)
                stream.write(tower.encode_image(torch.zeros(count, 1)).half().numpy().tobytes())
        os.unlink(folder / "features")  # noqa: PTH108

    return _measured(fill, features_alone, "the time of making and writing the features alone")


def epoch(folder: Path, size: RealSize) -> Measured:
    """One epoch of the recipe from the cache, and the prompt's files."""
    from prompt_core.config import load_config
    from prompt_core.training.batches import FeatureBatches
    from prompt_core.training.recipe import pretrain

    cfg = load_config(None, _settings(folder, size))

    def learn() -> dict[str, int]:
        code = pretrain(cfg, folder / RUN)
        return {"photos": size.train, "steps": size.train // size.batch, "exit_code": code}

    def batches_alone() -> None:
        stored = np.load(_entry(folder, size.train), mmap_mode="r")
        batches = FeatureBatches(stored, np.zeros(len(stored), np.int64), size.views)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(stored), generator=generator).numpy()
        for start in range(0, len(stored) - size.batch + 1, size.batch):
            batches.batch(order[start : start + size.batch], 0, generator)

    return _measured(learn, batches_alone, "the time of reading its batches alone")


def evaluation(folder: Path, size: RealSize) -> Measured:
    """The learned prompt on all val photos among all classes."""
    import sys
    from unittest.mock import patch

    from pomp.commands.evaluate import main

    options = ["--prompt", str(folder / RUN / "prompt.safetensors"), "--datasets", f"imagenet21k:{folder / ARCHIVE}"]
    options += ["--split", "val", "--output", str(folder / "scores"), *_settings(folder, size)]

    def score() -> dict[str, Any]:
        with patch.object(sys, "argv", ["evaluate_prompt.py", *options]), contextlib.redirect_stdout(None):
            main()
        document = json.loads((folder / "scores/metrics.json").read_text(encoding="utf-8"))
        (protocol,) = document["_protocol"].values()
        return {key: protocol[key] for key in ("images", "candidates", "split")}

    def products_alone() -> None:
        images, classes = torch.randn(BATCH, EMBEDDING), torch.randn(size.classes, EMBEDDING)
        for _ in range(-(-size.val // BATCH)):
            images @ classes.T

    return _measured(score, products_alone, "the time of its matrix products alone")


def score_memory(images: int, classes: int) -> Measured:
    """The scorer alone, on random features that are there already."""
    generator = np.random.default_rng(0)
    features = generator.standard_normal((images, EMBEDDING), dtype=np.float32).astype(np.float16)
    names = torch.from_numpy(generator.standard_normal((classes, EMBEDDING), dtype=np.float32))
    labels = generator.integers(0, classes, images)
    zero_shot_accuracy(features[:BATCH], labels[:BATCH], names)  # buffers of the libraries
    return measure_memory(lambda: zero_shot_accuracy(features, labels, names).images)


def _entry(folder: Path, photos: int) -> Path:
    """The cached features of that many photos."""
    for path in sorted((folder / CACHE).glob("*/index.json")):
        if json.loads(path.read_text(encoding="utf-8"))["images"] == photos:
            return path.with_name("features.npy")
    raise FileNotFoundError(f"no cache of {photos} photos in {folder}")


def _settings(folder: Path, size: RealSize) -> list[str]:
    chosen = {
        "MODEL.NAME": folder / "tiny.json",
        "MODEL.PRETRAINED": folder / "tiny.safetensors",
        "DATA.TRAIN": f"imagenet21k:{folder / ARCHIVE}",
        "DATA.SHOTS": size.shots,
        "DATA.CACHE": folder / CACHE,
        "AUGMENT.STORED_VIEWS": size.views,
        "AUGMENT.VIEWS": size.views,
        "LOSS.NUM_CLASSES": size.sampled,
        "OPTIM.BATCH": size.batch,
        "OPTIM.EPOCHS": 1,
        "OPTIM.WARMUP_EPOCHS": 0,
        "DEVICE": "cpu",
    }
    return [str(part) for pair in chosen.items() for part in pair]


def _transform(clip: Clip) -> Any:
    from prompt_core.data.augment import TrainTransform

    return TrainTransform(clip.image_size, clip.image_mean, clip.image_std)


STAGES = {
    "index": index,
    "16 shots": choose,
    "cache, training": cache_training,
    "cache, val": cache_val,
    "epoch": epoch,
    "evaluation": evaluation,
}
