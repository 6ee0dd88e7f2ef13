"""YOLO, as Ultralytics reads it: ``data.yaml``, ``images.txt``, and for each photo ``labels/NAME.txt``.

A line of labels is a class from 0 and, in parts of the photo's sides, the middle of a box with its width and height, or
x, y of each point of a polygon. Scores have no place in it. Words of whole photos are in ``words.csv``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pomp.formats.checked import Collected, checked_word
from pomp.formats.folders import PhotoTable, known_photos, whole_folder
from pomp.formats.labelled import Corrections, LabelledObject, LabelledPhoto, Photos
from pomp.formats.mask_shapes import mask_of_polygons, one_polygon
from pomp.formats.matching import UPLOADED, in_local_files
from pomp.formats.word_tables import TABLE, WordTable, words_of_photos
from prompt_core.data.open_photo import upright_size
from prompt_core.data.photo_files import is_file, list_photos
from prompt_core.documents.bounds import SMALL_BYTES, YAML_BYTES, read_text
from prompt_core.documents.yaml_with_bases import load_yaml
from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible_path

KIND = "yolo"
SETTINGS = "data.yaml"
_INDEX = re.compile(r"[0-9]{1,9}(\.0+)?")


def write(photos: Photos, words: Sequence[str], folder: Path) -> None:
    """Write boxes."""
    _write(photos, words, folder, lambda item: None)


def write_with_polygons(photos: Photos, words: Sequence[str], folder: Path) -> None:
    """Write each mask as one polygon; a box without a mask becomes a polygon of its corners."""
    _write(photos, words, folder, _polygon)


def _polygon(item: LabelledObject) -> list[float]:
    points = one_polygon(item.mask) if item.mask is not None else []
    x, y, width, height = item.box
    return points or [x, y, x + width, y, x + width, y + height, x, y + height]


def _write(
    photos: Photos, words: Sequence[str], target: Path, polygon: Callable[[LabelledObject], list[float] | None]
) -> None:
    numbers = {word: number for number, word in enumerate(words)}
    with whole_folder(target) as folder:
        (folder / "labels").mkdir()
        settings = {"train": "images.txt", "val": "images.txt", "names": dict(enumerate(words))}
        text = yaml.safe_dump(settings, allow_unicode=True, sort_keys=False)
        (folder / SETTINGS).write_text(text, encoding="utf-8")
        with (
            PhotoTable(folder, "images") as table,
            WordTable(folder / TABLE) as of_photos,
            open(folder / "images.txt", "w", encoding="utf-8") as listed,
        ):
            for photo in photos():
                file = table.add(photo)
                listed.write(f"./images/{file}\n")
                of_photos.add(photo)
                lines = [f"{numbers[item.word]} {_shares(item, polygon(item), photo)}\n" for item in photo.objects]
                (folder / "labels" / f"{os.path.splitext(file)[0]}.txt").write_text(  # noqa: PTH122
                    "".join(lines), encoding="ascii"
                )


def _shares(item: LabelledObject, polygon: list[float] | None, photo: LabelledPhoto) -> str:
    x, y, width, height = item.box
    values = [x + width / 2, y + height / 2, width, height] if polygon is None else polygon
    sides = [photo.width, photo.height] * (len(values) // 2)
    return " ".join(f"{min(max(value / side, 0), 1):.7f}" for value, side in zip(values, sides, strict=True))


def read(path: Path, elsewhere: Path | None = None) -> Corrections:
    """Read a folder of labels of any tool, or its ``data.yaml``.

    Sizes of photos are read from their headers, unless this toolkit wrote the folder.

    Args:
        elsewhere: a folder in which photos are that are not in ``images/``.

    Raises:
        UserError: without names of classes, for a line that is no label, and where a photo's size is not known.
    """
    folder = path.parent if path.is_file() else path
    names = _class_names(folder)
    known = known_photos(folder)
    labels = sorted((folder / "labels").rglob("*.txt"), key=str)
    photos = _photos_by_stem(folder, known, elsewhere)
    words = words_of_photos(folder / TABLE) if is_file(folder / TABLE) else {}
    collected = Collected(KIND, names)
    order = {stem: number for number, stem in enumerate(photos)}
    stems = {file.relative_to(folder / "labels").with_suffix("").as_posix(): file for file in labels}
    for stem in sorted({**stems, **dict.fromkeys(known_stems(known))}, key=lambda stem: order.get(stem, len(order))):
        plain = in_local_files(stem) or stem
        alike = (stem, plain, plain.rpartition("/")[2], UPLOADED.sub("", plain, count=1))
        photo = next((photos[name] for name in alike if name in photos), None)
        if photo is None:
            raise UserError(
                f"{visible_path(stems[stem])} has no photo in {visible_path(folder / 'images')}, whose size its "
                "labels need; put the photos there, or give their folder: --photos"
            )
        name, width, height = photo()
        objects = tuple(_objects(stems[stem], names, width, height)) if stem in stems else ()
        collected.add(LabelledPhoto(name, width, height, objects, words.get(name)))
    return collected.corrections()


def known_stems(known: dict[str, tuple[str, int, int]]) -> list[str]:
    """Names of files without their endings."""
    return [os.path.splitext(file)[0] for file in known]  # noqa: PTH122


def _photos_by_stem(
    folder: Path, known: dict[str, tuple[str, int, int]], elsewhere: Path | None
) -> dict[str, Callable[[], tuple[str, int, int]]]:
    """By name of the labels: a function that gives name, width and height of the photo."""
    found: dict[str, Callable[[], tuple[str, int, int]]] = {}
    for stem, photo in zip(known_stems(known), known.values(), strict=True):
        found[stem] = lambda photo=photo: photo  # type: ignore[misc]
    for images in (folder / "images", *([] if elsewhere is None else [elsewhere])):
        for name in list_photos(images, recursive=True) if images.is_dir() else ():
            size = partial(_with_size, images, name)
            found.setdefault(os.path.splitext(name)[0], size)  # noqa: PTH122
    return found


def _with_size(images: Path, name: str) -> tuple[str, int, int]:
    return name, *upright_size(images / name)


def _class_names(folder: Path) -> list[str]:
    for name in (SETTINGS, "data.yml", "dataset.yaml"):
        if is_file(folder / name):
            settings = load_yaml(read_text(folder / name, YAML_BYTES), str(folder / name))
            return _names_of(settings, folder / name)
    for name in ("classes.txt", "obj.names"):  # of Label Studio and Darknet
        if is_file(folder / name):
            lines = read_text(folder / name, SMALL_BYTES).splitlines()
            return [checked_word(line, visible_path(folder / name)) for line in lines if line.strip()]
    raise UserError(f"{visible_path(folder)} has neither {SETTINGS} nor classes.txt, which name the classes of labels")


def _names_of(settings: Any, path: Path) -> list[str]:
    names = settings.get("names") if isinstance(settings, dict) else None
    if isinstance(names, dict) and all(type(key) is int for key in names):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{visible_path(path)}: classes 0 to {len(names) - 1} are expected under 'names'")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{visible_path(path)}: 'names' is {shortened(names)}; a list of words is expected")
    return [checked_word(str(name), visible_path(path)) for name in names]


def _objects(file: Path, names: list[str], width: int, height: int) -> Iterator[LabelledObject]:
    for number, line in enumerate(read_text(file, SMALL_BYTES).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{visible_path(file)}, line {number}"
        label, *cells = line.split()
        if not _INDEX.fullmatch(label) or int(label.partition(".")[0]) >= len(names):
            raise UserError(f"{where}: class {shortened(label)}; a number from 0 to {len(names) - 1} is expected")
        values = _numbers(cells, where)
        word = names[int(label.partition(".")[0])]
        if len(values) in (4, 5):  # the fifth is a score
            across, along = values[2] * width, values[3] * height
            x, y = values[0] * width - across / 2, values[1] * height - along / 2
            yield LabelledObject(word, (x, y, across, along), values[4] if len(values) == 5 else None)
        elif len(values) >= 6:
            yield _with_mask(word, values[: len(values) // 2 * 2], width, height)
        else:
            raise UserError(f"{where}: {len(values)} numbers after the class; 4 for a box or 6 for a polygon needed")


def _numbers(cells: list[str], where: str) -> list[float]:
    try:
        values = [float(cell) for cell in cells]
    except ValueError as error:
        raise UserError(f"{where}: {visible_path(error)}") from error
    if not all(math.isfinite(value) and abs(value) <= 100 for value in values):
        raise UserError(f"{where}: parts of the photo's sides, from 0 to 1, are expected")
    return values


def _with_mask(word: str, shares: list[float], width: int, height: int) -> LabelledObject:
    points = [share * side for share, side in zip(shares, [width, height] * (len(shares) // 2), strict=True)]
    xs, ys = points[0::2], points[1::2]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    corners = {(x, y) for x in (min(xs), max(xs)) for y in (min(ys), max(ys))}
    if len(xs) == 4 and set(zip(xs, ys, strict=True)) == corners:
        return LabelledObject(word, box)  # a box among polygons
    return LabelledObject(word, box, None, mask_of_polygons([points], height, width))
