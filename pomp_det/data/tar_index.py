"""ImageNet-21K's photos by one running number through its archives, as Detic's lists name them (``tar_index``).

Detic reads two kinds of files: ``tar_files.npy`` with the paths of the archives, and for each archive
``NAME_offsets.npy`` with the block of 512 bytes at which each member begins, and the block behind the last one.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

from pomp_engine.data.tar_images import read_tar_bytes
from prompt_core.data.tar_members import BEFORE_HEADER, Header
from prompt_core.documents.bounds import TABLE_BYTES
from prompt_core.documents.npy_files import read_npy
from prompt_core.errors import UserError

BLOCK = 512  # bytes


class TarIndex:
    """Where each photo lies.

    Attributes:
        archives: paths of the archives.
    """

    def __init__(self, archives_file: str | Path, index_folder: str | Path) -> None:
        """
        Args:
            archives_file: ``tar_files.npy`` (``DATALOADER.TARFILE_PATH``).
            index_folder: with the ``NAME_offsets.npy`` (``DATALOADER.TAR_INDEX_DIR``).

        Raises:
            UserError: when one is absent or is no such file.
        """
        self.archives = [str(path) for path in _array(Path(archives_file), "U")]
        if not self.archives:
            raise UserError(f"{archives_file} lists no archives")
        self._offsets = [_array(Path(index_folder) / f"{Path(path).stem}_offsets.npy", "i") for path in self.archives]
        self._ends = np.cumsum([len(offsets) - 1 for offsets in self._offsets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, number: int) -> tuple[str, int, int]:
        """Path of the archive, and offset and size in bytes of the photo.

        Raises:
            UserError: for a number beyond the last photo.
            OSError: when the archive cannot be read, or has no member there.
        """
        if not 0 <= number < len(self):
            raise UserError(f"photo {number} of the ImageNet-21K archives was asked for; the index has {len(self):,}")
        archive = int(np.searchsorted(self._ends, number, side="right"))
        offsets, path = self._offsets[archive], self.archives[archive]
        local = number - int(self._ends[archive]) + len(offsets) - 1
        return path, *_content(path, int(offsets[local]) * BLOCK)


def _content(path: str, start: int) -> tuple[int, int]:
    """Offset and size of the content of the member whose first header is at ``start``."""
    while True:
        try:
            header = Header.frombuf(read_tar_bytes(path, start, BLOCK), "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise OSError(f"{path} has no member at byte {start}: {error}") from error
        start += BLOCK
        if header.type not in BEFORE_HEADER:
            return start, header.size
        start += -(-header.size // BLOCK) * BLOCK


def _array(path: Path, kind: str) -> np.ndarray:
    """A one-dimensional array of texts (``U``) or whole numbers (``i``)."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; DATALOADER.USE_TAR_DATASET needs it (TARFILE_PATH, TAR_INDEX_DIR)")
    array = read_npy(path, TABLE_BYTES)
    if array.ndim != 1 or array.dtype.kind != kind or (kind == "i" and not len(array)):
        wanted = "paths of archives" if kind == "U" else "offsets of members"
        raise UserError(f"{path}: a list of {wanted} was expected, found {array.dtype} {array.shape}")
    return array
