"""How the original releases' folder and file names become class names (the rules of CoOp, arXiv 2109.01134).

They are used where a split file is absent; a split file brings its own names. Underscores stay: they become spaces when
a name is put into a prompt.
"""

from __future__ import annotations

import re

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
