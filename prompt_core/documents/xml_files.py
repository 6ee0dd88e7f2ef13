"""XML from outside, read piece by piece: bounded in bytes and depth, without document types and entities.

A few lines of entities of entities stand for gigabytes of text, and an entity may name a file of the reader's machine.
Documents of labels need neither: a document type is refused where it begins, before anything of it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from prompt_core.documents.bounds import ANNOTATION_BYTES, check_size
from prompt_core.errors import UserError
from prompt_core.visible import visible, visible_path

# Levels of nesting; CVAT's have five.
DEPTH = 50
_PIECE = 1 << 16
# What XML 1.0 cannot say, also not as an escape.
_UNSAYABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_xml(path: Path) -> ElementTree.Element:
    """The root of a document, with all that is in it.

    Raises:
        UserError: when it is absent, too large, nested too deeply or no XML, or has a document type.
    """
    return next(elements(path, 0))


def elements(path: Path, level: int) -> Iterator[ElementTree.Element]:
    """The elements of one level of a document, each when it ends; what was given is forgotten.

    Args:
        level: 0 for the root, 1 for what is directly in it.

    Raises:
        UserError: as :func:`read_xml`.
    """
    check_size(path, ANNOTATION_BYTES)
    reader = _Reader(path, level)
    with open(path, "rb") as stream:
        while piece := stream.read(_PIECE):
            yield from reader.feed(piece)
        yield from reader.feed(b"", last=True)


def root_name(path: Path) -> str:
    """The name of a document's root, from its first 64 KiB; empty where they have none.

    Raises:
        UserError: when what is before it is no XML or a document type.
    """
    reader = _Reader(path, 0)
    with open(path, "rb") as stream:
        try:
            list(reader.feed(stream.read(_PIECE)))
        except UserError:
            if not reader.root:
                raise
    return reader.root


def sayable(text: str) -> str:
    r"""``text`` with an escape such as ``\x01`` for each sign that no XML document can hold."""
    return _UNSAYABLE.sub(lambda sign: sign.group().encode("unicode_escape").decode("ascii"), text)


class _Reader:
    def __init__(self, path: Path, level: int) -> None:
        self.root = ""
        self._path, self._level, self._depth = path, level, 0
        self._builder = ElementTree.TreeBuilder()
        self._ended: list[ElementTree.Element] = []
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.EntityDeclHandler = self._refuse

    def feed(self, piece: bytes, last: bool = False) -> list[ElementTree.Element]:
        try:
            self._parser.Parse(piece, last)
        except expat.ExpatError as error:
            raise UserError(f"{visible_path(self._path)} is not valid XML: {visible(str(error))}") from error
        ended, self._ended = self._ended, []
        return ended

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.root = self.root or name
        if self._depth >= DEPTH:
            raise UserError(f"{visible_path(self._path)}: more than {DEPTH} levels of nesting")
        if self._depth == self._level:
            self._builder = ElementTree.TreeBuilder()
        if self._depth >= self._level:
            self._builder.start(name, attributes)
        self._depth += 1

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth >= self._level:
            self._builder.end(name)
        if self._depth == self._level:
            self._ended.append(self._builder.close())

    def _text(self, text: str) -> None:
        if self._depth > self._level:
            self._builder.data(text)

    def _refuse(self, *_: object) -> NoReturn:
        line = self._parser.CurrentLineNumber
        raise UserError(
            f"{visible_path(self._path)}, line {line}: a document type; labels need none, and its entities could read "
            "files or fill the memory, so delete it"
        )
