"""What is scored: whose images, among which names. Images are opened here, encoded when a method needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pomp_lab.comparisons.prompts import halves_by_key
from pomp_lab.tables import sources
from pomp_lab.tables.sources import SHAPES, find_source, open_source, tiny_base_novel
from prompt_core.data.images import ImageSet
from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_json
from prompt_core.training.data import training_vocabulary
from prompt_core.vocabulary import Vocabulary

# The half of the photos that settings were not tuned on.
HALF = "report"


@dataclass(frozen=True, eq=False)
class Question:
    """One column: images of some classes among some names.

    Attributes:
        dataset: the name in result files.
        asked: labels of the image set whose photos count; None for all.
        candidates: rows of the target's names to choose from.
        words: of the protocol.
        geometry: whether alignment and uniformity are measured here.
    """

    dataset: str
    asked: np.ndarray | None
    candidates: np.ndarray
    words: dict[str, Any] = field(default_factory=dict)
    geometry: bool = False


@dataclass(frozen=True, eq=False)
class Target:
    """An image set with its columns.

    Attributes:
        name: of the image set.
        source: as hand-written prompts ask for a data set's own template.
        split: that the images are of.
        rows: row of ``names`` for each class of the images; -1 for classes that are not asked.
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
        """What decides the numbers, apart from the method: keys, labels and names of images, candidates, columns."""
        return {
            "target": self.name,
            "split": self.split,
            "images": self.images.fingerprint(),
            "names": self.names.sha256,
            "rows": sha256_of_json(self.rows.tolist()),
            "questions": [
                [
                    each.dataset,
                    None if each.asked is None else sha256_of_json(each.asked.tolist()),
                    sha256_of_json(each.candidates.tolist()),
                    each.words,
                ]
                for each in self.questions
            ],
        }

    def images_of(self, question: Question) -> ImageSet:
        """The images that a column is a number of."""
        return self.images.subset(np.flatnonzero(self._asked(question)))

    def _asked(self, question: Question) -> np.ndarray:
        """(n,) whether an image counts."""
        known = self.rows[self.images.labels] >= 0
        return known if question.asked is None else known & np.isin(self.images.labels, question.asked)

    def counts(self) -> dict[str, tuple[int, int]]:
        """For each question its numbers of images and of candidates."""
        return {each.dataset: (int(self._asked(each).sum()), len(each.candidates)) for each in self.questions}


def open_target(name: str, root: Path) -> Target:
    """What is scored under a name: ``tiny_imagenet_base_novel``, ``imagenet_samples``, shapes, or a catalogued set.

    Raises:
        UserError: when its images are not there.
    """
    if line := find_source(source_of(name)).missing(root):
        raise UserError(line)
    return SPECIAL[name](root) if name in SPECIAL else _benchmark(name, root)


def source_of(name: str) -> str:
    """The images that a target needs."""
    if name == "tiny_imagenet_base_novel":
        return "tiny_imagenet"
    return name.removesuffix("_base_novel").removesuffix("_pictured")


def _benchmark(name: str, root: Path) -> Target:
    images = open_source(name, root, "test")
    names, rows = training_vocabulary(images, "")
    question = Question(name, None, np.arange(len(names)), geometry=True)
    return Target(name, name, "test", images, names, rows, (question,))


def _columns(name: str, parts: dict[str, np.ndarray], rows: np.ndarray, count: int, wide: bool) -> tuple[Question, ...]:
    """Base and novel images, each among its own names, the names of both, and all ``count`` names."""
    both = np.concatenate([rows[labels] for labels in parts.values()])
    questions = []
    for part, labels in parts.items():
        among = {"own": ("own classes", rows[labels])}
        if wide:
            among["both"] = ("base and novel", both)
            among["all"] = ("all names", np.arange(count))
        for key, (words, candidates) in among.items():
            questions.append(
                Question(
                    f"{name}_{part}_of_{key}",
                    labels,
                    candidates,
                    {"images_of": f"{part} classes", "candidate_names": words},
                    key == "own",
                )
            )
    return tuple(questions)


