"""OxfordPets, StanfordCars, OxfordFlowers and UCF101 as their authors release them: photos, and files of labels.

Each function takes the data set's folder, in CoOp's layout or in the one that torchvision's download makes (they differ
only in the folder's name).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from prompt_core.data.photo_files import is_folder, is_photo_name, list_folders, read_lines, require_file
from prompt_core.data.readers.original_folders import Listed
from prompt_core.data.splits import Row
from prompt_core.documents.mat_files import read_variable
from prompt_core.errors import UserError
from prompt_core.files import read_json


def oxford_pets_name(stem: str) -> str:
    """``american_bulldog_100`` → ``american_bulldog``; ``Abyssinian_1`` → ``abyssinian``."""
    return stem.rsplit("_", 1)[0].lower()


def oxford_pets_lists(folder: Path) -> Listed:
    """``annotations/{trainval,test}.txt`` with lines ``PHOTO CLASS SPECIES BREED``; classes count from 1."""
    parts: dict[str, list[Row]] = {}
    for part, file in {"train": "trainval.txt", "test": "test.txt"}.items():
        path = folder / "annotations" / file
        parts[part] = []
        for number, line in enumerate(read_lines(path, "the photo list of OxfordPets"), start=1):
            fields = line.split()
            if len(fields) < 2 or not fields[1].isdecimal():
                raise UserError(f"{path}, line {number}: expected 'PHOTO CLASS SPECIES BREED', got {line[:80]!r}")
            if int(fields[1]) < 1:
                raise UserError(f"{path}, line {number}: class {fields[1]} of {fields[0]}; classes count from 1")
            parts[part].append((f"{fields[0]}.jpg", int(fields[1]) - 1, oxford_pets_name(fields[0])))
    return Listed(folder / "images", parts)


def stanford_cars_name(name: str) -> str:
    """``Audi TTS Coupe 2012`` → ``2012 Audi TTS Coupe``."""
    before, _, year = name.rpartition(" ")
    return f"{year} {before}" if before and year.isdigit() else name


def stanford_cars_lists(folder: Path) -> Listed:
    """``devkit/{cars_meta,cars_train_annos}.mat`` and ``cars_test_annos_withlabels.mat`` (also in ``devkit``).

    Photos are in ``cars_train`` and ``cars_test``, or in a folder of the same name inside each.
    """
    # a matrix of characters pads its rows with spaces
    names = [str(name).strip() for name in np.atleast_1d(read_mat(folder / "devkit" / "cars_meta.mat", "class_names"))]
    places = [folder / "cars_test_annos_withlabels.mat", folder / "devkit" / "cars_test_annos_withlabels.mat"]
    files = {
        "train": folder / "devkit" / "cars_train_annos.mat",
        "test": next((place for place in places if place.exists()), places[0]),
    }
    parts: dict[str, list[Row]] = {}
    for part, path in files.items():
        records = np.atleast_1d(read_mat(path, "annotations"))
        if records.dtype.names is None or not {"fname", "class"} <= set(records.dtype.names):
            raise UserError(f"{path} has no 'fname' and 'class' for each photo: expected the file with labels")
        parts[part] = []
        photos = f"cars_{part}/cars_{part}" if is_folder(folder / f"cars_{part}" / f"cars_{part}") else f"cars_{part}"
        for record in records:
            label = whole_number(record["class"], f"{path}, class of {record['fname']}") - 1
            if not 0 <= label < len(names):
                raise UserError(f"{path}: class {label + 1} of {record['fname']}, cars_meta.mat names {len(names)}")
            parts[part].append((f"{photos}/{record['fname']}", label, stanford_cars_name(names[label])))
    return Listed(folder, parts)


def oxford_flowers_photos(folder: Path) -> Listed:
    """``imagelabels.mat`` with the class, from 1, of each ``jpg/image_00001.jpg`` in turn; names as below."""
    return Listed(folder / "jpg", {"all": _flowers(folder)})


def oxford_flowers_lists(folder: Path) -> Listed | None:
    """``setid.mat``: numbers of the photos of train (``trnid``), val and test; None where there is no such file."""
    if not (folder / "setid.mat").exists():
        return None
    rows = _flowers(folder)
    parts: dict[str, list[Row]] = {}
    for part, variable in {"train": "trnid", "val": "valid", "test": "tstid"}.items():
        numbers = _whole_numbers(folder / "setid.mat", variable)
        if numbers.size and not 1 <= numbers.min() <= numbers.max() <= len(rows):
            raise UserError(f"{folder / 'setid.mat'}: {variable} has photo numbers outside 1..{len(rows)}")
        parts[part] = [rows[number - 1] for number in numbers]
    return Listed(folder / "jpg", parts)


def ucf101_name(action: str) -> str:
    """``ApplyEyeMakeup`` → ``Apply_Eye_Makeup``, which is also the name of the folder of frames."""
    return "_".join(re.findall(r"[A-Z][^A-Z]*", action)) or action


def ucf101_lists(folder: Path) -> Listed:
    """Middle frames in ``UCF-101-midframes/Action_Name`` by the first of the three official divisions.

    ``ucfTrainTestlist/classInd.txt`` has lines ``CLASS ACTION`` from 1; ``{train,test}list01.txt`` name videos as
    ``ACTION/VIDEO.avi``.
    """
    images = folder / "UCF-101-midframes"
    if not images.is_dir() and (videos := _videos(folder)) is not None:
        raise UserError(
            f"{videos} has videos: expected the middle frame of each as {images}/Action_Name/VIDEO.jpg "
            "(UCF-101-midframes.zip of CoOp)"
        )
    lists = folder / "ucfTrainTestlist"
    label_of: dict[str, int] = {}
    for line in read_lines(lists / "classInd.txt", "the class list of UCF101"):
        position, _, action = line.partition(" ")
        if not position.isdigit() or not action:
            raise UserError(f"{lists / 'classInd.txt'}: expected lines 'CLASS ACTION', got {line[:80]!r}")
        label_of[action] = int(position) - 1
    parts: dict[str, list[Row]] = {}
    for part in ("train", "test"):
        path = lists / f"{part}list01.txt"
        parts[part] = []
        for number, line in enumerate(read_lines(path, "the video list of UCF101"), start=1):
            action, _, video = line.split(" ")[0].partition("/")
            if action not in label_of or not video:
                raise UserError(
                    f"{path}, line {number}: expected 'ACTION/VIDEO.avi' of classInd.txt, got {line[:80]!r}"
                )
            name = ucf101_name(action)
            parts[part].append((f"{name}/{video.removesuffix('.avi')}.jpg", label_of[action], name))
    return Listed(images, parts)


def read_mat(path: Path, variable: str) -> Any:
    """A variable of a MATLAB file, without axes of length 1.

    Raises:
        UserError: when the file or the variable is absent, or the file is damaged.
    """
    require_file(path, "a MATLAB file")
    return read_variable(path, variable)


def whole_number(value: Any, where: str) -> int:
    """A number of a MATLAB file as an integer.

    Raises:
        UserError: when it is empty, text or a list; the message begins with ``where``.
    """
    try:
        number = np.asarray(value).astype(int).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        number = np.empty(0, dtype=int)
    if number.size != 1:
        raise UserError(f"{where}: expected a number, got {str(value)[:40]!r}; download the file again")
    return int(number[0])


def _whole_numbers(path: Path, variable: str) -> np.ndarray:
    return np.asarray(
        [whole_number(value, f"{path}, {variable}") for value in np.atleast_1d(read_mat(path, variable)).reshape(-1)],
        dtype=int,
    )


def _flowers(folder: Path) -> list[Row]:
    path = folder / "imagelabels.mat"
    numbers = _whole_numbers(path, "labels")
    names = _flower_names(folder / "cat_to_name.json")
    if numbers.size and numbers.min() < 1:
        raise UserError(f"{path}: class {numbers.min()}; classes count from 1")
    if nameless := sorted(set(numbers.tolist()) - set(names)):
        raise UserError(f"{path}: class {nameless[0]}, but there are {len(names)} names, and none for that one")
    labels = enumerate(numbers.tolist(), start=1)
    return [(f"image_{photo:05d}.jpg", label - 1, names[label]) for photo, label in labels]


def _flower_names(path: Path) -> dict[int, str]:
    """By class number, from ``cat_to_name.json`` (``{"1": name, …}``); without that file, torchvision's names."""
    if path.exists():
        document = read_json(path)
        try:
            return {int(number): str(name) for number, name in document.items()}
        except (AttributeError, ValueError) as error:
            raise UserError(f"{path}: expected an object with a name for each of '1', '2', …") from error
    from torchvision.datasets import Flowers102

    names = getattr(Flowers102, "classes", None)
    if names is None:
        raise UserError(f"expected the class names of OxfordFlowers at {path}: no such file, and torchvision has none")
    return dict(enumerate(names, start=1))


def _videos(folder: Path) -> Path | None:
    for place in (folder, folder / "UCF-101"):
        for name in list_folders(place) if is_folder(place) else ():
            first = next((file.name for file in (place / name).iterdir() if not file.name.startswith(".")), "")
            if first.endswith(".avi") and not is_photo_name(first):
                return place
    return None
