"""A gallery of results: pages that need no server, sorted by doubt."""

from __future__ import annotations

import json
import re
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pomp.formats.labelled import Photos
from pomp.gallery.cards import Card, card_of, write_thumbnail
from pomp.gallery.doubt import doubt
from pomp.showing.overlay import Ink
from prompt_core.files import make_output_folder, write_text
from prompt_core.visible import visible

if TYPE_CHECKING:
    from jinja2 import Template

PAGE = 200  # photos
FILTERS = 300  # words that a page offers to filter by, the most frequent ones
INDEX, THUMBNAILS = "index.html", "gallery"
_OLD = re.compile(r"index_[0-9]{3,}\.html|[0-9]{6,}\.jpg")


def write_gallery(
    folder: str | Path, photos: Photos, words: Sequence[str], threshold: float, boxes: bool = True
) -> Path:
    """Write ``index.html``, for more than 200 photos also ``index_002.html`` and so on, and ``gallery/`` with pictures.

    The photos in doubt (:mod:`pomp.gallery.doubt`) come first. Pages need nothing from elsewhere. One photo is in
    memory at a time; of the others there is a place in a temporary file.

    Args:
        folder: of the results; a gallery that is there is replaced.
        photos: gives the photos, from the beginning.
        words: in the order of their colours.
        threshold: the lowest score of a thing, or the own share above which a photo gets a word.
        boxes: whether boxes are drawn, or masks alone.

    Returns:
        the first page.

    Raises:
        UserError: when it cannot be written.
    """
    target = make_output_folder(folder)
    pictures = make_output_folder(target / THUMBNAILS)
    with tempfile.TemporaryFile(dir=pictures) as file:
        cards = _Cards(file)
        ink, whole_photos = Ink(tuple(words), boxes), True
        for number, photo in enumerate(photos(), start=1):
            new = {*(item.word for item in photo.objects), *(photo.words or ())}.difference(ink.words)
            if new:
                ink = Ink((*ink.words, *sorted(new)), boxes)
            picture = f"{THUMBNAILS}/{number:06d}.jpg"
            write_thumbnail(photo, target / picture, ink)
            whole_photos &= photo.words is not None
            share = doubt(photo, threshold)
            cards.add(card_of(photo, picture, ink, share), share)
        written = {INDEX, *_write_pages(target, cards, whole_photos)}
    for place in (target, pictures):
        for old in place.iterdir():
            number_of = int(re.sub(r"\D", "", old.stem) or 0) if _OLD.fullmatch(old.name) else 0
            if old.name not in written and number_of > (len(cards) if place == pictures else 1):
                old.unlink()
    return target / INDEX


class _Cards:
    """Cards in a file, with their places and doubts in memory: 20 bytes for each."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._starts, self._doubts = array("q"), array("d")

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, card: Card, share: float) -> None:
        self._starts.append(self._file.tell())
        self._doubts.append(share)
        self._file.write(json.dumps(asdict(card)).encode("ascii") + b"\n")

    def pages(self) -> Iterator[list[dict[str, Any]]]:
        """Cards, the most in doubt first."""
        order = sorted(range(len(self)), key=lambda number: -self._doubts[number])
        for first in range(0, max(len(order), 1), PAGE):
            yield [self._card(number) for number in order[first : first + PAGE]]

    def _card(self, number: int) -> dict[str, Any]:
        self._file.seek(self._starts[number])
        card: dict[str, Any] = json.loads(self._file.readline())
        return card


def _write_pages(target: Path, cards: _Cards, whole_photos: bool) -> list[str]:
    counts: Counter[str] = Counter()  # photos of each word
    pages_of: dict[str, list[int]] = {}
    for number, page in enumerate(cards.pages(), start=1):
        for word in (word for card in page for word in card["words"]):
            counts[word] += 1
            if pages_of.setdefault(word, [number])[-1] != number:
                pages_of[word].append(number)
    total = -(-len(cards) // PAGE) or 1
    files = [_page_name(number) for number in range(1, total + 1)]
    template = _template()
    chosen = counts.most_common(FILTERS)
    filters = [{"word": word, "count": count, "pages": pages_of[word]} for word, count in chosen]
    shared = {"files": files, "filters": filters, "photos": len(cards), "whole_photos": whole_photos and len(cards) > 0}
    for number, page in enumerate(cards.pages(), start=1):
        text = template.render(cards=page, number=number, **shared)
        write_text(target / files[number - 1], visible(text, lines=True))
    return files


def _page_name(number: int) -> str:
    return INDEX if number == 1 else f"index_{number:03d}.html"


def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    source = resources.files("pomp") / "assets" / "gallery" / "gallery.html.j2"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source.read_text(encoding="utf-8"))
