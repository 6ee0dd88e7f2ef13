"""Pascal VOC: ``Annotations/NAME.xml`` for each photo, beside ``JPEGImages``.

Its pixels are whole numbers that begin at 1 and belong to the box, as those of VOC's own development kit; scores have
no place in it. Words of whole photos are in ``words.csv``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from pomp.formats.checked import Collected, checked_word
from pomp.formats.folders import PhotoTable, known_photos, whole_folder
from pomp.formats.labelled import Corrections, LabelledObject, LabelledPhoto, Photos
from pomp.formats.word_tables import TABLE, WordTable, words_of_photos
from prompt_core.data.photo_files import is_file
from prompt_core.documents.xml_files import read_xml, sayable
from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible_path

KIND = "voc"
ANNOTATIONS, IMAGES = "Annotations", "JPEGImages"
CLASSES = "classes.txt"


def write(photos: Photos, words: Sequence[str], target: Path) -> None:
    """Write the folder."""
    with whole_folder(target) as folder:
        (folder / ANNOTATIONS).mkdir()
        (folder / CLASSES).write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        with PhotoTable(folder, IMAGES) as table, WordTable(folder / TABLE) as of_photos:
            for photo in photos():
                file = table.add(photo)
                of_photos.add(photo)
                document = ElementTree.ElementTree(_document(photo, file))
                ElementTree.indent(document)
                name = os.path.splitext(file)[0]  # noqa: PTH122
                document.write(folder / ANNOTATIONS / f"{name}.xml", encoding="utf-8")


def _document(photo: LabelledPhoto, file: str) -> Element:
    root = Element("annotation")
    for name, text in (("folder", IMAGES), ("filename", file)):
        SubElement(root, name).text = sayable(text)
    size = SubElement(root, "size")
    for name, value in (("width", photo.width), ("height", photo.height), ("depth", 3)):
        SubElement(size, name).text = str(value)
    SubElement(root, "segmented").text = "0"
    for item in photo.objects:
        thing = SubElement(root, "object")
        SubElement(thing, "name").text = sayable(item.word)
        for name, text in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            SubElement(thing, name).text = text
        box = SubElement(thing, "bndbox")
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), _pixels(item.box, photo), strict=True):
            SubElement(box, name).text = str(value)
    return root


def _pixels(box: tuple[float, float, float, float], photo: LabelledPhoto) -> tuple[int, int, int, int]:
    """First and last pixel of a box, from 1, at least one."""
    x, y, width, height = box
    left, top = min(round(x), photo.width - 1) + 1, min(round(y), photo.height - 1) + 1
    return left, top, max(round(x + width), left), max(round(y + height), top)


def read(path: Path) -> Corrections:
    """Read a folder of documents of any tool, in ``Annotations`` or directly in it, or one document.

    Raises:
        UserError: when one of them is no annotation.
    """
    if path.is_file():
        files, folder = [path], path.parent
    else:
        folder = path
        inner = folder / ANNOTATIONS
        files = sorted((inner if inner.is_dir() else folder).glob("*.xml"), key=str)
    known = known_photos(folder)
    order = {os.path.splitext(file)[0]: number for number, file in enumerate(known)}  # noqa: PTH122
    words = words_of_photos(folder / TABLE) if is_file(folder / TABLE) else {}
    listed = (folder / CLASSES).read_text(encoding="utf-8").splitlines() if is_file(folder / CLASSES) else []
    collected = Collected(KIND, [checked_word(word, visible_path(folder / CLASSES)) for word in listed])
    for file in sorted(files, key=lambda file: order.get(file.stem, len(order))):
        photo = _photo(file)
        name = known[photo.name][0] if photo.name in known else photo.name
        collected.add(LabelledPhoto(name, photo.width, photo.height, photo.objects, words.get(name)))
    return collected.corrections()


def _photo(file: Path) -> LabelledPhoto:
    root, where = read_xml(file), visible_path(file)
    if root.tag != "annotation":
        raise UserError(f"{where}: {shortened(root.tag)}; 'annotation' of Pascal VOC is expected")
    name = _text(root, "filename", where)
    width, height = (int(_number(root, f"size/{side}", where)) for side in ("width", "height"))
    if not (1 <= width <= 1_000_000 and 1 <= height <= 1_000_000):
        raise UserError(f"{where}: a photo of {width} x {height} pixels")
    return LabelledPhoto(name, width, height, tuple(_objects(root, where)))


def _objects(root: Element, where: str) -> Iterator[LabelledObject]:
    for item in root.findall("object"):
        word = checked_word(_text(item, "name", where), where)
        left, top, right, bottom = (_number(item, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax"))
        if right < left or bottom < top:
            raise UserError(f"{where}: a box of {shortened(word)} ends before it begins")
        yield LabelledObject(word, (left - 1, top - 1, right - left + 1, bottom - top + 1))


def _text(element: Element, name: str, where: str) -> str:
    text = element.findtext(name)
    if not text or not text.strip():
        raise UserError(f"{where}: {element.tag} has no {name!r}")
    return text.strip()


def _number(element: Element, name: str, where: str) -> float:
    text = _text(element, name, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= 1e9:
        raise UserError(f"{where}: {name} is {shortened(text)}; a number of pixels is expected")
    return value
