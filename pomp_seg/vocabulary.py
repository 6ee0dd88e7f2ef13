"""The classes of a segmenter, which of them training saw, and class names given by users."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor

from pomp_seg.data.label_sets import LABEL_SETS, label_set
from pomp_seg.data.registration import register_configured, registered_metadata
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary, plain_name, read_vocabulary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classes:
    """Class names, and which of them were seen in training (None: not known)."""

    names: tuple[str, ...]
    seen: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        """Raises UserError when names and flags differ in number, or there are no names."""
        if not self.names:
            raise UserError("no class was given; name at least one")
        if self.seen is not None and len(self.seen) != len(self.names):
            raise UserError(f"{len(self.names)} class names were given with {len(self.seen)} flags of what was seen")

    @property
    def seen_mask(self) -> Tensor | None:
        """(C,) bool, or None."""
        return None if self.seen is None else torch.tensor(self.seen)


def dataset_classes(dataset: str) -> Classes:
    """Classes of a registered data set: ``stuff_classes`` and, where there is a split, ``trainable_flag``.

    Raises:
        UserError: when the data set has no such metadata.
    """
    metadata = MetadataCatalog.get(dataset)
    names: Sequence[str] | None = metadata.get("stuff_classes")
    if not names:
        raise UserError(f"data set {dataset!r} has no class names; register it with stuff_classes in its metadata")
    flags: Sequence[Any] | None = metadata.get("trainable_flag")
    return Classes(tuple(name.strip() for name in names), None if flags is None else tuple(map(bool, flags)))


def batch_classes(batch: Sequence[dict[str, Any]], given: Classes | None) -> Classes:
    """The classes set on the model, else those of the data set that the batch comes from.

    A batch from several data sets requires the same classes. Which of them were seen is known where all agree.

    Raises:
        UserError: when neither is known, or the batch mixes data sets with different classes.
    """
    datasets = sorted({str(example.get("meta", {}).get("dataset_name", "")) for example in batch})
    if given is not None:
        # The same names as the data set's: which of them training saw is still known.
        if given.seen is None and len(datasets) == 1 and datasets[0] in MetadataCatalog.list():
            of_dataset = dataset_classes(datasets[0])
            return of_dataset if of_dataset.names == given.names else given
        return given
    if datasets == [""]:
        raise UserError("the segmenter has no classes; set MODEL.VOCABULARY, or use pomp_seg.set_classes")
    first, *others = (dataset_classes(name) for name in datasets)
    if any(other.names != first.names for other in others):
        raise UserError(f"a batch mixes the data sets {', '.join(datasets)}, whose classes differ; expected the same")
    return first if all(other.seen == first.seen for other in others) else Classes(first.names)


def read_class_names(given: str | Sequence[str] | Vocabulary) -> list[str]:
    """Class names given by a user, see :meth:`pomp_seg.predictor.OpenVocabularySegmenter.set_vocabulary`.

    Raises:
        UserError: an absent file, a class matrix, blank or repeated names.
    """
    if not isinstance(given, str):
        names = list(getattr(given, "names", given))
        return [name.strip() for name in Vocabulary(names, source="vocabulary").check().names]
    if given in LABEL_SETS:
        return list(label_set(given).vocabulary.names)
    if Path(given).suffix in (".npy", ".safetensors"):
        raise UserError(
            f"vocabulary {given} is a class matrix; a segmenter encodes names itself: give names, or a file of names"
        )
    return [name.strip() for name in read_vocabulary(given).names]


def training_names(cfg: CfgNode) -> set[str] | None:
    """Plain names of the classes of ``DATASETS.TRAIN``; None where they are unknown here."""
    names: set[str] = set()
    try:
        register_configured(cfg)
        for dataset in cfg.DATASETS.TRAIN:
            registered_metadata(dataset)
            classes = dataset_classes(dataset)
            flags = classes.seen or (True,) * len(classes.names)
            names |= {plain_name(name) for name, seen in zip(classes.names, flags, strict=True) if seen}
    except UserError as error:
        logger.warning("which classes training saw is not known, all count as unseen: %s", error)
        return None
    return names or None
