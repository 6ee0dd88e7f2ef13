"""The loop on the photos of the package: its parts on one photo, and the page that people get."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pomp.demo.demo_folder import MARKER
from pomp.demo.loop_result import CORRECTIONS, METRICS, PAGE, PROMPT
from pomp.demo.whole_loop import CORRECTED, run_loop
from pomp.formats import coco_json
from pomp.shipped_photos import photo_credits, shipped_photos
from prompt_core.files import read_json
from prompt_core.prompt import SoftPrompt


class Links(HTMLParser):
    """Addresses of a page: what a browser fetches, and what a person may follow."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.followed: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        addresses = [str(values[name]) for name in ("src", "href", "srcset", "data", "action") if values.get(name)]
        (self.followed if tag == "a" else self.fetched).extend(addresses)


def test_corrected_and_untouched_photos_share_words() -> None:
    photos = shipped_photos()
    assert set(CORRECTED) < {photo.name for photo in photos}
    words: dict[bool, list[str]] = {True: [], False: []}
    for photo in photos:
        words[photo.name in CORRECTED] += [thing.word for thing in photo.objects]
    assert np.mean([word in words[True] for word in words[False]]) > 0.5


def test_nobodys_folder_is_written_over(call_pomp: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("mine", encoding="utf-8")
    code, _, error = call_pomp(None, "demo", "--output", tmp_path)
    assert code == 2
    assert len(error.splitlines()) == 1
    assert "holds files but no earlier demo" in error
    assert [file.name for file in tmp_path.iterdir()] == [PAGE]


@pytest.mark.slow
def test_the_whole_loop(tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    result = run_loop(tmp_path, ("LOSS.NUM_CLASSES=32", "LOSS.ANCHOR_NAMES=16", "OPTIM.EPOCHS=2"))
    assert {file.name for file in tmp_path.iterdir()} == {MARKER, PAGE, CORRECTIONS, PROMPT, METRICS}
    corrections = coco_json.read(tmp_path / CORRECTIONS)
    assert {photo.name for photo in corrections.photos} == set(CORRECTED)
    assert all(thing.score is None for photo in corrections.photos for thing in photo.objects)
    assert SoftPrompt.load(tmp_path / PROMPT).metadata["learned_from"]["corrected_photos"] == len(CORRECTED)

    metrics: dict[str, Any] = read_json(tmp_path / METRICS)
    untouched = [photo for photo in shipped_photos() if photo.name not in CORRECTED]
    assert metrics["regions"]["photos"] == len(untouched) == len(result.pairs)
    assert metrics["before"]["true"] == sum(len(photo.objects) for photo in untouched)
    right = {"before": result.regions.before, "after": result.regions.after}
    for side, answers in right.items():
        assert metrics["regions"][side] == pytest.approx(100 * answers.mean())
    assert len(result.changed) >= np.count_nonzero(right["before"] != right["after"])

    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    links = Links(text)
    assert all(address.startswith("data:") for address in links.fetched)
    assert "script" not in links.tags
    assert not re.search(r"@import|url\(", text)
    assert {credit.page for credit in photo_credits().values()} <= set(links.followed)
    moved = links.tags.count("svg") - (1 + 12 + 3)  # before and after of those that look otherwise
    assert moved in range(0, 2 * len(untouched) + 1, 2)
    first = result.first
    assert f"had found {first.right} of the {first.true} with the right word" in " ".join(text.split())
