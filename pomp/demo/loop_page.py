"""The demo's page: one file that needs nothing else, to be sent to somebody."""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from pomp.demo.loop_result import CORRECTIONS, PROMPT, THRESHOLD, Found, LoopResult, Region
from pomp.learning.prompt_settings import TEMPLATE
from pomp.shipped_photos import photo_credits
from pomp.showing.answer_cards import answer_card
from pomp.showing.overlay import Ink, overlay
from pomp.showing.share_bars import Bar, bars
from prompt_core.data.open_photo import read_photo

if TYPE_CHECKING:
    from pomp.formats.labelled import LabelledPhoto
    from pomp.showing.answer import Answer

TRUE_BOXES_SHOWN = ("desk.jpg", "kitchen.jpg", "street.jpg")
REGIONS_SHOWN = 24
NAMED = 3  # words of a whole photo


class Tile(NamedTuple):
    """A picture with what is said of it, both as HTML."""

    title: str
    picture: str
    said: str


class RegionTile(NamedTuple):
    """A corrected box, as a picture's address."""

    address: str
    region: Region


def loop_page(result: LoopResult) -> str:
    """The whole page as HTML."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("pomp") / "assets" / "page"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "loop.html.j2").read_text(encoding="utf-8"))
    moved = [pair for pair in result.pairs if _drawn(pair[0]) != _drawn(pair[1])]
    page: str = template.render(
        result=result,
        style=Markup((folder / "showing.css").read_text(encoding="utf-8")),
        hero=Markup(_hero(result)),
        tiles=[_marked(_tile(found)) for found in result.found],
        truth=[_marked(_truth(photo, result.words)) for photo in _shown(result)],
        told=result.regions.describe(),
        changed=[RegionTile(_address(region), region) for region in result.changed[:REGIONS_SHOWN]],
        better=sum(region.after == region.word for region in result.changed),
        worse=sum(region.before == region.word for region in result.changed),
        others=len(result.pairs),
        pairs=[[_marked(_side(side, title)) for side, title in zip(pair, _SIDES, strict=True)] for pair in moved],
        credits=photo_credits(),
        files={"corrections": CORRECTIONS, "prompt": PROMPT},
        template=TEMPLATE,
        threshold=THRESHOLD,
        total=sum(result.seconds.values()),
    )
    return page


_SIDES = (f"before: “{TEMPLATE}”", "after: the learned prompt")


def _hero(result: LoopResult) -> str:
    found = next(found for found in result.found if found.things.photo.name == "street.jpg")
    return answer_card(found.things, THRESHOLD)


def _tile(found: Found) -> Tile:
    things, whole = found.things, found.whole
    ink = Ink(things.words)
    picture = overlay(things.pixels, things.at(THRESHOLD).objects, ink)
    named = zip(whole.photo.words or (), whole.photo.scores, strict=True)
    rows = [Bar(word, share, colour=ink.colours(word)[0]) for word, share in list(named)[:NAMED]]
    rows.append(Bar("none of these", whole.none, quiet=True))
    return Tile(", ".join(things.words), picture, bars(rows))


def _drawn(found: Answer) -> list[tuple[str, str]]:
    """What a person sees of the things: words and scores as they are written."""
    return sorted((thing.word, f"{thing.score:.2f}") for thing in found.at(THRESHOLD).objects)


def _side(found: Answer, title: str) -> Tile:
    return Tile(title, overlay(found.pixels, found.at(THRESHOLD).objects, Ink(found.words)), "")


def _truth(photo: LabelledPhoto, words: tuple[str, ...]) -> Tile:
    said = f"{len(photo.objects)} boxes"
    return Tile(said, overlay(read_photo(photo.path or ""), photo.objects, Ink(words)), "")


def _shown(result: LoopResult) -> list[LabelledPhoto]:
    return [photo for photo in result.corrected if photo.name in TRUE_BOXES_SHOWN]


def _marked(tile: Tile) -> dict[str, Any]:
    """With its HTML as such; the title is text."""
    from markupsafe import Markup

    return {"title": tile.title, "picture": Markup(tile.picture), "said": Markup(tile.said)}


def _address(region: Region) -> str:
    file = io.BytesIO()
    picture = region.picture.copy()
    picture.thumbnail((160, 160))
    picture.save(file, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
