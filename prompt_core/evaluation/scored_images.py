"""A test set: images with their features, and the candidates that they are scored among."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_core.data.encode_photos import ImageTower
from prompt_core.data.feature_cache import CachedFeatures, cached_features
from prompt_core.files import sha256_of_json
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.vocabulary import Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from prompt_core.data.images import ImageSet

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class TestSet:
    """Images with their features, and the candidates that they are scored among.

    Attributes:
        features: (n, E) outputs of a method's image tower.
        labels: (n,) rows of ``candidates``.
        candidates: C names to choose from.
        unreadable: keys of the images that could not be decoded.
        images_sha256: hash of the image set.
        source: description of the images.
        rows: (C,) rows of the candidates in the larger vocabulary that :meth:`among` chose them from; all rows for the
            whole vocabulary. Class features of the larger one, indexed by them, are those of the candidates.
    """

    __test__ = False  # the name is not pytest's

    features: np.ndarray
    labels: np.ndarray
    candidates: Vocabulary
    unreadable: Sequence[str] = ()
    images_sha256: str = ""
    source: str = ""
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.rows):
            object.__setattr__(self, "rows", np.arange(len(self.candidates)))

    @classmethod
    def from_cache(
        cls, cached: CachedFeatures, images: ImageSet, candidates: Vocabulary, rows: np.ndarray, source: str = ""
    ) -> TestSet:
        """The images of a cache entry.

        Args:
            images: the images that were cached.
            rows: row of ``candidates`` for each class of ``images``.
            source: description of the images; by default their own.
        """
        return cls(
            np.asarray(cached.features[:, 0], dtype=np.float32),
            rows[cached.labels],
            candidates,
            cached.unreadable,
            images.fingerprint(),
            source or images.source,
        )

    @property
    def wide_labels(self) -> np.ndarray:
        """(n,) rows of the larger vocabulary."""
        return self.rows[self.labels]

    def among(self, rows: np.ndarray, images: np.ndarray | None = None) -> TestSet:
        """The same images, or those that ``images`` ((n,) booleans or positions) chooses, among fewer candidates.

        Args:
            rows: (C,) rows of the current candidates.
        """
        chosen = slice(None) if images is None else images
        labels = self.labels[chosen]
        place = np.full(len(self.candidates), -1)
        place[rows] = np.arange(len(rows))
        everything = np.array_equal(rows, np.arange(len(self.candidates)))
        return TestSet(
            self.features[chosen],
            np.where(labels < 0, -1, place[labels]),
            self.candidates if everything else self.candidates[rows],
            self.unreadable,
            self.images_sha256,
            self.source,
            self.rows[rows],
        )

    def protocol(self, split: str, merge_namesakes: bool, part: str = "all") -> dict[str, Any]:
        """The ``_protocol`` entry of numbers on this set.

        Args:
            part: of the classes, see :func:`prompt_core.evaluation.protocol.class_parts`.
        """
        from prompt_core import __version__

        return {
            "split": split,
            **({} if part == "all" else {"images_of": f"{part} classes"}),
            "metric": "top-1 over all images (micro)",
            "candidates": len(self.candidates),
            "namesakes": "merged" if merge_namesakes else "separate",
            "images": len(self.labels),
            "unreadable": list(self.unreadable),
            "scorer": f"prompt_core {__version__}",
            "images_sha256": self.images_sha256,
            "annotation_sha256": sha256_of_json(self.labels.tolist()),
            "vocabulary_sha256": self.candidates.sha256,
            "source": self.source,
        }


def load_test_set(
    tower: ImageTower,
    images: ImageSet,
    vocabulary: str,
    cache: str | Path,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> TestSet:
    """Encode ``images``, by all processes of a job, or load their features from the cache.

    Args:
        tower: the frozen model, or the tower of a method (:func:`prompt_core.methods.image_towers.image_tower`).
        vocabulary: candidates beyond the images' own classes: a published vocabulary or a file; empty for none.
        cache: folder of image features.
    """
    cached = cached_features(tower, images, 0, None, 0, cache, progress=progress, ranks=ranks)
    return TestSet.from_cache(cached, images, *vocabulary_of(images, vocabulary))
