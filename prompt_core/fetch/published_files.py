"""The list of published files: address, size, checksum, licence, place, and the command that builds one instead.

Read from ``assets/published_files.json``. Sizes and checksums are there only where a source states them or the bytes
were at hand; nothing is estimated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from prompt_core.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file that configurations or data sets name, and how to get it.

    Attributes:
        name: what ``tools/fetch.py`` calls it; the file's name, or its path for what a run writes.
        path: its place as configurations write it: below ``datasets/``, ``models/``, ``runs/`` or ``output/``, in
            Detectron2's cache (``detectron2://``) or in a Python package (``package://``).
        what: what is in it.
        source: where address, size and checksum are stated.
        groups: it is fetched with them, and missing when it is absent.
        optional_for: groups that can do without it; it is listed with them.
        also: other paths under which configurations ask for it.
        address: where it is downloaded.
        page: where a person downloads it, when the address is not a plain download (Google Drive).
        size: bytes, where known.
        sha256: of its bytes, where known.
        licence: as the publisher states it.
        shape: (classes, width) of a class matrix.
        vocabulary: the vocabulary whose classes are the rows of a class matrix.
        unpacks: paths that the archive gives; the archive itself is not kept.
        made_from: name of the file that it is converted from.
        build: commands that make it here instead.
        note: anything else a person must know.
    """

    name: str
    path: str
    what: str
    source: str
    groups: tuple[str, ...] = ()
    optional_for: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    address: str | None = None
    page: str | None = None
    size: int | None = None
    sha256: str | None = None
    licence: str | None = None
    shape: tuple[int, ...] = ()
    vocabulary: str | None = None
    unpacks: tuple[str, ...] = ()
    made_from: str | None = None
    build: tuple[str, ...] = ()
    note: str = ""

    @property
    def fetchable(self) -> bool:
        """Whether ``tools/fetch.py`` can try to bring it."""
        return self.address is not None or self.made_from is not None


@cache
def published_files() -> tuple[PublishedFile, ...]:
    """Every file of the list, in its order."""
    text = resources.files("prompt_core").joinpath("assets/published_files.json").read_text(encoding="utf-8")
    lists = {field.name for field in fields(PublishedFile) if str(field.type).startswith("tuple")}
    return tuple(_read_entry(entry, lists) for entry in json.loads(text)["files"])


def _read_entry(entry: dict[str, Any], lists: set[str]) -> PublishedFile:
    values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in entry.items()}
    return PublishedFile(**values)


def groups() -> tuple[str, ...]:
    """Names of the groups, in the order of the list."""
    return tuple(dict.fromkeys(group for file in published_files() for group in file.groups))


def of_group(group: str) -> list[PublishedFile]:
    """Files that are fetched with a group."""
    return [file for file in published_files() if group in file.groups]


def optional_for(group: str) -> list[PublishedFile]:
    """Files that are listed with a group, which can do without them."""
    return [file for file in published_files() if group in file.optional_for and group not in file.groups]


def find_file(name: str) -> PublishedFile | None:
    """The file of a name, of a path as configurations write it, or of any other path with its file name."""
    plain = name.removeprefix("./")
    for file in published_files():
        if plain in (file.name, file.path, *file.also, *file.unpacks):
            return file
    base = PurePosixPath(name).name
    return next((file for file in published_files() if file.name == base), None)


def select_files(names: Iterable[str]) -> list[PublishedFile]:
    """The files of names and groups, each once.

    Raises:
        UserError: for an unknown name, with the nearest known ones.
    """
    chosen: dict[str, PublishedFile] = {}
    for name in names:
        members = of_group(name) if name in groups() else [file for file in [find_file(name)] if file is not None]
        if not members:
            known = [*groups(), *(file.name for file in published_files())]
            raise UserError(
                f"{name!r} is neither a published file nor a group of them{nearest(name, known)}; "
                f"the groups are {', '.join(groups())}, and --list shows the files"
            )
        chosen |= {file.name: file for file in members}
    return list(chosen.values())
