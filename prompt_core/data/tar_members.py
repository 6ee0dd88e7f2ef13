"""Members of tar archives from outside: names that stay inside, sizes that are true, a bounded number.

Archives are read in place and never unpacked. What is no plain file (links, devices, sparse files) is left out.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prompt_core.data.photo_files import inside
from prompt_core.documents.bounds import check_size
from prompt_core.errors import UserError
from prompt_core.visible import visible, visible_path

# Members of one archive: ImageNet-21K's largest class has 3,000, a shard of LAION 10,000.
MEMBERS = 1_000_000
ARCHIVE_BYTES = 1 << 44
# Of the longest record that an archive is filled up to.
RECORD_BYTES = 1 << 20
GZIP = b"\x1f\x8b"  # first bytes of a file that gzip wrote
# A name that does not fit a header, and what else a header has no room for, comes before it as a member of its own.
BEFORE_HEADER = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
# Bytes of such a member; it is read into memory.
HEADER_BYTES = 1 << 20


class Header(tarfile.TarInfo):
    """A member's header whose size is believable."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        """A header from its 512 bytes.

        Raises:
            tarfile.HeaderError: when they are no header.
            tarfile.ReadError: for a negative size, which sends a reader back, or a name of more than a megabyte.
        """
        header: Header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            raise tarfile.ReadError(f"a member claims {header.size} bytes")
        if header.type in BEFORE_HEADER and header.size > HEADER_BYTES:
            raise tarfile.ReadError(f"the name of a member claims {header.size:,} bytes")
        return header


class Window(io.RawIOBase):
    """A part of a file as a file, such as an archive in an archive.

    Args:
        stream: the whole file, unbuffered; it is closed with this.
    """

    def __init__(self, stream: io.RawIOBase, start: int, size: int) -> None:
        self._stream, self._start, self._size, self._at = stream, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        self._stream.seek(self._start + self._at)
        content = self._stream.read(count) or b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def tar_members(
    path: Path, what: str = "archive", start: int = 0, size: int | None = None
) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The plain files of an uncompressed archive, each with the archive, whose ``extractfile`` reads it.

    Args:
        what: what the archive is, for messages.
        start: where in the file it begins: archives may lie in an archive. Offsets of members count from there.
        size: its bytes; None for all that follow.

    Raises:
        UserError: when it is not an uncompressed tar archive, or truncated or damaged, which is noticed behind the
            members that are whole, or has too many members or one whose name leads out.
    """
    total = check_size(path, ARCHIVE_BYTES) - start
    if size is not None and size > total:
        raise UserError(f"{what} {visible_path(path)} is truncated; copy it again")
    total = total if size is None else size
    shown = visible_path(path)
    try:
        with (
            Window(open(path, "rb", buffering=0), start, total) as window,
            tarfile.open(fileobj=_uncompressed(window), mode="r:", tarinfo=Header) as archive,
        ):
            for number, member in enumerate(archive):
                if number >= MEMBERS:
                    raise UserError(f"{what} {shown} has more than {MEMBERS:,} members; pack it in several")
                if not member.isreg() or member.issparse():
                    continue
                inside(member.name, f"{what} {shown}")
                if member.offset_data + member.size > total:
                    name = visible_path(member.name)
                    raise UserError(f"{what} {shown} is truncated inside {name}; copy it again")
                yield member, archive
            if fault := _fault_at_end(window, archive.offset, total):
                raise UserError(f"{what} {shown} {fault}; copy it again")
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = visible(" ".join(str(error).split())[:200])
        raise UserError(f"cannot read {what} {shown}: {reason}; expected an uncompressed tar file") from error


def _uncompressed(window: Window) -> Window:
    """The window, unless it is of a gzip file."""
    if window.read(2) == GZIP:
        raise ValueError(
            "it is compressed by gzip, of which no part can be read alone; unpack it once: gzip -dc FILE > FILE.tar"
        )
    window.seek(0)
    return window


def _fault_at_end(window: Window, offset: int, total: int) -> str | None:
    """What is wrong behind the last member, where tarfile stops without a word whatever it finds."""
    window.seek(offset)
    mark = window.read(tarfile.BLOCKSIZE) or b""
    if len(mark) < tarfile.BLOCKSIZE:
        return "is truncated: it has no end mark"
    if any(mark):
        return f"is damaged at byte {offset:,}"
    left = total - window.tell()
    # The last record is filled up with zeros; a hole in a download is longer, or other members follow it.
    if left > RECORD_BYTES or any(window.read(left) or b""):
        return f"ends at byte {offset:,} of {total:,}: a part is empty, or another archive follows"
    return None
