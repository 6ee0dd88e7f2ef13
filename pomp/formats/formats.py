"""The formats by name: what writes each, and what reads what came back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pomp.formats import (
    class_id_pngs,
    coco_json,
    cvat_xml,
    fiftyone_export,
    fiftyone_json,
    labelstudio_export,
    labelstudio_json,
    voc_xml,
    word_folders,
    word_tables,
    yolo_folder,
)
from pomp.formats.labelled import Corrections, LabelledPhoto, Photos
from pomp.formats.matching import matched
from pomp.formats.recognise import recognised
from prompt_core.errors import UserError, nearest


@dataclass(frozen=True)
class Format:
    """What a name after ``--format`` means.

    Attributes:
        write: takes photos, words and a folder of its own.
        summary: one line for a person.
    """

    write: Callable[[Photos, Sequence[str], Path], None]
    summary: str


FORMATS = {
    "coco": Format(coco_json.write, "COCO, masks as run lengths"),
    "coco-polygons": Format(coco_json.write_with_polygons, "COCO, masks as polygons"),
    "yolo": Format(yolo_folder.write, "Ultralytics' folder, boxes"),
    "yolo-masks": Format(yolo_folder.write_with_polygons, "Ultralytics' folder, masks as polygons"),
    "voc": Format(voc_xml.write, "Pascal VOC's folder, boxes"),
    "labelstudio": Format(labelstudio_json.write, "Label Studio's tasks, boxes and choices"),
    "labelstudio-masks": Format(labelstudio_json.write_with_masks, "Label Studio's tasks, masks as brushes"),
    "cvat": Format(cvat_xml.write, "CVAT for images 1.1, boxes"),
    "cvat-masks": Format(cvat_xml.write_with_masks, "CVAT for images 1.1, masks"),
    "fiftyone": Format(fiftyone_json.write, "FiftyOne's own layout, boxes and masks"),
    "class-ids": Format(class_id_pngs.write, "label maps as PNG, from masks"),
    "csv": Format(word_tables.write, "a table of photos with their words"),
}

READERS: dict[str, Callable[[Path], Corrections]] = {
    coco_json.KIND: coco_json.read,
    yolo_folder.KIND: yolo_folder.read,
    voc_xml.KIND: voc_xml.read,
    labelstudio_json.KIND: labelstudio_export.read,
    cvat_xml.KIND: cvat_xml.read,
    fiftyone_json.KIND: fiftyone_export.read,
    class_id_pngs.KIND: class_id_pngs.read,
    word_tables.KIND: word_tables.read,
    word_folders.KIND: word_folders.read,
}


def format_names(text: str) -> tuple[str, ...]:
    """Names joined by commas, each once.

    Raises:
        UserError: for an unknown name.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in FORMATS:
            raise UserError(f"format {name!r} is not one of {', '.join(FORMATS)}{nearest(name, FORMATS)}")
    return names


def write_formats(names: Sequence[str], photos: Photos, words: Sequence[str], folder: Path) -> list[Path]:
    """Write what is known of photos in each of these formats, to ``folder/NAME``.

    One photo is in memory at a time. A folder appears whole or not at all.

    Args:
        names: of :data:`FORMATS`.
        photos: gives the photos again and again, from the beginning.
        words: in the order of their numbers; words of photos that are not among them follow.

    Returns:
        the folders.

    Raises:
        UserError: for an unknown name, when a person has changed what an earlier run wrote, or when it cannot be
            written.
    """
    chosen = format_names(",".join(names))
    listed = dict.fromkeys(words)
    for photo in photos():
        listed.update(dict.fromkeys(item.word for item in photo.objects))
        listed.update(dict.fromkeys(photo.words or ()))
    for name in chosen:
        FORMATS[name].write(photos, tuple(listed), folder / name)
    return [folder / name for name in chosen]


def read_corrections(path: str | Path, photos_folder: str | Path | None = None) -> Corrections:
    """Read what a person has corrected, in whatever format it is; that is recognised by its content.

    Args:
        path: a file or a folder.
        photos_folder: where the photos are; each is looked for by its name there, else beside ``path``.

    Returns:
        photos with ``path`` where they were found.

    Raises:
        UserError: for an unknown format, and for what does not fit the known one.
    """
    place = Path(path)
    kind, document = recognised(place)
    folder = None if photos_folder is None else Path(photos_folder)
    # Labels of YOLO cannot be read without their photos, which only its folder may have.
    found = yolo_folder.read(document, folder) if kind == yolo_folder.KIND else READERS[kind](document)
    return replace(found, photos=tuple(matched(found.photos, place, folder)))


def each(photos: Sequence[LabelledPhoto]) -> Callable[[], Iterator[LabelledPhoto]]:
    """Photos in memory as :func:`write_formats` takes them."""
    return lambda: iter(photos)
