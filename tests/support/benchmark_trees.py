"""Tiny trees of the classification benchmarks in the layouts of CoOp and of torchvision's downloads.

Each photo has a colour of its own, so that what two readers open can be compared by its pixels.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

EUROSAT_FOLDERS = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)


def save(path: Path) -> None:
    """A photo whose colour depends on the last two parts of its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(hashlib.sha256("/".join(path.parts[-2:]).encode()).digest()[:3])
    Image.new("RGB", (8, 8), colour).save(path, format="PNG" if path.suffix.lower() == ".png" else "JPEG")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def class_folders(folder: Path, classes: dict[str, int], stem: str = "image_{:04d}.jpg") -> None:
    for name, count in classes.items():
        for number in range(1, count + 1):
            save(folder / name / stem.format(number))
        write(folder / name / "Thumbs.db", "no photo")


def caltech101(folder: Path) -> None:
    counts = {"BACKGROUND_Google": 3, "Faces": 10, "Faces_easy": 10, "Leopards": 4, "airplanes": 7, "wild_cat": 20}
    class_folders(folder / "101_ObjectCategories", counts)


def eurosat(folder: Path) -> None:
    class_folders(folder / "2750", dict.fromkeys(EUROSAT_FOLDERS, 5), "x_{}.jpg")


def dtd(folder: Path, lists: bool = True) -> None:
    class_folders(folder / "images", {"banded": 10, "polka-dotted": 10}, "photo_{:04d}.jpg")
    if lists:
        for part, numbers in {"train": (1, 2, 3), "val": (4, 5, 6), "test": (7, 8, 9, 10)}.items():
            lines = [f"{name}/photo_{number:04d}.jpg" for name in ("banded", "polka-dotted") for number in numbers]
            write(folder / "labels" / f"{part}1.txt", "\n".join(lines) + "\n")


def food101(folder: Path, lists: bool = True) -> None:
    class_folders(folder / "images", {"apple_pie": 10, "waffles": 10}, "{}.jpg")
    if lists:
        write(folder / "meta" / "classes.txt", "apple_pie\nwaffles\n")
        for part, numbers in {"train": range(1, 8), "test": range(8, 11)}.items():
            document = {name: [f"{name}/{number}" for number in numbers] for name in ("apple_pie", "waffles")}
            write(folder / "meta" / f"{part}.json", json.dumps(document))


def sun397(folder: Path, torchvision: bool = False) -> None:
    images = folder if torchvision else folder / "SUN397"
    scenes = ("/a/abbey", "/a/apartment_building/outdoor", "/z/zoo")
    for scene in scenes:
        for number in range(10):
            save(images / scene[1:] / f"sun_{scene[3:6]}{number}.jpg")
    write(folder / "ClassName.txt", "\n".join(scenes) + "\n")
    if not torchvision:
        for file, numbers in {"Training_01.txt": range(5), "Testing_01.txt": range(5, 10)}.items():
            lines = [f"{scene}/sun_{scene[3:6]}{number}.jpg" for scene in scenes for number in numbers]
            write(folder / file, "\n".join(lines) + "\n")


def oxford_pets(folder: Path) -> None:
    breeds = {"Abyssinian": 1, "american_bulldog": 2, "Egyptian_Mau": 3}
    for part, numbers in {"trainval": range(1, 11), "test": range(11, 16)}.items():
        lines = []
        for breed, label in breeds.items():
            for number in numbers:
                save(folder / "images" / f"{breed}_{number}.jpg")
                lines.append(f"{breed}_{number} {label} {1 if breed[0].isupper() else 2} 1")
        write(folder / "annotations" / f"{part}.txt", "\n".join(lines) + "\n")
    write(folder / "images" / "Abyssinian_100.mat", "no photo")


def stanford_cars(folder: Path) -> None:
    from scipy.io import savemat

    (folder / "devkit").mkdir(parents=True)
    names = ["AM General Hummer SUV 2000", "Audi TTS Coupe 2012", "Ram C/V Cargo Van Minivan 2012"]
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)})
    for part, place in {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}.items():
        records = np.zeros(15, dtype=[("bbox_x1", object), ("class", object), ("fname", object)])
        for number in range(15):
            records[number] = (1, number % 3 + 1, f"{number + 1:05d}.jpg")
            save(folder / f"cars_{part}" / f"{number + 1:05d}.jpg")
        savemat(folder / place, {"annotations": records})


def oxford_flowers(folder: Path, lists: bool = False, names: bool = True) -> None:
    from scipy.io import savemat

    labels = np.array([2, 1, 3] * 10)
    for number in range(1, 31):
        save(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": labels[None]})
    if names:
        document = {"2": "hard-leaved pocket orchid", "1": "pink primrose", "3": "canterbury bells"}
        write(folder / "cat_to_name.json", json.dumps(document))
    if lists:
        order = np.random.default_rng(0).permutation(30) + 1
        savemat(folder / "setid.mat", {"trnid": order[:10], "valid": order[10:15], "tstid": order[15:]})


def ucf101(folder: Path) -> None:
    write(folder / "ucfTrainTestlist" / "classInd.txt", "1 ApplyEyeMakeup\n2 Archery\n3 YoYo\n")
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for label, (action, frames) in enumerate(
        {"ApplyEyeMakeup": "Apply_Eye_Makeup", "Archery": "Archery", "YoYo": "Yo_Yo"}.items(), start=1
    ):
        for group in range(1, 16):
            video = f"v_{action}_g{group:02d}_c01"
            save(folder / "UCF-101-midframes" / frames / f"{video}.jpg")
            part = "test" if group <= 5 else "train"
            lines[part].append(f"{action}/{video}.avi" + (f" {label}" if part == "train" else ""))
    for part, listed in lines.items():
        write(folder / "ucfTrainTestlist" / f"{part}list01.txt", "\n".join(listed) + "\n")


def fgvc_aircraft(folder: Path) -> None:
    write(folder / "variants.txt", "707-320\nA300B4\nC-130\n")
    for start, part in enumerate(("train", "val", "test")):
        lines = []
        for number, variant in enumerate(("707-320", "A300B4", "C-130")):
            save(folder / "images" / f"{start}{number:06d}.jpg")
            lines.append(f"{start}{number:06d} {variant}")
        write(folder / f"images_variant_{part}.txt", "\n".join(lines) + "\n")


def published(folder: Path, file: str, rows: dict[str, list[list[object]]]) -> None:
    """A split file of CoOp's form."""
    write(folder / file, json.dumps(rows))
