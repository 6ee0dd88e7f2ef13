"""Label sets of semantic segmentation: class names in the order of label values, and which of them training sees.

The name lists are in ``assets/``, ADE20K's 150 among the vocabularies of ``prompt_core``. The 847 classes of full
ADE20K are not part of the package: ``datasets/prepare.py ade20k_full`` lists them from the user's own copy, see
:func:`read_label_set`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from pomp_seg.data.catalog import SegmentationEntry
from prompt_core.documents.schema import check
from prompt_core.errors import UserError, nearest
from prompt_core.files import read_json
from prompt_core.vocabulary import PUBLISHED, Vocabulary, plain_name

# Name: (file in assets, whether only the seen classes, with label values 0, 1, … among themselves)
_FILES = {
    "coco_stuff": ("coco_stuff", False),  # 171
    "coco_stuff_base": ("coco_stuff", True),  # 156
    "voc": ("voc", False),  # 20
    "voc_base": ("voc", True),  # 15
    "pascal_context": ("pascal_context", False),  # 59
    "ade20k": (None, False),  # 150
    "camvid": ("camvid", False),  # 11
    "cityscapes": ("cityscapes", False),  # 19
    "coco_panoptic": ("coco_panoptic", False),  # 133
    "coco_small": ("coco_panoptic", False),  # 133, with the split of coco_small_unseen.json
    "coco_small_base": ("coco_panoptic", True),  # 107
}
LABEL_SETS = tuple(_FILES)
# Of 8-bit and 16-bit label images
IGNORE_LABEL, IGNORE_LABEL_16 = 255, 65535


@dataclass(frozen=True)
class LabelSet:
    """Classes of a data set in the order of its label values 0, 1, …

    Attributes:
        vocabulary: names, and the ids that the data set's own label files use.
        seen: sorted indices of the classes that training sees; None where the data set has no such split.
    """

    vocabulary: Vocabulary
    seen: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.seen is not None:
            seen = tuple(sorted(set(map(int, self.seen))))
            if not seen or seen[0] < 0 or seen[-1] >= len(self.vocabulary):
                raise UserError(f"seen classes {list(self.seen)[:5]}… are not among the {len(self.vocabulary)} classes")
            object.__setattr__(self, "seen", seen)

    def __len__(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def unseen(self) -> tuple[int, ...]:
        """Indices of the classes that training does not see; empty without a split."""
        seen = set(range(len(self)) if self.seen is None else self.seen)
        return tuple(index for index in range(len(self)) if index not in seen)

    @cached_property
    def trainable_flag(self) -> list[int] | None:
        """1 for a seen class, 0 for an unseen one; None without a split. The name is that of ZSSeg's metadata."""
        if self.seen is None:
            return None
        unseen = set(self.unseen)
        return [int(index not in unseen) for index in range(len(self))]

    @property
    def ignore_label(self) -> int:
        """The value of pixels without a class: 255, or 65535 where that may be a class."""
        return default_ignore_label(len(self))

    def base(self) -> LabelSet:
        """Only the seen classes, in the same order, with their own label values 0, 1, …"""
        if self.seen is None:
            return self
        return LabelSet(self.vocabulary[list(self.seen)], tuple(range(len(self.seen))))


def default_ignore_label(num_classes: int) -> int:
    """255 for at most 255 classes, whose labels fit 8 bits; else 65535."""
    return IGNORE_LABEL if num_classes <= IGNORE_LABEL else IGNORE_LABEL_16


@cache
def label_set(name: str) -> LabelSet:
    """A label set of the package by name, one of :data:`LABEL_SETS`.

    Raises:
        UserError: for an unknown name, with the nearest known ones.
    """
    if name not in _FILES:
        raise UserError(f"label set {name!r} is unknown{nearest(name, LABEL_SETS)}; expected {', '.join(LABEL_SETS)}")
    file, base = _FILES[name]
    if file is None:
        return LabelSet(Vocabulary.load(name))
    document = read_asset(f"{file}.json")
    unseen = read_asset("coco_small_unseen.json")["unseen"] if name.startswith("coco_small") else document.get("unseen")
    labels = _from_document(document, unseen, name)
    return labels.base() if base else labels


