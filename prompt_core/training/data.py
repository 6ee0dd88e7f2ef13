"""Training data: images or their cached features, labels into a vocabulary, and the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prompt_core.command_line import counting
from prompt_core.data.augment import TrainTransform
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.images import ImageSet
from prompt_core.data.sources import open_images
from prompt_core.data.splits import HALVES, few_shot, half_of
from prompt_core.errors import UserError, nearest
from prompt_core.methods.image_towers import tower_for
from prompt_core.methods.registry import build_method, method_class
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.training.batches import Batches, FeatureBatches, ImageBatches, readable_images
from prompt_core.vocabulary import Vocabulary, plain_name, vocabulary_of

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip


@dataclass(frozen=True)
class TrainingData:
    """The training data of a method.

    Attributes:
        batches: the images as the method reads them.
        labels: (n,) int64 rows of ``vocabulary``.
        vocabulary: the classes that negatives are drawn from, the images' own among them.
        unreadable: keys of the images that could not be decoded.
        source: description of the images.
        stored_views: views of each image in the cache, or in a step where images are read.
        content: sha256 over the images' names, sizes and labels; see :meth:`ImageSet.fingerprint`.
    """

    batches: Batches
    labels: np.ndarray
    vocabulary: Vocabulary
    unreadable: list[str]
    source: str
    stored_views: int
    content: str


def load_data(cfg: CfgNode, clip: Clip, ranks: Ranks = ALONE) -> TrainingData:
    """The training images as the method of ``cfg`` reads them.

    Raises:
        UserError: for anything that is missing or does not fit.
    """
    reads = method_class(cfg.METHOD.NAME).reads
    # A model that does not go with the method is refused before images are read.
    if reads == "images":
        build_method(cfg, clip)
    with counting("reading images" if reads == "images" else "encoding images") as progress:
        return load_training_data(cfg, clip, progress, reads, ranks)


def load_training_data(
    cfg: CfgNode,
    clip: Clip,
    progress: Callable[[int, int], None] | None = None,
    reads: str = "features",
    ranks: Ranks = ALONE,
) -> TrainingData:
    """Open the images that ``cfg.DATA`` names, take the few-shot subset, and compute or load its features.

    Args:
        reads: ``features``, ``raw_features`` (before the L2 norm) or ``images``, see
            :class:`prompt_core.methods.base.Method`. Images are augmented again in each epoch, with ``AUGMENT.VIEWS``
            views of each, unless ``AUGMENT.STORED_VIEWS`` is 0: then the test transform is used.
        ranks: the processes of a job, which compute the features together.

    Raises:
        UserError: for anything that is missing or does not fit.
    """
    images = training_images(cfg, cfg.DATA.SPLIT, cfg.DATA.SHOTS)
    workers = None if cfg.DATA.WORKERS < 0 else cfg.DATA.WORKERS
    views = cfg.AUGMENT.STORED_VIEWS
    transform = None
    if views > 0:
        transform = TrainTransform(
            clip.image_size, clip.image_mean, clip.image_std, cfg.AUGMENT.RAND_AUGMENT, tuple(cfg.AUGMENT.SCALE)
        )
    vocabulary, rows = vocabulary_of(images, cfg.DATA.VOCABULARY)
    content = images.fingerprint()
    if reads == "images":
        images, unreadable = readable_images(images, workers, progress, ranks)
        labels = rows[images.labels]
        photos = ImageBatches(images, labels, transform, clip.preprocess, cfg.AUGMENT.VIEWS, cfg.SEED, workers)
        return TrainingData(photos, labels, vocabulary, unreadable, images.source, photos.views, content)
    cached = cached_features(
        tower_for(reads, clip),
        images,
        views,
        transform,
        cfg.SEED,
        cfg.DATA.CACHE,
        batch_size=cfg.DATA.ENCODE_BATCH,
        workers=workers,
        progress=progress,
        ranks=ranks,
    )
    labels = rows[cached.labels]
    batches = FeatureBatches(cached.features, labels, cfg.AUGMENT.VIEWS, normalise=reads == "features")
    stored = int(cached.features.shape[1])
    return TrainingData(batches, labels, vocabulary, cached.unreadable, images.source, stored, content)


def training_images(cfg: CfgNode, split: str, shots: int) -> ImageSet:
    """The images of ``DATA.TRAIN`` and ``DATA.CLASSES``, ``shots`` of each class (-1 for all).

    Raises:
        UserError: for anything that is missing or does not fit.
    """
    if not cfg.DATA.TRAIN:
        raise UserError("DATA.TRAIN is empty; give the training images, for instance DATA.TRAIN tiny_imagenet:PATH")
    images = open_images(cfg.DATA.TRAIN, split)
    if cfg.DATA.CLASSES in HALVES:
        images = half_of(images, cfg.DATA.CLASSES)
    elif cfg.DATA.CLASSES:
        images = images.select_classes(read_class_list(Path(cfg.DATA.CLASSES), images))
    return few_shot(images, shots, cfg.SEED)


def read_class_list(path: Path, images: ImageSet) -> list[int]:
    """Labels of the classes listed in a file, one id or name per line.

    Raises:
        UserError: when the file is absent or empty, or a class is unknown.
    """
    if not path.is_file():
        raise UserError(f"class list {path} does not exist; DATA.CLASSES is a file, or one of {', '.join(HALVES)}")
    wanted = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not wanted:
        raise UserError(f"class list {path} is empty")
    by_id = {identity: label for label, identity in enumerate(images.ids)}
    by_name = {plain_name(name): label for label, name in enumerate(images.names)}
    labels = []
    for entry in wanted:
        label = by_id.get(entry, by_name.get(plain_name(entry)))
        if label is None:
            raise UserError(f"{path}: class {entry!r} is not among {images.source}{nearest(entry, by_name)}")
        labels.append(label)
    return labels
