"""Scored sets: images and the names they are scored among. Images are opened here, and encoded on demand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from pomp_lab.shapes.facts import class_rows, shape_options
from pomp_lab.tables.data_folders import PHOTOS, SHAPES, TINY, WIDE, DataFolders, photo_half, tiny_base_novel
from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json
from prompt_core.vocabulary import Vocabulary, vocabulary_of


@dataclass(frozen=True, eq=False)
class Question:
    """One column: images of some classes among some names.

    Attributes:
        dataset: the name in result files.
        asked: labels of the image set whose photos count; None for all.
        candidates: rows of the target's names to choose from.
        protocol: entries of the protocol of its numbers.
        geometry: whether alignment and uniformity are measured here.
    """

    dataset: str
    asked: np.ndarray | None
    candidates: np.ndarray
    protocol: dict[str, Any] = field(default_factory=dict)
    geometry: bool = False


@dataclass(frozen=True, eq=False)
class Target:
    """An image set with its columns.

    Attributes:
        name: of the image set.
        source: the name by which hand-written prompts find the data set's own template.
        split: split of the images.
        rows: row of ``names`` for each class of the images; -1 for classes that are not scored.
    """

    name: str
    source: str
    split: str
    images: ImageSet
    names: Vocabulary
    rows: np.ndarray
    questions: tuple[Question, ...]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What determines the numbers, apart from the method: keys, labels and names of images, candidates, columns."""
        return {
            "target": self.name,
            "split": self.split,
            "images": self.images.fingerprint(),
            "names": self.names.sha256,
            "rows": sha256_of_json(self.rows.tolist()),
            "questions": [
                [
                    question.dataset,
                    None if question.asked is None else sha256_of_json(question.asked.tolist()),
                    sha256_of_json(question.candidates.tolist()),
                    question.protocol,
                ]
                for question in self.questions
            ],
        }

    def counts(self, question: Question, labels: np.ndarray) -> np.ndarray:
        """(n,) whether images with these labels (n,) count in a column."""
        scored = self.rows[labels] >= 0
        return scored if question.asked is None else scored & np.isin(labels, question.asked)

    def images_of(self, question: Question) -> ImageSet:
        """The images of a column."""
        return self.images.subset(np.flatnonzero(self.counts(question, self.images.labels)))


def open_target(name: str, folders: DataFolders, half: str = "report") -> Target:
    """The scored set of a name: ``tiny_imagenet_base_novel``, ``imagenet_samples``, shapes, or a catalogued set.

    ``imagenet_samples_with_tiny`` are the photos among ImageNet-21K's names and those of Tiny-ImageNet's classes.

    Args:
        half: of the photos of Tiny-ImageNet and of the ImageNet classes, ``tune`` or ``report``.

    Raises:
        UserError: when its images are missing.
    """
    source = source_of(name)
    if source in SHAPES:
        return _shapes(name, source, folders, name.endswith("_base_novel"))
    if source != PHOTOS and name == source:
        images = folders.images(name, "test")
        names, rows = vocabulary_of(images, "")
        return Target(name, name, "test", images, names, rows, (Question(name, None, np.arange(len(names)), {}, True),))
    target = _photos(name, folders) if source == PHOTOS else _tiny(name, folders)
    questions = tuple(replace(question, protocol={**question.protocol, "half": half}) for question in target.questions)
    return replace(target, images=photo_half(target.images, half), questions=questions)


def source_of(name: str) -> str:
    """The images that a target needs."""
    for suffix in ("_base_novel", "_pictured", "_with_tiny"):
        name = name.removesuffix(suffix)
    return name


def _columns(name: str, parts: dict[str, np.ndarray], rows: np.ndarray, count: int, wide: bool) -> tuple[Question, ...]:
    """Base and novel images, each among its own names, the names of both, and all ``count`` names."""
    both = np.concatenate([rows[labels] for labels in parts.values()])
    questions = []
    for part, labels in parts.items():
        among = {"own": ("own classes", rows[labels])}
        if wide:
            among["both"] = ("base and novel", both)
            among["all"] = ("all names", np.arange(count))
        for key, (title, candidates) in among.items():
            words = {"images_of": f"{part} classes", "candidate_names": title}
            questions.append(Question(f"{name}_{part}_of_{key}", labels, candidates, words, key == "own"))
    return tuple(questions)


def _tiny(name: str, folders: DataFolders) -> Target:
    images = folders.images(TINY, "val")
    parts = dict(zip(("base", "novel"), map(np.array, tiny_base_novel(images)), strict=True))
    names, rows = vocabulary_of(images, WIDE)
    questions = _columns(TINY, parts, rows, len(names), True)
    return Target(name, TINY, "val", images, names, rows, questions)


def _photos(name: str, folders: DataFolders) -> Target:
    """Photos of the 1,000 ImageNet classes among these and among all; all 1,000 whichever half is scored."""
    images = folders.images(PHOTOS, "val")
    tiny = folders.images(TINY, "val") if name.endswith("_with_tiny") else None
    names = Vocabulary.load(WIDE) if tiny is None else vocabulary_of(tiny, WIDE)[0]
    place = {identity: row for row, identity in enumerate(names.ids or [])}
    # Classes that the wide list does not know (one of ImageNet-1K's is missing from it) are left out.
    rows = np.array([place.get(identity, -1) for identity in images.ids])
    narrow = Question(f"{PHOTOS}_of_1k", None, rows[rows >= 0], {"candidate_names": "own classes"}, True)
    wide = Question(f"{PHOTOS}_of_21k", None, np.arange(len(names)), {"candidate_names": "all names"})
    return Target(name, PHOTOS, "val", images, names, rows, (narrow, wide))


def _shapes(name: str, source: str, folders: DataFolders, base_novel: bool) -> Target:
    images, folder = folders.images(source, "val"), folders.folder(source)
    _check_variant(source, folders)
    pictured = np.unique(images.labels)
    if not base_novel:
        images = images.select_classes(pictured)
        names, rows = vocabulary_of(images, "")
        question = Question(source, None, np.arange(len(names)), {"candidate_names": "pictured classes"}, True)
        return Target(name, source, "val", images, names, rows, (question,))
    names, rows = vocabulary_of(images, str(folder / "class_names.txt"))
    novel = {row["name"] for row in class_rows(folder) if row["split"] == "novel"}
    is_novel = np.array([names.names[row] in novel for row in rows])
    parts = {"base": pictured[~is_novel[pictured]], "novel": pictured[is_novel[pictured]]}
    parts = {part: labels for part, labels in parts.items() if len(labels)}
    return Target(name, source, "val", images, names, rows, _columns(source, parts, rows, len(names), False))


def _check_variant(name: str, folders: DataFolders) -> None:
    """Other looks of the shapes that are learned from, so that base and novel classes are the same."""
    folder, plain = folders.folder(name), folders.folder("shapes")
    variant = name.partition("_")[2] or "plain"
    options = shape_options(folder)
    if options.get("variant") != variant:
        raise UserError(f"{folder} holds the variant {options.get('variant')!r} of the shapes, expected {variant!r}")
    if variant != "plain" and (plain / "shapes.json").is_file():
        expected = shape_options(plain)
        for key in ("seed", "classes", "classification_classes"):
            if expected.get(key) != options.get(key):
                raise UserError(
                    f"{folder} was made with another {key} than {plain} ({options.get(key)}, not "
                    f"{expected.get(key)}); make it again with the same options"
                )
