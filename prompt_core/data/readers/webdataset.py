"""Photos in tar shards of the WebDataset format: indexed once, then read in any order without unpacking.

It uses the standard library: ``webdataset`` reads shards only in order, and ``wids``, its index, cuts long member names
and does not detect truncated shards.
"""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import PHOTO_ENDINGS, is_file, read_lines
from prompt_core.data.photo_keys import KeyPacker
from prompt_core.data.tar_members import tar_members
from prompt_core.documents.bounds import SMALL_BYTES
from prompt_core.documents.json_files import decode_json, read_json
from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible_path
from prompt_core.vocabulary import Vocabulary

# Shards that a pattern may stand for; LAION-5B has 231,349.
SHARDS = 1_000_000
# Bytes of a member with a label, which is read into memory.
LABEL_BYTES = 1 << 20

_RANGE = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)
_BRACES = re.compile(r"\{([^{}]*)\}")


def webdataset_shards(pattern: str | Path) -> ImageSet:
    """Tar shards with members ``key.jpg`` (or another photo) and ``key.cls`` (an integer) or ``key.json`` (``label``).

    A sample's key is its path up to the first dot of the file name. Class names are in ``classes.txt`` (one per line)
    or ``classes.json`` (a list, an object from label to name, or a saved vocabulary, which also has ids) next to the
    first shard. A ``label`` that is a string
    must be one of these names. Only the tar headers and labels are read here; links are left out.

    Args:
        pattern: shard paths with braces (``shard-{0000..0003}.tar``, ``{a,b}.tar``) and ``*``, ``?``, ``[]``.

    Raises:
        UserError: when a shard or the class names are missing, a shard is compressed or truncated, or a photo has no
            valid label.
    """
    return photos_in_shards(expand_shards(str(pattern)), Path(pattern).name)


def photos_in_shards(paths: Sequence[Path], name: str) -> ImageSet:
    """The same in files that are known to be there; ``name`` says in results which they are."""
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    shards = tuple(path.absolute().relative_to(root).as_posix() for path in paths)
    names, ids = _classes(paths[0].parent)
    label_of_name = {name: label for label, name in enumerate(names)}
    packer = KeyPacker()
    labels: list[np.ndarray] = []
    members: list[np.ndarray] = []
    for number, path in enumerate(paths):
        photos, label_of = _index_shard(path)
        of_shard: list[int] = []
        for key, (member, _, _) in photos.items():
            label = label_of.get(key)
            if isinstance(label, str):
                label = label_of_name.get(label, label)
            if type(label) is not int or not 0 <= label < len(names):
                raise UserError(
                    f"{path}: photo {visible_path(member)} has label {shortened(label)}; expected "
                    f"0..{len(names) - 1} in its .cls or .json"
                )
            of_shard.append(label)
        count = packer.add(shards[number], (member for member, _, _ in photos.values()))
        labels.append(np.array(of_shard, dtype=np.int64))
        places = np.array([place[1:] for place in photos.values()], dtype=np.int64).reshape(count, 2)
        members.append(np.insert(places, 0, number, axis=1))
    keys = packer.keys()
    if not keys:
        raise UserError(
            f"no photos in the {len(paths)} shards of {paths[0].parent / name}: expected members such as key.jpg and "
            "key.cls"
        )
    return ImageSet(
        names, ids, np.concatenate(labels), keys, f"webdataset:{name}", root, shards, np.concatenate(members)
    )


def expand_shards(pattern: str) -> list[Path]:
    """The shard files that a pattern of braces and wildcards stands for, in order, each once.

    Raises:
        UserError: when a file that it names is absent, a wildcard matches nothing, or it stands for too many.
    """
    if "\0" in pattern:
        raise UserError(f"{shortened(pattern)} is no path of shards: it has a NUL")
    paths: dict[Path, None] = {}
    for text in [pattern] if is_file(Path(pattern)) else _expand_braces(pattern):
        matches = [text]
        if not Path(text).is_file():
            matches = sorted(glob.glob(text)) if glob.has_magic(text) else []  # noqa: PTH207 - the pattern may be absolute
        if not matches:
            raise UserError(f"expected a tar shard at {visible_path(text)}: no such file")
        paths.update((Path(match), None) for match in matches)
    return list(paths)


