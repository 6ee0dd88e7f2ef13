"""Members of tar archives from outside: names that stay inside, sizes that are true, a bounded number.

Archives are read in place and never unpacked. What is no plain file (links, devices, sparse files) is left out.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from prompt_core.data.photo_files import inside
from prompt_core.documents.bounds import check_size
from prompt_core.errors import UserError
from prompt_core.visible import visible, visible_path

# Members of one archive: ImageNet-21K's largest class has 3,000, a shard of LAION 10,000.
MEMBERS = 1_000_000
ARCHIVE_BYTES = 1 << 44
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


def tar_members(path: Path, what: str = "archive") -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The plain files of an uncompressed archive, each with the archive, whose ``extractfile`` reads it.

    Args:
        what: what the archive is, for messages.

    Raises:
        UserError: when it is not an uncompressed tar archive, or truncated, or has too many members or one whose name
            leads out.
    """
    total = check_size(path, ARCHIVE_BYTES)
    shown = visible_path(path)
    try:
        with tarfile.open(path, mode="r:", tarinfo=Header) as archive:
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
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = visible(" ".join(str(error).split())[:200])
        raise UserError(f"cannot read {what} {shown}: {reason}; expected an uncompressed tar file") from error
