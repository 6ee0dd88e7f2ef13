"""Photos that people send to the page: bounded, read once, never kept."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from prompt_core.data.open_photo import read_photo, upright_size
from prompt_core.errors import UserError
from prompt_core.visible import visible

MAX_BYTES = 25 << 20
MAX_PIXELS = 40_000_000


def take_photo(path: str | os.PathLike[str]) -> np.ndarray:
    """The pixels of a file that was sent, (H, W, 3) uint8 in RGB; the file is gone afterwards, whatever it was.

    Raises:
        UserError: when it is too large or no photo.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"{visible(file.name)} has {size / 2**20:.0f} MB, and the page takes {MAX_BYTES >> 20}; send it "
                "smaller, or give it to pomp detect"
            )
        width, height = upright_size(file, file.name)
        if width * height > MAX_PIXELS:
            raise UserError(
                f"{visible(file.name)} has {width * height / 1e6:.0f} megapixels, and the page takes "
                f"{MAX_PIXELS / 1e6:.0f}; send it smaller, or give it to pomp detect"
            )
        return read_photo(file)
    except OSError as error:
        raise UserError(f"{visible(file.name)} cannot be read: {error.strerror}; send it again") from error
    finally:
        file.unlink(missing_ok=True)
