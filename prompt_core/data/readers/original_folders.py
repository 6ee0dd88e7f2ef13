"""Caltech101, EuroSAT, DTD, Food101 and SUN397 as their authors release them: one folder of photos per class.

Each function takes the data set's folder, in CoOp's layout or in the one that torchvision's download makes. Functions
with ``photos`` list every photo; those with ``lists`` read the official lists of train and test photos, and return None
where these do not exist. Class names are derived from folder names by the rules of CoOp (arXiv 2109.01134); underscores
become spaces when a name is put into a prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prompt_core.data.photo_files import inside, is_folder, list_folders, list_photos, read_lines
from prompt_core.data.splits import Row
from prompt_core.errors import UserError, nearest
from prompt_core.files import read_json

_CALTECH101 = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
# The background is not a class, and Faces_easy repeats the photos of Faces.
_CALTECH101_DROPPED = ("BACKGROUND_Google", "Faces_easy")
_EUROSAT = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}
EUROSAT_PHOTOS = ("2750", "EuroSAT_RGB")


@dataclass(frozen=True)
class Listed:
    """Photos with their classes.

    Attributes:
        images: the folder that keys are relative to.
        parts: ``{"all": rows}``, or rows of ``train``, ``test`` and perhaps ``val``.
    """

    images: Path
    parts: dict[str, list[Row]]


def caltech101_name(folder: str) -> str | None:
    """``airplanes`` → ``airplane``; None for the two folders that are not classes."""
    return None if folder in _CALTECH101_DROPPED else _CALTECH101.get(folder, folder)


def caltech101_photos(folder: Path) -> Listed:
    """``101_ObjectCategories/CLASS``; labels in the order of the folders."""
    return _class_folders(folder / "101_ObjectCategories", caltech101_name)


def eurosat_photos(folder: Path) -> Listed:
    """``2750/CLASS``, or ``EuroSAT_RGB/CLASS`` of the later archive; labels in the order of the folders."""
    photos = next((folder / name for name in EUROSAT_PHOTOS if is_folder(folder / name)), folder / EUROSAT_PHOTOS[0])

    def name_of(name: str) -> str:
        if name not in _EUROSAT:
            raise UserError(f"{photos / name} is not a class of EuroSAT{nearest(name, _EUROSAT)}")
        return _EUROSAT[name]

    return _class_folders(photos, name_of)


def dtd_photos(folder: Path) -> Listed:
    """``images/CLASS``, or ``dtd/images/CLASS`` as torchvision unpacks it."""
    return _class_folders(inner(folder, "dtd", "images") / "images", str)


def dtd_lists(folder: Path) -> Listed | None:
    """The first of the ten official divisions: ``labels/{train,val,test}1.txt`` with lines ``CLASS/PHOTO``."""
    folder = inner(folder, "dtd", "images")
    if not (folder / "labels").is_dir():
        return None
    files = {part: folder / "labels" / f"{part}1.txt" for part in ("train", "val", "test")}
    lists = {part: read_lines(path, "a photo list") for part, path in files.items()}
    return Listed(folder / "images", _labelled_by_folder(lists, files))


def food101_photos(folder: Path) -> Listed:
    """``images/CLASS``."""
    return _class_folders(folder / "images", str)


def food101_lists(folder: Path) -> Listed | None:
    """``meta/{train,test}.json``: ``{CLASS: ["CLASS/PHOTO", …]}``, without the suffix .jpg."""
    if not any((folder / "meta" / f"{part}.json").exists() for part in ("train", "test")):
        return None
    lists: dict[str, list[str]] = {}
    files = {part: folder / "meta" / f"{part}.json" for part in ("train", "test")}
    for part, path in files.items():
        document = read_json(path)
        if not isinstance(document, dict) or not all(isinstance(photos, list) for photos in document.values()):
            raise UserError(f"{path} is not a photo list of Food101: expected an object with a list for each class")
        lists[part] = [f"{photo}.jpg" for photos in document.values() for photo in photos]
    return Listed(folder / "images", _labelled_by_folder(lists, files))


def sun397_name(path: str) -> str:
    """``/a/apartment_building/outdoor`` → ``outdoor apartment_building``."""
    return " ".join(reversed(path.strip("/").split("/")[1:]))


def sun397_photos(folder: Path) -> Listed:
    """``SUN397/LETTER/SCENE[/PLACE]``; labels are the lines of ``ClassName.txt``."""
    images, classes = _sun397(folder)
    rows: list[Row] = []
    for label, path in enumerate(classes):
        rows.extend((f"{path}/{name}", label, sun397_name(path)) for name in _photos(images / path))
    return Listed(images, {"all": rows})


def sun397_lists(folder: Path) -> Listed | None:
    """The first official division, ``Training_01.txt`` and ``Testing_01.txt``, with lines ``/a/abbey/PHOTO``."""
    images, classes = _sun397(folder)
    files = {"train": "Training_01.txt", "test": "Testing_01.txt"}
    place = next((path for path in (folder, folder / "Partitions", images) if (path / files["train"]).exists()), None)
    if place is None:
        return None
    label_of = {path: label for label, path in enumerate(classes)}
    parts: dict[str, list[Row]] = {}
    for part, file in files.items():
        parts[part] = []
        for number, line in enumerate(read_lines(place / file, "the photo list of SUN397"), start=1):
            photo = line.strip("/")
            path, _, _ = photo.rpartition("/")
            if path not in label_of:
                raise UserError(f"{place / file}, line {number}: {'/' + path!r} is not in ClassName.txt")
            parts[part].append((photo, label_of[path], sun397_name(path)))
    return Listed(images, parts)


def inner(folder: Path, name: str, mark: str) -> Path:
    """``folder``, or ``folder/name`` where only the latter holds ``mark``."""
    return folder / name if not (folder / mark).exists() and (folder / name / mark).exists() else folder


def _sun397(folder: Path) -> tuple[Path, list[str]]:
    """The folder of photos, and the classes as paths in it, without the leading slash of the list."""
    images = inner(folder, "SUN397", "a")
    for place in (folder, folder / "Partitions", images):
        path = place / "ClassName.txt"
        if path.exists():
            lines = [line.strip("/") for line in read_lines(path, "the class list of SUN397")]
            return images, [inside(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    raise UserError(f"expected the class list of SUN397 at {folder / 'ClassName.txt'}: no such file")


def _class_folders(images: Path, name_of: Callable[[str], str | None]) -> Listed:
    """All photos; folders whose name is None are left out."""
    rows: list[Row] = []
    label = 0
    for folder in list_folders(images):
        name = name_of(folder)
        if name is not None:
            rows.extend((f"{folder}/{photo}", label, name) for photo in _photos(images / folder))
            label += 1
    if not rows:
        raise UserError(f"no class folders in {images}: expected one folder of photos per class")
    return Listed(images, {"all": rows})


def _photos(folder: Path) -> list[str]:
    photos = list_photos(folder)
    if not photos:  # leaving the class out would shift all labels after it
        raise UserError(f"class folder {folder} has no photos: expected files such as .jpg; is the download complete?")
    return photos


def _labelled_by_folder(lists: dict[str, list[str]], files: dict[str, Path]) -> dict[str, list[Row]]:
    """Rows of listed photos ``CLASS/PHOTO``; labels are the sorted classes of all lists."""
    for part, photos in lists.items():
        for photo in photos:
            if not inside(photo, str(files[part])).partition("/")[2]:
                raise UserError(f"{files[part]}: expected photos as 'CLASS/PHOTO', got {photo[:80]!r}")
    classes = sorted({photo.split("/")[0] for photos in lists.values() for photo in photos})
    label_of = {name: label for label, name in enumerate(classes)}
    return {
        part: [(photo, label_of[photo.split("/")[0]], photo.split("/")[0]) for photo in photos]
        for part, photos in lists.items()
    }
