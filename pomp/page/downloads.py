"""What was found, as a file of another tool; written, read back and deleted at once."""

from __future__ import annotations

import base64
import io
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from pomp.formats import coco_json, yolo_folder
from pomp.showing.answer import Answer
from prompt_core.errors import UserError

KINDS = ("COCO", "YOLO")


def download(kind: str, found: Sequence[Answer], threshold: float) -> dict[str, str]:
    """A file of the newest answer at a threshold; of two side by side, that of the learned prompt.

    Args:
        kind: one of :data:`KINDS`.
        found: as the page shows them.

    Returns:
        ``name`` of the file and ``data``, its bytes in base64.

    Raises:
        UserError: when nothing is shown yet.
    """
    if not found:
        raise UserError("there is nothing to download yet; pick a photo and type a word")
    answer = found[-1]
    photo = replace(answer.at(threshold), path=None)  # what was sent is not sent back
    stem = PurePath(photo.name).stem
    with tempfile.TemporaryDirectory(prefix="pomp-download-") as place:
        folder = Path(place) / f"{stem}_{kind.lower()}"
        if kind == "COCO":
            folder.mkdir()
            coco_json.write(lambda: iter([photo]), answer.words, folder)
            return _sent(f"{stem}_coco.json", (folder / coco_json.DOCUMENT).read_bytes())
        yolo_folder.write(lambda: iter([photo]), answer.words, folder)
        return _sent(f"{stem}_yolo.zip", _zipped(folder))


def _sent(name: str, data: bytes) -> dict[str, str]:
    return {"name": name, "data": base64.b64encode(data).decode("ascii")}


def _zipped(folder: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder.parent).as_posix())
    return file.getvalue()
