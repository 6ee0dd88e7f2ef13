"""Photos in tar shards of the WebDataset format: indexed once, then read in any order without unpacking.

It uses the standard library: ``webdataset`` reads shards only in order, and ``wids``, its index, cuts long member names
and does not detect truncated shards.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import PHOTO_ENDINGS, read_lines
from prompt_core.errors import UserError
from prompt_core.files import read_json

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*)\}")


def webdataset_shards(pattern: str | Path) -> ImageSet:
    """Tar shards with members ``key.jpg`` (or another photo) and ``key.cls`` (an integer) or ``key.json`` (``label``).

    A sample's key is its path up to the first dot of the file name. Class names are in ``classes.txt`` (one per line)
    or ``classes.json`` (a list, or an object from label to name) next to the first shard. A ``label`` that is a string
    must be one of these names. Only the tar headers and labels are read here; links are left out.

    Args:
        pattern: shard paths with braces (``shard-{0000..0003}.tar``, ``{a,b}.tar``) and ``*``, ``?``, ``[]``.

    Raises:
        UserError: when a shard or the class names are missing, a shard is compressed or truncated, or a photo has no
            valid label.
    """
    paths = expand_shards(str(pattern))
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    shards = tuple(path.absolute().relative_to(root).as_posix() for path in paths)
    names = _class_names(paths[0].parent)
    label_of_name = {name: label for label, name in enumerate(names)}
    keys: list[str] = []
    labels: list[int] = []
    members: list[tuple[int, int, int]] = []
    for number, path in enumerate(paths):
        photos, label_of = _index_shard(path)
        for key, (member, offset, size) in photos.items():
            label = label_of.get(key)
            if isinstance(label, str):
                label = label_of_name.get(label, label)
            if type(label) is not int or not 0 <= label < len(names):
                raise UserError(
                    f"{path}: photo {member} has label {label!r}; expected 0..{len(names) - 1} in its .cls or .json"
                )
            keys.append(f"{shards[number]}/{member}")
            labels.append(label)
            members.append((number, offset, size))
    if not keys:
        raise UserError(
            f"no photos in the {len(paths)} shards of {pattern}: expected members such as key.jpg and key.cls"
        )
    ids = names if len(label_of_name) == len(names) else [f"{label} {name}" for label, name in enumerate(names)]
    source = f"webdataset:{Path(pattern).name}"
    return ImageSet(names, ids, np.asarray(labels), keys, source, root, shards, np.asarray(members, dtype=np.int64))


def expand_shards(pattern: str) -> list[Path]:
    """The shard files that a pattern of braces and wildcards stands for, in order, each once.

    Raises:
        UserError: when a file that it names is absent, or a wildcard matches nothing.
    """
    paths: dict[Path, None] = {}
    for text in _expand_braces(pattern):
        matches = [text]
        if not Path(text).is_file():
            matches = sorted(glob.glob(text)) if glob.has_magic(text) else []  # noqa: PTH207 - the pattern may be absolute
        if not matches:
            raise UserError(f"expected a tar shard at {text}: no such file")
        paths.update((Path(match), None) for match in matches)
    return list(paths)


def _expand_braces(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    inner = match.group(1)
    span = _RANGE.fullmatch(inner)
    if span:
        first, last = span.groups()
        width = len(first) if first.startswith("0") else 0
        step = 1 if int(last) >= int(first) else -1
        parts = [str(value).zfill(width) for value in range(int(first), int(last) + step, step)]
    else:
        parts = inner.split(",")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [head + part + rest for part in parts for rest in _expand_braces(tail)]


def _index_shard(path: Path) -> tuple[dict[str, tuple[str, int, int]], dict[str, object]]:
    """For each key: (member name, offset, size) of the photo, and the label."""
    photos: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, object] = {}
    try:
        total = path.stat().st_size
        with tarfile.open(path, mode="r:") as shard:
            for member in shard:
                if not member.isreg():
                    continue
                folder, _, file_name = member.name.rpartition("/")
                stem, _, extension = file_name.partition(".")
                key, extension = (f"{folder}/{stem}" if folder else stem), extension.lower()
                is_photo = f".{extension}" in PHOTO_ENDINGS
                if not stem or not (is_photo or extension in ("cls", "json")):
                    continue
                if member.offset_data + member.size > total:
                    raise UserError(f"tar shard {path} is truncated inside {member.name}; copy it again")
                if is_photo:
                    photos[key] = (member.name, member.offset_data, member.size)
                    continue
                stream = shard.extractfile(member)
                content = stream.read() if stream is not None else b""
                if extension == "cls":
                    labels[key] = _integer(content)
                else:
                    label = _json_label(content)
                    if label is not None:
                        labels.setdefault(key, label)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UserError(f"cannot read tar shard {path}: {error}; expected an uncompressed tar file") from error
    return photos, labels


def _integer(content: bytes) -> object:
    text = content.decode("utf-8", "replace").strip()
    return int(text) if re.fullmatch(r"\d+", text, re.ASCII) else text


def _json_label(content: bytes) -> object:
    try:
        document = json.loads(content)
    except ValueError:
        return None
    return document.get("label") if isinstance(document, dict) else None


def _class_names(folder: Path) -> list[str]:
    text, document = folder / "classes.txt", folder / "classes.json"
    if text.is_file():
        names = read_lines(text, "class names")
    elif document.is_file():
        value = read_json(document)
        if isinstance(value, dict):
            try:
                value = [value[str(label)] for label in range(len(value))]
            except KeyError as error:
                raise UserError(f"{document}: label {error} has no name; expected labels 0..{len(value) - 1}") from None
        names = value if isinstance(value, list) else []
        if not all(isinstance(name, str) and name for name in names):
            raise UserError(f"{document}: expected a list of class names, or an object from label to name")
    else:
        raise UserError(f"expected class names at {text} (one per line) or {document}: no such file")
    if not names:
        raise UserError(f"no class names in {text if text.is_file() else document}")
    return names