def _tiny(root: Path) -> Target:
    images = open_source("tiny_imagenet", root, "val")
    parts = dict(zip(("base", "novel"), map(np.array, tiny_base_novel(images)), strict=True))
    names, rows = training_vocabulary(images, sources.WIDE)
    half = halves_by_key(images)[1]
    questions = _columns("tiny_imagenet", parts, rows, len(names), True)
    return Target("tiny_imagenet_base_novel", "tiny_imagenet", "val", half, names, rows, _half(questions))


def _photos(root: Path) -> Target:
    """Photos of the 1,000 ImageNet classes among these and among all; all 1,000 whichever half is scored."""
    images = open_source("imagenet_samples", root, "val")
    names = Vocabulary.load(sources.WIDE)
    place = {identity: row for row, identity in enumerate(names.ids or [])}
    # Classes that the wide list does not know (one of ImageNet-1K's is missing from it) are left out.
    rows = np.array([place.get(identity, -1) for identity in images.ids])
    among = {"1k": ("own classes", rows[rows >= 0]), "21k": ("all names", np.arange(len(names)))}
    questions = tuple(
        Question(f"imagenet_samples_of_{key}", None, candidates, {"candidate_names": words}, key == "1k")
        for key, (words, candidates) in among.items()
    )
    half = halves_by_key(images)[1]
    return Target("imagenet_samples", "imagenet_samples", "val", half, names, rows, _half(questions))


def _half(questions: tuple[Question, ...]) -> tuple[Question, ...]:
    return tuple(dataclasses.replace(each, words={**each.words, "half": HALF}) for each in questions)


def _shapes(name: str, root: Path, split_classes: bool) -> Target:
    folder = find_source(name).place(root)
    _check_variant(name, folder, find_source("shapes").place(root))
    images = open_source(name, root, "val")
    pictured = np.unique(images.labels)
    if not split_classes:
        images = images.select_classes(pictured)
        names, rows = training_vocabulary(images, "")
        question = Question(name, None, np.arange(len(names)), {"candidate_names": "pictured classes"}, True)
        return Target(f"{name}_pictured", name, "val", images, names, rows, (question,))
    names, rows = training_vocabulary(images, str(folder / "class_names.txt"))
    novel = {str(each["name"]) for each in read_json(folder / "classes.json")["classes"] if each["split"] == "novel"}
    is_novel = np.array([names.names[row] in novel for row in rows])
    parts = {"base": pictured[~is_novel[pictured]], "novel": pictured[is_novel[pictured]]}
    parts = {part: labels for part, labels in parts.items() if len(labels)}
    questions = _columns(name, parts, rows, len(names), False)
    return Target(f"{name}_base_novel", name, "val", images, names, rows, questions)


def _check_variant(name: str, folder: Path, plain: Path) -> None:
    """Other looks of the very shapes that are learned from, so that base and novel mean the same."""
    variant = name.partition("_")[2] or "plain"
    options = read_json(folder / "shapes.json").get("options", {})
    if options.get("variant") != variant:
        raise UserError(f"{folder} holds the variant {options.get('variant')!r} of the shapes, expected {variant!r}")
    if variant != "plain" and (plain / "shapes.json").is_file():
        own = read_json(plain / "shapes.json").get("options", {})
        other = [key for key in ("seed", "classes", "classification_classes") if own.get(key) != options.get(key)]
        if other:
            raise UserError(
                f"{folder} was made with another {other[0]} than {plain} ({options.get(other[0])}, not "
                f"{own.get(other[0])}); make it again with the same options"
            )


SPECIAL: dict[str, Callable[[Path], Target]] = {
    "tiny_imagenet_base_novel": _tiny,
    "imagenet_samples": _photos,
    **{f"{name}_base_novel": lambda root, name=name: _shapes(name, root, True) for name in SHAPES},  # type: ignore[misc]
    **{f"{name}_pictured": lambda root, name=name: _shapes(name, root, False) for name in SHAPES},  # type: ignore[misc]
}
