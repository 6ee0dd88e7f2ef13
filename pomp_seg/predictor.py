"""From photos to label maps of any class names: the model is loaded once, the classes can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pomp_engine.trained_weights import load_trained
from pomp_seg.best_classes import best_classes
from pomp_seg.build import build_segmenter, set_classes
from pomp_seg.checkpoint import load_weights
from pomp_seg.checks import check_closed_classes
from pomp_seg.data.registration import register_configured, registered_metadata
from pomp_seg.data.semantic_mapper import build_test_mapper
from pomp_seg.models.per_pixel import ZeroShotPerPixelModel
from pomp_seg.models.region_classifier import ProposalClipClassifier
from pomp_seg.pixel_shares import NONE_OF_THESE
from pomp_seg.views import with_views
from pomp_seg.vocabulary import Classes, dataset_classes, read_class_names, training_names
from prompt_core.data.open_photo import read_photo
from prompt_core.documents.collector import collector_paused
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary, plain_name

if TYPE_CHECKING:
    from detectron2.config import CfgNode

# Pixels whose scores are added up at once: 32 MiB of double precision.
AT_ONCE = 2**22
# Pixels to which embeddings are enlarged; photos of COCO and VOC have at most 410,000.
LARGEST = 2**19


@dataclass(frozen=True)
class Segmentation:
    """The classes of one photo's pixels.

    Attributes:
        labels: (H, W) int32, the class index of each pixel of the photo.
        class_names: C names; the last is :data:`pomp_seg.pixel_shares.NONE_OF_THESE` where the segmenter may say so, as
            it does outside all regions of ``MODEL.PROPOSALS.FILE``.
        shares: (C,) of all pixels, in 0..1, adding up to 1.
        scores: (C,) mean score of the class over its own pixels, 0 where it has none. Scores order the classes of a
            pixel; they are not probabilities and do not add up to 1. With ``MODEL.SEM_SEG_HEAD.BACKGROUND`` they are
            own shares, and that of "none of these" is one minus the best of them.
        background: C flags of the classes that only stand for everything else.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    shares: np.ndarray
    scores: np.ndarray
    background: tuple[bool, ...]

    @property
    def present(self) -> list[int]:
        """Indices of the classes that have pixels, most pixels first."""
        return [int(index) for index in np.argsort(-self.shares, kind="stable") if self.shares[index] > 0]


