"""Where the images lie, whether they are there, and how to get them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pomp_lab.comparisons.prompts import base_novel_classes
from pomp_lab.shapes.variants import VARIANTS
from prompt_core.data.catalog.lookup import ENTRIES, classification_entry
from prompt_core.data.sources import open_images, tiny_imagenet
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json, write_text

if TYPE_CHECKING:
    from prompt_core.data.images import ImageSet

SPLIT_SEED = 0
# The wide vocabulary of Tiny-ImageNet and of photos of the ImageNet classes.
WIDE = "imagenet21k"
# 40 of Tiny-ImageNet's 200 classes are novel.
NOVEL_SHARE = 5


@dataclass(frozen=True)
class Source:
    """A folder of images.

    Attributes:
        place: data root → folder.
        is_there: folder → whether it holds the images.
        how: how to get it, ``{folder}`` is its place.
    """

    name: str
    place: Callable[[Path], Path]
    is_there: Callable[[Path], bool]
    how: str

    def missing(self, root: Path) -> str | None:
        """None where the images are there, else one line that says what is missing and how to get it."""
        folder = self.place(root)
        if self.is_there(folder):
            return None
        return f"data set {self.name} is not at {folder}: {self.how.format(folder=folder)}"


def find_source(name: str) -> Source:
    """A source by name: ``shapes`` and its variants, ``imagenet_samples``, or a name of the catalogue.

    Raises:
        UserError: an unknown name.
    """
    if name in SOURCES:
        return SOURCES[name]
    entry = classification_entry(name)
    marked = bool(entry.marks) or entry.split_file is not None
    return Source(
        entry.name, entry.place, lambda folder: entry.recognises(folder) if marked else folder.is_dir(), entry.how
    )


def _shapes(variant: str) -> Source:
    name = "shapes" if variant == "plain" else f"shapes_{variant}"
    how = "run python datasets/make_shapes.py --output {folder} --parts classification"
    if variant != "plain":
        how += f" --variant {variant}"
    return Source(name, lambda root: root / name, lambda folder: (folder / "classification" / "val").is_dir(), how)


SOURCES = {source.name: source for source in map(_shapes, VARIANTS)} | {
    "imagenet_samples": Source(
        "imagenet_samples",
        lambda root: root / "imagenet_samples",
        lambda folder: (folder / "labels.csv").is_file(),
        "put one photo of each ImageNet class (github.com/EliSchwartz/imagenet-sample-images) into {folder}, and "
        "labels.csv with the columns file, wnid, class_name",
    )
}
SHAPES = tuple(name for name in SOURCES if name.startswith("shapes"))


def missing_sources(names: Sequence[str], root: Path) -> list[str]:
    """One line for each source that is not there."""
    lines = [find_source(name).missing(root) for name in dict.fromkeys(names)]
    return [line for line in lines if line is not None]


def present_benchmarks(root: Path, without: Sequence[str] = ()) -> list[str]:
    """Names of the catalogued data sets that lie below the data root."""
    return [
        entry.name for entry in ENTRIES if entry.name not in without and find_source(entry.name).missing(root) is None
    ]


@dataclass(frozen=True)
class Training:
    """Training images as a configuration takes them.

    Attributes:
        source: the folder they are in.
        train: ``DATA.TRAIN``.
        wide: ``DATA.VOCABULARY`` of rows that learn over a wide vocabulary.
        classes: ids of the classes that are learned from; None for all.
    """

    source: str
    train: str
    wide: str = ""
    classes: tuple[str, ...] | None = None

    def class_file(self, folder: Path) -> str:
        """``DATA.CLASSES``: a file with the classes, named by its content; empty for all classes."""
        if self.classes is None:
            return ""
        path = folder / f"classes_{sha256_of_json(self.classes)[:16]}.txt"
        if not path.is_file():
            write_text(path, "".join(f"{identity}\n" for identity in self.classes))
        return str(path)


def tiny_base_novel(images: ImageSet) -> tuple[list[int], list[int]]:
    """Labels of base and novel classes of Tiny-ImageNet: 160 and 40 of 200."""
    base, novel = base_novel_classes(len(images.names), max(1, len(images.names) // NOVEL_SHARE), SPLIT_SEED)
    return base.tolist(), novel.tolist()


def _tiny(root: Path) -> Training:
    folder = find_source("tiny_imagenet").place(root)
    images = tiny_imagenet(folder, "train")
    base, _ = tiny_base_novel(images)
    ids = tuple(images.ids[label] for label in base)
    return Training("tiny_imagenet", f"tiny_imagenet:{folder}", WIDE, ids)


def _drawn(root: Path) -> Training:
    folder = find_source("shapes").place(root)
    return Training("shapes", f"folder:{folder / 'classification'}", str(folder / "class_names.txt"))


def _catalogued(name: str, root: Path) -> Training:
    return Training(name, f"{name}:{find_source(name).place(root)}")


TRAINING: dict[str, Callable[[Path], Training]] = {
    "tiny_imagenet": _tiny,
    "shapes": _drawn,
    "imagenet": partial(_catalogued, "imagenet"),
    "imagenet21k": partial(_catalogued, "imagenet21k"),
}


def open_training(name: str, root: Path) -> Training:
    """The training images of a row.

    Raises:
        UserError: when they are not there.
    """
    if line := find_source(name).missing(root):
        raise UserError(line)
    return TRAINING[name](root)


def open_source(name: str, root: Path, split: str) -> ImageSet:
    """The images of a source."""
    folder = find_source(name).place(root)
    if name in SHAPES:
        return open_images(f"folder:{folder / 'classification'}", split)
    return open_images(f"csv:{folder}" if name == "imagenet_samples" else f"{name}:{folder}", split)
