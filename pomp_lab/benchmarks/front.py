"""What ``pomp classify``, ``detect`` and ``segment`` cost for a folder of photos: time for each, and memory."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from pomp.labelling.outputs import Outputs
from pomp.models.load import load
from pomp.shipped_photos import PHOTOS
from prompt_core.data.open_photo import opened_image
from prompt_core.photos.photo_list import list_photos_to_predict
from prompt_core.photos.photo_loop import predict_photos

DISTINCT = 6  # photos; the others are links to them
RATIO = 4 / 3  # width by height, of most cameras
_QUALITY = 90


def measure_folder(
    task: str, words: str, photos: int, megapixels: float, pictures: bool, threads: int, early: int = 100
) -> dict[str, Any]:
    """Label a folder of photos as the command does, in this process.

    Args:
        words: as ``--words``.
        megapixels: of each photo, which is a shipped one, enlarged.
        pictures: whether pictures are drawn, or contact sheets made.
        early: the photo after which memory counts as taken; what grows later grows with the number of photos.

    Returns:
        ``photos_per_second``, ``cpu_seconds_per_photo``, ``load_seconds``, and resident bytes after ``early`` and after
        all photos, with their ratio.
    """
    import torch

    torch.set_num_threads(threads)
    began = time.monotonic()
    model = load("mini", task).words(words)
    seconds_to_load = time.monotonic() - began
    resident: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as place:
        _write_photos(Path(place, "photos"), photos, megapixels)
        listed = list_photos_to_predict([Path(place, "photos")], Path(place, "out"))
        clocks = time.monotonic(), time.process_time()

        def told(done: int, total: int) -> None:
            if done in (early, total):
                resident[done] = resident_bytes()

        outcome = predict_photos(model.photo_task(Outputs(pictures=pictures)), listed, Path(place, "out"), told)
        seconds, of_processor = time.monotonic() - clocks[0], time.process_time() - clocks[1]
    if outcome.skipped:
        raise RuntimeError(f"{len(outcome.skipped)} photos were left out")
    result: dict[str, Any] = {
        "words": len(model.names),
        "photos": photos,
        "megapixels": megapixels,
        "pictures": pictures,
        "threads": threads,
        "load_seconds": round(seconds_to_load, 2),
        "photos_per_second": round(photos / seconds, 3),
        "cpu_seconds_per_photo": round(of_processor / photos, 4),
    }
    if early in resident and early < photos:
        ratio = round(resident[photos] / resident[early], 4)
        result["resident_bytes"] = {
            f"photo {early}": resident[early],
            f"photo {photos}": resident[photos],
            "ratio": ratio,
        }
    return result


def resident_bytes() -> int:
    """Memory of this process (VmRSS)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _write_photos(folder: Path, count: int, megapixels: float) -> None:
    """``count`` names for :data:`DISTINCT` photos."""
    folder.mkdir()
    height = round((megapixels * 1e6 / RATIO) ** 0.5)
    size = round(RATIO * height), height
    originals = sorted(PHOTOS.glob("*.jpg"))[:DISTINCT]
    for number in range(count):
        target, original = folder / f"{number:06d}.jpg", number % len(originals)
        if number < len(originals):
            with opened_image(originals[original]) as image:
                image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(target, quality=_QUALITY)
        else:
            os.link(folder / f"{original:06d}.jpg", target)
