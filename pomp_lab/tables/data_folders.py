"""Where images are and how to get them: the catalogue's data sets, drawn shapes, photos of the ImageNet classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pomp_lab.shapes.variants import VARIANTS
from prompt_core.data.catalog.entries import ENTRIES
from prompt_core.data.catalog.lookup import classification_entry
from prompt_core.data.images import ImageSet
from prompt_core.data.sources import open_images
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json, write_text

TINY, PHOTOS = "tiny_imagenet", "imagenet_samples"
SHAPES = tuple("shapes" if variant == "plain" else f"shapes_{variant}" for variant in VARIANTS)
# The wide vocabulary of Tiny-ImageNet and of photos of the ImageNet classes.
WIDE = "imagenet21k"
HALVES = ("tune", "report")  # of photos with even and odd sha256
# 40 of Tiny-ImageNet's 200 classes are novel.
NOVEL_CLASSES, NOVEL_SHARE, SPLIT_SEED = 40, 5, 0


@dataclass(frozen=True)
class DataFolders:
    """The data root.

    Attributes:
        places: data sets in other folders.
    """

    root: Path
    places: Mapping[str, Path] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        """The folder of a data set, whether or not it exists."""
        if name in self.places:
            return self.places[name]
        return self.root / name if name in (*SHAPES, PHOTOS) else classification_entry(name).place(self.root)

    def missing(self, name: str) -> str | None:
        """None where the images exist, else one line that says what is missing and how to get it."""
        folder = self.folder(name)
        if name in SHAPES:
            exists = (folder / "classification" / "val").is_dir()
            variant = name.partition("_")[2]
            how = f"run python datasets/make_shapes.py --output {folder} --parts classification"
            how += f" --variant {variant}" if variant else ""
        elif name == PHOTOS:
            exists = (folder / "labels.csv").is_file()
            how = (
                "put one photo of each ImageNet class (github.com/EliSchwartz/imagenet-sample-images) into "
                f"{folder}, and labels.csv with the columns file, wnid, class_name"
            )
        else:
            entry = classification_entry(name)
            marked = bool(entry.marks) or entry.split_file is not None
            exists, how = entry.recognises(folder) if marked else folder.is_dir(), entry.advice(folder)
        return None if exists else f"data set {name} is not at {folder}: {how}"

    def images(self, name: str, split: str) -> ImageSet:
        """The images of a data set.

        Raises:
            UserError: when they are missing.
        """
        if line := self.missing(name):
            raise UserError(line)
        folder = self.folder(name)
        if name in SHAPES:
            return open_images(f"folder:{folder / 'classification'}", split)
        return open_images(f"csv:{folder}" if name == PHOTOS else f"{name}:{folder}", split)

    def benchmarks(self, without: Sequence[str] = ()) -> list[str]:
        """Names of the catalogue's data sets that exist below the root."""
        return [entry.name for entry in ENTRIES if entry.name not in without and self.missing(entry.name) is None]


def training_settings(name: str, wide: bool, folders: DataFolders, lists: Path) -> list[str]:
    """``KEY VALUE`` pairs, flat, that make a configuration learn from a data set; from base classes where it has them.

    Args:
        wide: whether negatives come from the wide vocabulary instead of the images' own classes.
        lists: folder for the file with the base classes, named by its content.

    Raises:
        UserError: when the images are missing.
    """
    if line := folders.missing(name):
        raise UserError(line)
    folder, vocabulary, classes = folders.folder(name), "", ""
    train = f"{name}:{folder}"
    if name == "shapes":
        train, vocabulary = f"folder:{folder / 'classification'}", str(folder / "class_names.txt")
    elif name == TINY:
        images = folders.images(TINY, "train")
        ids = [images.ids[label] for label in tiny_base_novel(images)[0]]
        path = lists / f"classes_{sha256_of_json(ids)[:16]}.txt"
        if not path.is_file():
            write_text(path, "".join(f"{identity}\n" for identity in ids))
        vocabulary, classes = WIDE, str(path)
    return ["DATA.TRAIN", train, "DATA.CLASSES", classes, "DATA.VOCABULARY", vocabulary if wide else ""]


def base_novel_classes(count: int, novel: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sorted labels of base and novel classes: the first ``novel`` of ``default_rng(seed).permutation(count)``."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[novel:]), np.sort(order[:novel])


def photo_half(images: ImageSet, half: str) -> ImageSet:
    """One of two halves by the parity of the sha256 of the file name; settings are tuned on one, the other is reported.

    Crops of one photo (``file.jpg#17``) stay together.

    Args:
        half: one of :data:`HALVES`.
    """
    parity = [hashlib.sha256(key.rsplit("/", 1)[-1].partition("#")[0].encode()).digest()[-1] & 1 for key in images.keys]
    return images.subset(np.flatnonzero(np.array(parity) == HALVES.index(half)))


def tiny_base_novel(images: ImageSet) -> tuple[list[int], list[int]]:
    """Labels of base and novel classes of Tiny-ImageNet: 160 and 40 of 200."""
    base, novel = base_novel_classes(len(images.names), max(1, len(images.names) // NOVEL_SHARE), SPLIT_SEED)
    return base.tolist(), novel.tolist()
