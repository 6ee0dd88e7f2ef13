"""What prompt learning reads: cached image features, labels into a vocabulary, and the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prompt_core.data.augment import train_transform
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.few_shot import few_shot
from prompt_core.data.images import ImageSet
from prompt_core.data.layouts import open_images
from prompt_core.errors import UserError, nearest
from prompt_core.vocabulary import Vocabulary, plain_name

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip


@dataclass(frozen=True)
class TrainingData:
    """Features to learn a prompt on.

    Attributes:
        features: (n, V, E) float16 memory map, V stored views of each image, unit-norm rows.
        labels: (n,) int64 rows of ``vocabulary``.
        vocabulary: the classes that negatives are drawn from, the images' own among them.
        unreadable: keys of the images that could not be decoded.
        source: what the images are.
    """

    features: np.ndarray
    labels: np.ndarray
    vocabulary: Vocabulary
    unreadable: list[str]
    source: str


def load_training_data(cfg: CfgNode, clip: Clip, progress: Callable[[int, int], None] | None = None) -> TrainingData:
    """Open the images that ``cfg.DATA`` names, take the few-shot subset, and encode or find its features.

    Raises:
        UserError: for anything that is missing or does not fit.
    """
    if not cfg.DATA.TRAIN:
        raise UserError("DATA.TRAIN is empty; give the training images, for instance DATA.TRAIN tiny_imagenet:PATH")
    images = open_images(cfg.DATA.TRAIN, cfg.DATA.SPLIT)
    if cfg.DATA.CLASSES:
        images = images.select_classes(read_class_list(Path(cfg.DATA.CLASSES), images))
    images = few_shot(images, cfg.DATA.SHOTS, cfg.SEED)
    views = cfg.AUGMENT.STORED_VIEWS
    transform = None
    if views > 0:
        transform = train_transform(
            clip.image_size, clip.image_mean, clip.image_std, cfg.AUGMENT.RAND_AUGMENT, tuple(cfg.AUGMENT.SCALE)
        )
    cached = cached_features(
        clip,
        images,
        views,
        transform,
        cfg.SEED,
        cfg.DATA.CACHE,
        batch_size=cfg.DATA.ENCODE_BATCH,
        workers=None if cfg.DATA.WORKERS < 0 else cfg.DATA.WORKERS,
        progress=progress,
    )
    vocabulary, rows = training_vocabulary(images, cfg.DATA.VOCABULARY)
    return TrainingData(cached.features, rows[cached.labels], vocabulary, cached.unreadable, images.source)


def training_vocabulary(images: ImageSet, name: str) -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary to draw negatives from, and the row of each image class in it.

    Classes are found by id (wnid), else by name; those that the vocabulary lacks are appended to it.

    Args:
        name: a published vocabulary, a file, or an empty text for the images' own classes.
    """
    own = Vocabulary(images.names, ids=images.ids, source=images.source)
    if not name:
        return own, np.arange(len(own))
    wide = Vocabulary.load(name)
    by_id = {str(identity): row for row, identity in enumerate(wide.ids or [])}
    by_name: dict[str, int] = {}
    for row, text in enumerate(wide.names):
        by_name.setdefault(plain_name(text), row)
    rows = np.empty(len(own), dtype=np.int64)
    added: list[int] = []
    for label, (text, identity) in enumerate(zip(images.names, images.ids, strict=True)):
        found = by_id.get(str(identity), by_name.get(plain_name(text)))
        rows[label] = len(wide) + len(added) if found is None else found
        if found is None:
            added.append(label)
    if not added:
        return wide, rows
    names = [*wide.names, *(images.names[label] for label in added)]
    ids = None if wide.ids is None else [*wide.ids, *(images.ids[label] for label in added)]
    return Vocabulary(names, ids=ids, source=f"{wide.source}, with {len(added)} classes of {images.source}"), rows


def read_class_list(path: Path, images: ImageSet) -> list[int]:
    """Labels of the classes listed in a file, one id or name a line.

    Raises:
        UserError: when the file is absent or empty, or a class is unknown.
    """
    if not path.is_file():
        raise UserError(f"class list {path} does not exist")
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