class OpenVocabularySegmenter:
    """A segmenter with the photo size of its configuration.

    Args:
        model: a segmenter.
        cfg: its configuration. Its classes are those of ``MODEL.VOCABULARY``, else those of its test or training set,
            until others are set.

    Raises:
        UserError: a model that classifies given regions and so gives no label maps.
    """

    def __init__(self, model: nn.Module, cfg: CfgNode) -> None:
        if isinstance(model, ProposalClipClassifier):
            raise UserError(
                "META_ARCHITECTURE ProposalClipClassifier only tunes a prompt; give the configuration of a segmenter"
            )
        self.model = model.eval()
        self.cfg = cfg
        self._mapper = build_test_mapper(cfg)
        self._tested = with_views(self.model, cfg).eval()
        self._classes: Classes | None = None
        self._background: tuple[bool, ...] = ()
        self._none_below = -1.0  # score of pixels that show none of the words
        if cfg.MODEL.VOCABULARY:
            self.set_vocabulary(cfg.MODEL.VOCABULARY)

    @classmethod
    @collector_paused()
    def load(cls, cfg: CfgNode) -> OpenVocabularySegmenter:
        """Build the segmenter and load ``MODEL.WEIGHTS``.

        Raises:
            UserError: no weights, weights that lack some of the segmenter's, or anything that :func:`build_segmenter`
                and :func:`load_weights` refuse.
        """
        segmenter = cls(build_segmenter(cfg), cfg)
        load_trained(segmenter.model, cfg, load_weights, "segmenter")
        return segmenter

    @property
    def class_names(self) -> list[str]:
        """C names, in the order of the label values."""
        return [*self._current().names, *self._none]

    @property
    def background(self) -> tuple[bool, ...]:
        """C flags of the classes that only stand for everything else."""
        self._current()
        return (*self._background, *(True for _ in self._none))

    @property
    def _none(self) -> tuple[str, ...]:
        return (NONE_OF_THESE,) if self._none_below >= 0 else ()

    def set_vocabulary(
        self, vocabulary: str | Sequence[str] | Vocabulary, background: str | Sequence[str] = ""
    ) -> None:
        """Set other classes; nothing is loaded again.

        The two scores of a region are weighted by whether training saw the class: names among the classes of
        ``DATASETS.TRAIN`` count as seen. Pixels may show none of these words, see
        ``MODEL.SEM_SEG_HEAD.NONE_OF_THESE``.

        Args:
            vocabulary: names; or a text: a published vocabulary's or label set's name, a file of names, or names
                joined by commas.
            background: names of what else may be present, likewise; names also in ``vocabulary`` are left out.

        Raises:
            UserError: an absent file, a class matrix, blank or repeated names, a segmenter with a closed list of
                classes.
        """
        words = read_class_names(vocabulary)
        asked = {plain_name(word) for word in words}
        others = [word for word in read_class_names(background) if plain_name(word) not in asked] if background else []
        names = [*words, *others]
        known = training_names(self.cfg)
        seen = None if known is None else [plain_name(name) in known for name in names]
        set_classes(self.model, names, seen)
        self._classes = Classes(tuple(names), None if seen is None else tuple(seen))
        self._background = (False,) * len(words) + (True,) * len(others)
        share = self.cfg.MODEL.SEM_SEG_HEAD.NONE_OF_THESE
        # outside all regions of a file every score is 0
        self._none_below = share if share > 0 or self.cfg.MODEL.PROPOSALS.FILE else -1.0

    def set_dataset(self, dataset: str) -> None:
        """Take the classes of a registered data set, with its own split into seen and unseen, as an evaluation does.

        Each pixel gets one of them.

        Raises:
            UserError: an unknown data set; another number of classes than a closed list has.
        """
        registered_metadata(dataset)
        classes = dataset_classes(dataset)
        if hasattr(self.model, "clip_adapter"):
            set_classes(self.model, classes.names, classes.seen)
        else:
            check_closed_classes(self.model, dataset)
        self._classes, self._background, self._none_below = classes, (False,) * len(classes.names), -1.0

    def __call__(self, photo: str | Path | np.ndarray, name: str = "") -> Segmentation:
        """The classes of one photo's pixels.

        Args:
            photo: a file, or (H, W, 3) uint8 in RGB.
            name: of the photo, by which its regions are found in ``MODEL.PROPOSALS.FILE``; where left out, its file.

        Raises:
            UserError: when the file is not a photo, or the array is of another kind; when that file has no regions of
                the photo.
        """
        pixels = photo if isinstance(photo, np.ndarray) else read_photo(photo)
        labels, best = self.best(pixels, name or ("" if isinstance(photo, np.ndarray) else str(photo)))
        names = tuple(self.class_names)
        if self._none:
            none = best <= self._none_below
            labels = torch.where(none, len(names) - 1, labels)
            best = torch.where(none, 1 - best, best)
        counts, sums = counts_and_sums(labels, best, len(names))
        return Segmentation(
            labels.numpy(),
            names,
            (counts / counts.sum()).numpy(),
            (sums / counts.clamp(min=1)).numpy(),
            self.background,
        )

    def best(self, pixels: np.ndarray, name: str = "") -> tuple[Tensor, Tensor]:
        """The best of the classes for each pixel of (H, W, 3) uint8 in RGB, and its score, (H, W) each, on the CPU.

        Raises:
            UserError: when the array is of another kind.
        """
        self._current()
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise UserError(f"a photo of shape (H, W, 3) in uint8 is expected, given {pixels.shape} in {pixels.dtype}")
        height, width = pixels.shape[:2]
        example: dict[str, Any] = {"image": self._resized(pixels), "file_name": name}
        if self.cfg.MODEL.PROPOSALS.FILE:
            self.model.proposal_file.require(name)  # type: ignore[union-attr, operator]
            example |= {"photo_size": (height, width)}
        # Some enlarge embeddings or masks instead of scores, and colours are compared with scores of their size.
        crf = self.cfg.TEST.DENSE_CRF
        if crf or isinstance(self.model, ZeroShotPerPixelModel) or getattr(self.model, "resize_masks", False):
            example |= dict(zip(("height", "width"), enlarged_size(height, width), strict=True))
        if crf:
            size = example["width"], example["height"]
            example["photo"] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        with torch.inference_mode():
            maps = self._tested([example])[0]["sem_seg"]  # (C, h, w)
            return best_classes(maps, (height, width))

    def _resized(self, pixels: np.ndarray) -> Tensor:
        """(3, h, w) uint8 in the order of INPUT.FORMAT."""
        given = pixels if self._mapper.image_format == "RGB" else pixels[:, :, ::-1]
        try:
            resized = self._mapper.resize.get_transform(given).apply_image(np.ascontiguousarray(given))
        except ValueError as error:  # Pillow's, for a strip whose shorter side would get no pixel
            raise UserError(
                f"a photo of {pixels.shape[1]} x {pixels.shape[0]} pixels (width x height) is too narrow to be resized "
                f"({error}); crop it"
            ) from error
        return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))

    def _current(self) -> Classes:
        """The classes; those of the configuration's own data set where none were set."""
        if self._classes is None:
            datasets = (*self.cfg.DATASETS.TEST, *self.cfg.DATASETS.TRAIN)
            if not datasets:
                raise UserError("the segmenter has no classes; give --vocabulary, or set MODEL.VOCABULARY")
            register_configured(self.cfg)
            self.set_dataset(datasets[0])
        assert self._classes is not None
        return self._classes


def enlarged_size(height: int, width: int) -> tuple[int, int]:
    """The size, at most that of a photo, to which embeddings or masks are enlarged: :data:`LARGEST` pixels or less.

    Scores are enlarged from there. The embeddings of 12 megapixels would take 6 GB, and as much again to normalise.
    """
    scale = min(1.0, (LARGEST / (height * width)) ** 0.5)
    return max(1, int(height * scale)), max(1, int(width * scale))


def counts_and_sums(labels: Tensor, best: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Pixels of each class and the sum of their scores, (C,) float64 each, added pixel by pixel.

    Args:
        labels: (H, W) class indices.
        best: (H, W) scores.
    """
    counts, sums = torch.zeros(2, num_classes, dtype=torch.float64)
    for indices, scores in zip(labels.flatten().split(AT_ONCE), best.flatten().split(AT_ONCE), strict=True):
        counts += torch.bincount(indices, minlength=num_classes)
        sums.index_add_(0, indices, scores.double())
    return counts, sums
