"""The folder of a demo: nobody's files are written over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from prompt_core.errors import UserError
from prompt_core.files import make_output_folder, read_json, write_json

MARKER = "demo.json"
# The marker of every demo, wherever the code is installed.
MADE_BY = "prompt_core.demo"


def claim_folder(output: str | os.PathLike[str], delete: Sequence[str] = ()) -> Path:
    """The output folder, marked as a demo's.

    Args:
        delete: patterns of files of an earlier demo to delete; folders that become empty go with them.

    Raises:
        UserError: when it holds files but no demo.
    """
    folder = make_output_folder(output)
    marker = folder / MARKER
    if any(folder.iterdir()):
        mark = read_json(marker) if marker.is_file() else None
        if not isinstance(mark, dict) or mark.get("made_by") != MADE_BY:
            raise UserError(f"{folder} holds files but no earlier demo; choose another --output, or an empty folder")
    for file in [file for pattern in delete for file in folder.glob(pattern)]:
        file.unlink()
        # A folder that holds anything else as well stays.
        with contextlib.suppress(OSError):
            file.parent.rmdir()
    write_json(marker, {"made_by": MADE_BY})
    return folder
