"""What a run over many photos has found so far, on disk photo by photo, for the run that goes on after it was stopped.

::

    {"identity": {…}}                                                     what found it
    {"number": 1, "file_name": …, "bytes": …, "modified": …, "record": {…}, "_sha256": …}   one line for each photo

A run that was killed leaves at most one incomplete line, which is dropped. Lines are on the disk after five seconds at
the latest, so that a power failure costs little more; what it leaves behind the first damaged line is dropped too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from prompt_core.documents.json_files import decode_json
from prompt_core.documents.schema import check
from prompt_core.documents.sealed_json import opened, sealed
from prompt_core.errors import UserError
from prompt_core.photos.photo_list import NamedPhoto
from prompt_core.temporary_files import appending_to, flush_folder, flush_to_disk
from prompt_core.visible import visible_path

# Bytes of a line; thousands of detections with masks take a few megabytes.
LINE_BYTES = 256 << 20
# Between waits for the disk, which take about 20 ms each.
FLUSH_SECONDS = 5.0


class Line(msgspec.Struct, gc=False):
    """One photo."""

    number: int
    file_name: str
    bytes: int
    modified: int
    record: dict[str, Any]


class PartFile:
    """Records of photos, of which only places in the file are held in memory.

    Args:
        path: of the file, which is made with the first record.
        identity: what the records depend on besides the photos: JSON of plain values by name.

    Raises:
        UserError: when the file holds records of another identity.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._places: dict[int, tuple[tuple[str, int, int], int]] = {}  # by number: photo, byte in the file
        self._end = 0
        if path.is_file():
            with open(path, "rb") as stream:
                self._index(stream)
        self._stream: BinaryIO | None = None
        self._flushed = 0.0

    def __enter__(self) -> PartFile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            with appending_to(self.path):
                self._stream.close()
                flush_to_disk(self.path)
            self._stream = None

    def holds(self, photo: NamedPhoto) -> bool:
        """Whether there is a record of this photo, as the file is now."""
        found = self._places.get(photo.number)
        return found is not None and found[0] == _state(photo)

    def append(self, photo: NamedPhoto, record: dict[str, Any]) -> None:
        """Add the record of a photo, or replace it.

        Raises:
            UserError: when it has a number that is not finite.
        """
        state = _state(photo)
        line = {"number": photo.number, "file_name": state[0], "bytes": state[1], "modified": state[2]}
        try:
            text = json.dumps(sealed({**line, "record": record}), allow_nan=False) + "\n"
        except ValueError as error:
            raise UserError(f"photo {visible_path(photo.path)} got a number that is not finite ({error})") from error
        if self._stream is None:
            self._stream = self._opened()
        place = self._stream.tell()
        with appending_to(self.path):
            self._stream.write(text.encode("ascii"))
            self._stream.flush()
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                flush_to_disk(self.path)
                self._flushed = time.monotonic()
        self._places[photo.number] = state, place

    def records(self, photos: Sequence[NamedPhoto]) -> Iterator[tuple[NamedPhoto, dict[str, Any]]]:
        """Photos that have a record with it, in their order; one record is in memory at a time."""
        if not any(photo.number in self._places for photo in photos):
            return
        with open(self.path, "rb") as stream:
            for photo in photos:
                if photo.number in self._places:
                    place = self._places[photo.number][1]
                    stream.seek(place)
                    yield photo, self._line(stream.readline(LINE_BYTES), place).record

    def forget_others(self, photos: Sequence[NamedPhoto]) -> int:
        """Leave out records of photos that are no longer asked for or have changed; returns how many."""
        kept = {photo.number: self._places[photo.number] for photo in photos if self.holds(photo)}
        others = len(self._places) - len(kept)
        self._places = kept
        return others

    def _opened(self) -> BinaryIO:
        """The file, open behind its last complete line."""
        stream = open(self.path, "r+b" if self._end else "wb")  # noqa: SIM115 - closed by __exit__
        stream.truncate(self._end)
        stream.seek(self._end)
        if not self._end:
            stream.write(json.dumps({"identity": self._identity}).encode("ascii") + b"\n")
            flush_folder(self.path.parent)
        return stream

    def _index(self, stream: BinaryIO) -> None:
        first = stream.readline(LINE_BYTES)
        if not first.endswith(b"\n"):
            return
        self._check_identity(first)
        self._end = len(first)
        while text := stream.readline(LINE_BYTES):
            try:
                line = self._line(text, self._end)
            except UserError:
                return
            self._places[line.number] = (line.file_name, line.bytes, line.modified), self._end
            self._end += len(text)

    def _check_identity(self, first: bytes) -> None:
        header = decode_json(first, visible_path(self.path))
        before = header.get("identity") if isinstance(header, dict) else None
        if before == self._identity:
            return
        known = before if isinstance(before, dict) else {}
        names = known.keys() | self._identity.keys()
        changed = sorted(name for name in names if known.get(name) != self._identity.get(name))
        raise UserError(
            f"{visible_path(self.path)} holds what an unfinished run found with other settings ({', '.join(changed)}); "
            "finish that run, choose another --output, or delete the file to begin anew"
        )

    def _line(self, text: bytes, place: int) -> Line:
        where = f"{visible_path(self.path)}, the line at byte {place}"
        if not text.endswith(b"\n"):
            raise UserError(f"{where} is incomplete")
        return check(opened(decode_json(text, where), where), Line, where)


def _state(photo: NamedPhoto) -> tuple[str, int, int]:
    """What tells a photo from another, or from itself after it was changed: name, bytes, time in nanoseconds."""
    try:
        status = photo.path.stat()
    except OSError:
        return photo.name, -1, -1
    return photo.name, status.st_size, status.st_mtime_ns
