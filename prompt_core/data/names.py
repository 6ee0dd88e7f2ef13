"""How the original releases' folder and file names become class names (the rules of CoOp, arXiv 2109.01134).

They are used where a split file is absent; a split file brings its own names. Underscores stay: they become spaces when
a name is put into a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from prompt_core.data.photo_files import read_lines
from prompt_core.errors import UserError

_CALTECH101 = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
# The background is no class, and Faces_easy has the photos of Faces again.
_CALTECH101_DROPPED = ("BACKGROUND_Google", "Faces_easy")
EUROSAT = {
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


def caltech101_name(folder: str) -> str | None:
    """``airplanes`` → ``airplane``; None for the two folders that are no class."""
    return None if folder in _CALTECH101_DROPPED else _CALTECH101.get(folder, folder)


def ucf101_name(action: str) -> str:
    """``ApplyEyeMakeup`` → ``Apply_Eye_Makeup``, which is also the name of the folder of frames."""
    return "_".join(re.findall(r"[A-Z][^A-Z]*", action)) or action


def stanford_cars_name(name: str) -> str:
    """``Audi TTS Coupe 2012`` → ``2012 Audi TTS Coupe``."""
    before, _, year = name.rpartition(" ")
    return f"{year} {before}" if before and year.isdigit() else name


def oxford_pets_name(stem: str) -> str:
    """``american_bulldog_100`` → ``american_bulldog``; ``Abyssinian_1`` → ``abyssinian``."""
    return stem.rsplit("_", 1)[0].lower()


def sun397_name(path: str) -> str:
    """``/a/apartment_building/outdoor`` → ``outdoor apartment_building``."""
    return " ".join(reversed(path.strip("/").split("/")[1:]))


FILE = "classnames.txt"


def imagenet_classes(folder: Path) -> tuple[list[str], list[str], str]:
    """Wnids and names in the order of the class ids, and where they are from.

    ``classnames.txt`` (lines ``wnid name``) is looked for in ``folder``, then in ``imagenet`` beside it. Without it,
    names are open_clip's, in the order of timm's list of the 1,000 wnids.

    Raises:
        UserError: when the file is not of that form.
    """
    for path in (folder / FILE, folder.parent / "imagenet" / FILE):
        if path.is_file():
            lines = [line.split(maxsplit=1) for line in read_lines(path, "class names")]
            if any(len(parts) != 2 for parts in lines):
                raise UserError(f"{path}: expected lines of the form 'wnid class name'")
            if len({parts[0] for parts in lines}) != len(lines):
                raise UserError(f"{path}: a wnid occurs twice")
            return [parts[0] for parts in lines], [parts[1] for parts in lines], f"names: {FILE}"
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    wnids = ImageNetInfo("imagenet-1k").label_names()
    return list(wnids), list(IMAGENET_CLASSNAMES), f"names: open_clip's ImageNet list by wnid, no {FILE}"


def names_of(wnids: Sequence[str], folder: Path) -> tuple[list[str], str]:
    """Names of class folders, and where they are from.

    Raises:
        UserError: when a folder is none of the known classes.
    """
    known, names, origin = imagenet_classes(folder)
    name_of = dict(zip(known, names, strict=True))
    if missing := [wnid for wnid in wnids if wnid not in name_of]:
        raise UserError(f"{len(missing)} class folders in {folder} have no name, the first is {missing[0]} ({origin})")
    return [name_of[wnid] for wnid in wnids], origin