def read_label_set(
    classes: str | os.PathLike[str] | Vocabulary, seen: str | os.PathLike[str] | Iterable[str] | None = None
) -> LabelSet:
    """Classes of a user's own data.

    Args:
        classes: a name of :data:`LABEL_SETS`, what :meth:`Vocabulary.load` reads, or a vocabulary. A JSON file may
            also hold the list ``unseen`` in addition to ``names``.
        seen: names of the classes that training sees, or a file of them; None keeps the split that ``classes`` has.

    Raises:
        UserError: unknown name or file, or seen classes that are not among the classes.
    """
    labels = _read_classes(classes)
    if seen is None:
        return labels
    is_file = isinstance(seen, (str, os.PathLike))
    names = Vocabulary.load(Path(seen)).names if is_file else list(seen)  # type: ignore[arg-type]
    of = f"seen classes of {seen}" if is_file else "seen classes"
    return LabelSet(labels.vocabulary, tuple(_indices(names, labels.vocabulary, of)))


def entry_classes(entry: SegmentationEntry, root: Path) -> LabelSet:
    """The classes of a known data set below ``root``.

    Raises:
        UserError: when they are listed in a file that has not been prepared yet.
    """
    if not entry.classes_in_file:
        return label_set(entry.label_set)
    path = root / entry.label_set
    if not path.is_file():
        raise UserError(f"data set {entry.name!r} needs {path}, which does not exist; {entry.advice(root)}")
    classes = read_label_set(path)
    return classes.base() if entry.base_of_file else classes


def read_asset(file: str) -> dict[str, Any]:
    """A JSON file of ``assets/``."""
    document: dict[str, Any] = read_json(Path(str(resources.files("pomp_seg") / "data" / "assets" / file)))
    return document


def _read_classes(classes: str | os.PathLike[str] | Vocabulary) -> LabelSet:
    if isinstance(classes, Vocabulary):
        return LabelSet(classes)
    key = os.fspath(classes)
    if key in _FILES:
        return label_set(key)
    if key not in PUBLISHED and not Path(key).is_file():
        known = (*LABEL_SETS, *PUBLISHED)
        raise UserError(f"classes {key!r} are neither a file nor one of {', '.join(known)}{nearest(key, known)}")
    labels = LabelSet(Vocabulary.load(key))
    if Path(key).suffix.lower() == ".json" and Path(key).is_file():
        document = read_json(key)
        if isinstance(document, dict) and "unseen" in document:
            return _split(labels.vocabulary, document["unseen"], key)
    return labels


def _from_document(document: dict[str, Any], unseen: Sequence[str] | None, source: str) -> LabelSet:
    vocabulary = Vocabulary(document["names"], ids=document.get("ids"), source=document.get("source", source)).check()
    return LabelSet(vocabulary) if unseen is None else _split(vocabulary, unseen, source)


def _split(vocabulary: Vocabulary, unseen: Any, source: str) -> LabelSet:
    check(unseen, list[str], source, "unseen")
    rows = set(_indices(unseen, vocabulary, f"unseen classes of {source}"))
    return LabelSet(vocabulary, tuple(index for index in range(len(vocabulary)) if index not in rows))


def _indices(names: Iterable[str], vocabulary: Vocabulary, what: str) -> list[int]:
    of_name = {plain_name(name): index for index, name in enumerate(vocabulary.names)}
    rows = []
    for name in names:
        if plain_name(name) not in of_name:
            raise UserError(f"{what}: {name!r} is not among the {len(vocabulary)} classes{nearest(name, vocabulary)}")
        rows.append(of_name[plain_name(name)])
    return rows
