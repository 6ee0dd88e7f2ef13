"""The photos in an uncompressed tar archive, such as a shard of a web-dataset, read in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prompt_core.data.open_photo import PHOTO_BYTES, UnreadableImage, open_photo
from prompt_core.data.photo_files import is_photo_name
from prompt_core.data.tar_members import tar_members
from prompt_core.errors import UserError
from prompt_core.visible import visible, visible_path

ARCHIVE_ENDINGS = (".tar",)


@dataclass(frozen=True)
class ArchivePhoto:
    """A member of an archive.

    Attributes:
        archive: the file.
        member: its name there.
        offset, size: its bytes in the file.
    """

    archive: Path
    member: str
    offset: int
    size: int

    @property
    def label(self) -> str:
        """``/`` and its name."""
        return f"/{self.member}"

    @property
    def stem(self) -> str:
        """Its name without folders and ending."""
        return Path(self.member).stem

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 in RGB, upright.

        Raises:
            UserError: when it is no photo.
        """
        shown = visible(f"{self.archive}{self.label}")
        if self.size > PHOTO_BYTES:
            raise UserError(
                f"photo {shown} cannot be read: it has {self.size:,} bytes, at most {PHOTO_BYTES:,} are read"
            )
        with open(self.archive, "rb") as stream:
            stream.seek(self.offset)
            content = stream.read(self.size)
        try:
            return np.asarray(open_photo(content, self.member))
        except UnreadableImage as error:
            raise UserError(f"photo {shown} cannot be read: {error.reason}") from error


def archive_photos(archive: Path, endings: tuple[str, ...]) -> Iterator[ArchivePhoto]:
    """The members that are called like photos, in the order of the archive.

    Raises:
        UserError: when it is no uncompressed tar archive, is truncated, or holds no photo.
    """
    photos = 0
    for member, _ in tar_members(archive):
        if is_photo_name(member.name.rpartition("/")[2], endings):
            photos += 1
            yield ArchivePhoto(archive, member.name, member.offset_data, member.size)
    if not photos:
        raise UserError(f"archive {visible_path(archive)} holds no photo; endings {', '.join(endings)} are looked for")
