"""Which format a file or a folder is in, by what is in it."""

from __future__ import annotations

from pathlib import Path

from prompt_core.data.photo_files import find_photos, is_file, is_folder, list_folders
from prompt_core.documents.bounds import check_size, read_bytes
from prompt_core.documents.json_files import decode_json
from prompt_core.documents.xml_files import root_name
from prompt_core.errors import UserError
from prompt_core.visible import visible_path

# Documents by which a folder is known, in the order in which they are looked for.
_DOCUMENTS = ("annotations.json", "tasks.json", "annotations.xml", "samples.json")
_CLASSES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
_TABLE = "words.csv"


def recognised(path: Path) -> tuple[str, Path]:
    """The name of the format, and what its reader takes: ``path``, or the document in the folder ``path``.

    Raises:
        UserError: when it is of no known format.
    """
    if is_folder(path):
        return _in_folder(path)
    check_size(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        return "yolo", path
    with open(path, "rb") as stream:
        start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PK\x03\x04"):
        raise UserError(f"{visible_path(path)} is a zip archive; unpack it, and give the folder or the file in it")
    if start.startswith(b"<"):
        root = root_name(path)
        kinds = {"annotations": "cvat", "annotation": "voc"}
        if root in kinds:
            return kinds[root], path
        raise UserError(f"{visible_path(path)} is no XML of CVAT ('annotations') or Pascal VOC ('annotation')")
    if start.startswith(b"["):
        return "labelstudio", path
    if start.startswith(b"{"):
        return _of_object(path), path
    if b"\0" in start:
        raise UserError(f"{visible_path(path)} is no file of labels; JSON, XML, CSV or a folder is expected")
    return "csv", path


def _of_object(path: Path) -> str:
    names = _names_in(path)
    for name, kind in (("samples", "fiftyone"), ("data", "labelstudio"), ("images", "coco")):
        if name in names:
            return kind
    raise UserError(
        f"{visible_path(path)} is JSON of an unknown format; COCO has 'images', Label Studio 'data', FiftyOne 'samples'"
    )


def _names_in(path: Path) -> set[str]:
    """The names in an object, whose values are gone over and not built."""
    import msgspec

    content = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    try:
        return set(msgspec.json.decode(content, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set(decode_json(content, visible_path(path)))  # NaN, or a fault and where it is


def _in_folder(folder: Path) -> tuple[str, Path]:
    if any(is_file(folder / name) for name in _CLASSES) and is_folder(folder / "labels"):
        return "yolo", folder
    if is_file(folder / "classes.csv") and is_folder(folder / "labels"):
        return "class-ids", folder
    for name in _DOCUMENTS:
        if is_file(folder / name):
            return recognised(folder / name)
    if is_folder(folder / "Annotations") or any(folder.glob("*.xml")):
        return "voc", folder
    if is_file(folder / _TABLE):
        return "csv", folder / _TABLE
    if list_folders(folder) and find_photos([folder]):
        return "folders", folder
    raise UserError(
        f"{visible_path(folder)} is a folder of no known format: YOLO has data.yaml and labels, VOC Annotations; "
        "whole photos are in folders that are called by their words"
    )
