"""The pictures of README and docs, made from the photos of the package; pages are pictured by a headless Chromium."""

from __future__ import annotations

import html
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from pomp.page.answers import words_of
from pomp.shipped_photos import PHOTOS, SUGGESTED
from pomp.showing.answer import Answer, answer
from pomp.showing.overlay import Ink, overlay
from prompt_core.data.open_photo import open_photo, read_photo
from prompt_core.errors import UserError
from prompt_core.files import atomic_path
from prompt_core.vocabulary import read_vocabulary

THRESHOLD = 0.3
STREET_WORDS = "bus,automobile,pedestrian,scooter"
WORDS_CHANGE = ("street.jpg", "kitchen.jpg", "desk.jpg")
PIXELS = ("street.jpg", "gull.jpg", "kitchen.jpg", "motorcyclist.jpg")
WIDTH, SCALE = 800, 2  # of a page in CSS pixels, and pixels of the picture for each
_STYLE = """body { margin: 0; background: #fff; color: #1d2328; font: 15px/1.35 system-ui, sans-serif; }
.grid { display: grid; gap: 8px; align-items: start; } .grid p { margin: 0 0 2px; } .grid > div { min-width: 0; }"""


def make_pictures(folder: Path) -> list[Path]:
    """Write all pictures.

    Raises:
        UserError: without Chromium.
    """
    from pomp import load

    detector = load("mini", "detect", threshold=THRESHOLD)
    street = [answer(detector.words(STREET_WORDS), STREET_WORDS.split(","), _pixels("street.jpg"), "street.jpg")]
    coco = read_vocabulary("coco").names
    detector.words(coco)
    change = [answer(detector, coco, _pixels(name), name) for name in WORDS_CHANGE]
    for name in WORDS_CHANGE:
        words, negatives = (words_of(text) for text in SUGGESTED[name])
        change.append(answer(detector.words(list(words), negatives), words, _pixels(name), name))
    segmenter, found = load("mini", "segment"), []
    for name in PIXELS:
        words, negatives = (words_of(text) for text in SUGGESTED[name])
        found.append(answer(segmenter.words([*words, *negatives]), [*words, *negatives], _pixels(name), name))
    return [
        picture(folder / "street_boxes.jpg", [street], [""]),
        picture(folder / "words_change.jpg", [change[:3], change[3:]], ["COCO's 80 words", "words of one's own"]),
        picture(folder / "pixels.jpg", [found[:2], found[2:]], ["", ""]),
    ]


def picture(file: Path, rows: Sequence[Sequence[Answer]], titles: Sequence[str]) -> Path:
    """Write rows of photos with what was found in them.

    Raises:
        UserError: without Chromium.
    """
    parts = []
    for row, title in zip(rows, titles, strict=True):
        cells = "".join(f"<div>{_overlay(one)}</div>" for one in row)
        heading = f"<p>{html.escape(title)}</p>" if title else ""
        columns = f"grid-template-columns: repeat({len(row)}, minmax(0, 1fr))"
        parts.append(f'<div>{heading}<div class="grid" style="{columns}">{cells}</div></div>')
    page = f'<!doctype html><style>{_style()}</style><div class="grid">{"".join(parts)}</div>'
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "page.html"
        source.write_text(page, encoding="utf-8")
        pixels = screenshot(source.as_uri(), WIDTH, 4 * WIDTH)
    with atomic_path(file) as temporary:
        Image.fromarray(_cut(pixels)).save(temporary, format="JPEG", quality=86)
    return file


def screenshot(address: str, width: int, height: int) -> np.ndarray:
    """A page as a picture, (SCALE * height, SCALE * width, 3) uint8.

    Raises:
        UserError: without Chromium, or when it fails.
    """
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise UserError("pictures of pages need Chromium on the PATH")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "page.png"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += [f"--user-data-dir={place}/profile", f"--window-size={width},{height}"]
        options += [f"--force-device-scale-factor={SCALE}", f"--screenshot={file}", address]
        done = subprocess.run([chromium, *options], capture_output=True, text=True, timeout=300, check=False)
        if not file.is_file():
            raise UserError(f"Chromium made no picture: {done.stderr.strip()[-200:]}")
        return np.asarray(open_photo(file))


def _overlay(found: Answer) -> str:
    boxes = found.task == "detect"
    things = found.at(THRESHOLD).objects if boxes else found.photo.objects
    return overlay(found.pixels, things, Ink(found.words, boxes))


def _pixels(name: str) -> np.ndarray:
    return read_photo(PHOTOS / name)


def _style() -> str:
    return _STYLE + (resources.files("pomp") / "assets" / "page" / "showing.css").read_text(encoding="utf-8")


def _cut(pixels: np.ndarray) -> np.ndarray:
    """Without the white below the page."""
    rows = np.flatnonzero((pixels != 255).any(axis=(1, 2)))
    return pixels[: int(rows[-1]) + 1] if len(rows) else pixels
