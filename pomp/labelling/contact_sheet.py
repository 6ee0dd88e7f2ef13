"""Contact sheets: small photos in rows, each with its word and own share, on JPEG pages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from prompt_core.data.open_photo import opened_image
from prompt_core.files import atomic_path
from prompt_core.visible import visible

THUMBNAIL = 180  # pixels of the longer side
COLUMNS, ROWS = 6, 6
_MARGIN, _LINE = 12, 18
_PAPER, _INK, _FAINT = (250, 250, 248), (30, 30, 30), (110, 110, 110)


class Cell(NamedTuple):
    """A photo on a sheet."""

    thumbnail: bytes  # JPEG
    word: str
    share: float
    name: str


def write_contact_sheets(folder: Path, cells: Iterator[Cell]) -> int:
    """Write ``contact_sheet_001.jpg`` and so on, one sheet in memory; returns how many."""
    page = 0
    while cells_of_page := list(islice(cells, COLUMNS * ROWS)):
        page += 1
        with atomic_path(folder / f"contact_sheet_{page:03d}.jpg") as temporary:
            draw_sheet(cells_of_page).save(temporary, "JPEG", quality=88)
    return page


def draw_sheet(cells: list[Cell]) -> Image.Image:
    """A sheet with at most ``COLUMNS * ROWS`` photos."""
    width, height = THUMBNAIL + _MARGIN, THUMBNAIL + 2 * _LINE + _MARGIN
    columns, rows = min(COLUMNS, len(cells)), -(-len(cells) // COLUMNS)
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, cell in enumerate(cells):
        left, top = _MARGIN + place % COLUMNS * width, _MARGIN + place // COLUMNS * height
        with opened_image(cell.thumbnail) as small:
            sheet.paste(small, (left + (THUMBNAIL - small.width) // 2, top + (THUMBNAIL - small.height) // 2))
        share = f" {100 * cell.share:.0f} %"
        for line, (text, end, colour) in enumerate(((cell.word, share, _INK), (cell.name, "", _FAINT))):
            shown = _shortened(visible(text), end, font)
            draw.text((left, top + THUMBNAIL + line * _LINE + 3), shown, fill=colour, font=font)
    return sheet


def _shortened(text: str, end: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A text with its end, as long as a photo is wide; of long ones the beginning is left out."""
    if font.getlength(text + end) <= THUMBNAIL:
        return text + end
    while text and font.getlength(f"…{text}{end}") > THUMBNAIL:
        text = text[1:]
    return f"…{text}{end}"