def _expand_braces(pattern: str) -> list[str]:
    choices = [_choices(inner) for inner in _BRACES.findall(pattern)]
    count = math.prod(len(parts) for parts in choices)
    if count > SHARDS:
        raise UserError(f"{shortened(pattern, 200)} stands for {count:,} shards; at most {SHARDS:,} are expected")
    between = _BRACES.split(pattern)[::2]  # the text before, between and after the braces
    return [
        "".join(itertools.chain(*itertools.zip_longest(between, chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    ]


def _choices(inner: str) -> Sequence[str]:
    span = _RANGE.fullmatch(inner)
    if span is None:
        return inner.split(",")
    first, last = span.groups()
    count = abs(int(last[:18]) - int(first[:18])) + 1
    if count > SHARDS or len(inner) > 40:
        raise UserError(f"{{{visible_path(inner)}}} stands for {count:,} shards; at most {SHARDS:,} are expected")
    width = len(first) if first.startswith("0") else 0
    step = 1 if int(last) >= int(first) else -1
    return [str(value).zfill(width) for value in range(int(first), int(last) + step, step)]


def _index_shard(path: Path) -> tuple[dict[str, tuple[str, int, int]], dict[str, object]]:
    """For each key: (member name, offset, size) of the photo, and the label."""
    photos: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, object] = {}
    for member, shard in tar_members(path, "tar shard"):
        folder, _, file_name = member.name.rpartition("/")
        stem, _, extension = file_name.partition(".")
        key, extension = (f"{folder}/{stem}" if folder else stem), extension.lower()
        is_photo = f".{extension}" in PHOTO_ENDINGS
        if not stem or not (is_photo or extension in ("cls", "json")):
            continue
        if is_photo:
            photos[key] = (member.name, member.offset_data, member.size)
            continue
        if member.size > LABEL_BYTES:
            raise UserError(
                f"tar shard {path}: label {visible_path(member.name)} has {member.size:,} bytes; at most "
                f"{LABEL_BYTES:,} are expected"
            )
        stream = shard.extractfile(member)
        content = stream.read() if stream is not None else b""
        if extension == "cls":
            labels[key] = _integer(content)
        else:
            label = _json_label(content)
            if label is not None:
                labels.setdefault(key, label)
    return photos, labels


def _integer(content: bytes) -> object:
    text = content.decode("utf-8", "replace").strip()
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else text


def _json_label(content: bytes) -> object:
    try:
        document = decode_json(content, "a label")
    except UserError:
        return None
    return document.get("label") if isinstance(document, dict) else None


def _classes(folder: Path) -> tuple[list[str], list[str]]:
    """Names and ids of the classes; without ids of their own these are the names, or numbers and names."""
    document = folder / "classes.json"
    value = None if (folder / "classes.txt").is_file() or not document.is_file() else read_json(document, SMALL_BYTES)
    if isinstance(value, dict) and isinstance(value.get("names"), list):
        vocabulary = Vocabulary.load(document)
        return list(vocabulary.names), [str(identity) for identity in vocabulary.ids or vocabulary.names]
    names = _class_names(folder, value)
    unique = len(set(names)) == len(names)
    return names, names if unique else [f"{label} {name}" for label, name in enumerate(names)]


def _class_names(folder: Path, value: object) -> list[str]:
    """Names of ``classes.txt``, or of the document ``value``."""
    text, document = folder / "classes.txt", folder / "classes.json"
    if text.is_file():
        names = read_lines(text, "class names")
    elif document.is_file():
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
