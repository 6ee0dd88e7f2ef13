"""Image features of examples, computed once: as they are, and in augmented views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pomp.learning.examples import Examples
from prompt_core.data.augment import TrainTransform
from prompt_core.data.feature_cache import CachedFeatures, cached_features
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.data.images import ImageSet


@dataclass(frozen=True, eq=False)
class EncodedExamples:
    """Examples as the frozen image tower sees them; images that cannot be read are gone.

    Attributes:
        words: C words.
        plain: (n, E) unit-norm, by CLIP's own preparation.
        views: (n, V, E) to learn on: the same, then augmented ones.
        labels: (n,) rows of ``words``.
        right: (n, C) booleans, every word that a person gave.
        photo: (n,) the photo of each.
        nothing: (m, E) photos that show none of the words.
        unreadable: their names.
        source, fingerprint: of the images, for records.
    """

    words: Vocabulary
    plain: np.ndarray
    views: np.ndarray
    labels: np.ndarray
    right: np.ndarray
    photo: np.ndarray
    nothing: np.ndarray
    unreadable: list[str]
    source: str
    fingerprint: str


def encode_examples(
    clip: Clip,
    examples: Examples,
    cfg: CfgNode,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> EncodedExamples:
    """The features of examples, from the cache or by the image tower.

    Args:
        cfg: ``AUGMENT`` says how many views there are, and of what kind.
        cache: folder of the features.

    Raises:
        UserError: when more than 1 % of the photos cannot be read, or the cache cannot be written.
    """
    plain = _encode(clip, examples.images, None, 1, cfg, cache, progress)
    features = np.asarray(plain.features, dtype=np.float32)  # (n, 1, E)
    if cfg.AUGMENT.STORED_VIEWS > 1:
        augment = cfg.AUGMENT
        transform = TrainTransform(
            clip.image_size, clip.image_mean, clip.image_std, augment.RAND_AUGMENT, tuple(augment.SCALE)
        )
        more = _encode(clip, examples.images, transform, augment.STORED_VIEWS - 1, cfg, cache, progress)
        views = np.concatenate((features, np.asarray(more.features, dtype=np.float32)), axis=1)
    else:
        views = features
    nothing = np.empty((0, clip.embed_dim), dtype=np.float32)
    if len(examples.nothing):
        nothing = np.asarray(_encode(clip, examples.nothing, None, 1, cfg, cache, None).features[:, 0], np.float32)
    kept = plain.indices
    return EncodedExamples(
        examples.words,
        features[:, 0],
        views,
        plain.labels,
        examples.right[kept],
        examples.photo[kept],
        nothing,
        plain.unreadable,
        examples.images.source,
        examples.images.fingerprint(),
    )


def _encode(
    clip: Clip,
    images: ImageSet,
    transform: TrainTransform | None,
    views: int,
    cfg: CfgNode,
    cache: Path,
    progress: Callable[[int, int], None] | None,
) -> CachedFeatures:
    workers = None if cfg.DATA.WORKERS < 0 else cfg.DATA.WORKERS
    return cached_features(
        clip, images, views if transform else 0, transform, cfg.SEED, cache, cfg.DATA.ENCODE_BATCH, workers, progress
    )
