"""The gallery: what is in doubt comes first, pages stay small, and no name is taken for markup."""

from __future__ import annotations

import html
import json
import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pomp.formats.labelled import LabelledObject, LabelledPhoto
from pomp.formats.mask_shapes import mask_of_pixels
from pomp.gallery import gallery
from pomp.gallery.doubt import doubt
from pomp.gallery.gallery import write_gallery

WORDS = ["dog", "<script>alert(1)</script>", '" onload="x', "犬"]


def photo(name: str, *scores: float, word: str = "dog", path: Path | None = None) -> LabelledPhoto:
    return LabelledPhoto(
        name, 40, 30, tuple(LabelledObject(word, (1, 2, 20, 20), score) for score in scores), path=path
    )


def names_on(page: Path) -> list[str]:
    return [html.unescape(name) for name in re.findall(r'<span class="name">(.*?)</span>', page.read_text("utf-8"))]


def test_the_least_sure_answer_counts() -> None:
    assert doubt(photo("a"), 0.3) == 1
    assert doubt(photo("a", 0.9, 0.31), 0.3) > doubt(photo("a", 0.4), 0.3) > doubt(photo("a", 0.9), 0.3)
    assert doubt(photo("a", 1.0), 0.3) == 0
    person = replace(photo("a", 0.4), objects=(LabelledObject("dog", (1, 2, 3, 4)),))
    assert doubt(person, 0.3) == 0


def test_own_shares_near_the_threshold_are_in_doubt() -> None:
    def whole(*scores: float, none: float) -> LabelledPhoto:
        return LabelledPhoto("a", 40, 30, (), ("dog",) * len(scores), scores, none_share=none)

    assert doubt(whole(0.52, none=0.4), 0.5) == pytest.approx(0.96)
    assert doubt(whole(none=0.55), 0.5) == pytest.approx(0.9)
    assert doubt(whole(none=0.99), 0.5) < 0.1
    assert doubt(LabelledPhoto("a", 40, 30, (), ()), 0.5) == 0  # a person said that it shows none of them


def test_several_words_that_share_a_photo_are_unsure(tmp_path: Path) -> None:
    photos = [replace(photo(f"{none}.jpg"), words=words, none_share=none) for none, words in ((0.9, ()), (0.1, None))]
    text = write_gallery(tmp_path, lambda: iter(photos), WORDS, 0.5).read_text("utf-8")
    assert names_on(tmp_path / "index.html") == ["0.1.jpg", "0.9.jpg"]
    assert "unsure" in text
    assert "none of these 0.90" in text


def test_photos_in_doubt_come_first(tmp_path: Path) -> None:
    photos = [photo("sure.jpg", 0.95), photo("nothing.jpg"), photo("near.jpg", 0.9, 0.32), photo("middle.jpg", 0.6)]
    page = write_gallery(tmp_path, lambda: iter(photos), WORDS, 0.3)
    assert page == tmp_path / "index.html"
    assert names_on(page) == ["nothing.jpg", "near.jpg", "middle.jpg", "sure.jpg"]
    text = page.read_text("utf-8")
    assert "lowest score 0.32" in text
    assert "nothing found" in text
    assert len(list((tmp_path / "gallery").iterdir())) == 4


def test_names_and_words_are_text(tmp_path: Path) -> None:
    photos = [photo("<img src=x onerror=y>.jpg", 0.5, word=word) for word in WORDS]
    text = write_gallery(tmp_path, lambda: iter(photos), WORDS, 0.3).read_text("utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert '" onload="x' not in text
    # every card can be found by its word
    found = [json.loads(html.unescape(words)) for words in re.findall(r'data-words="(.*?)"', text)]
    assert found == [[word] for word in WORDS]


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    text = write_gallery(tmp_path, lambda: iter([photo("a.jpg", 0.5)]), WORDS, 0.3).read_text("utf-8")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert set(addresses) == {"data:,", "gallery/000001.jpg"}
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)


def test_pages_and_where_each_word_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gallery.PAGE == 200
    monkeypatch.setattr(gallery, "PAGE", 20)

    def photos() -> Iterator[LabelledPhoto]:
        for number in range(41):
            yield photo(f"{number:03d}.jpg", 1 - number / 100, word="犬" if number == 40 else "dog")

    write_gallery(tmp_path, photos, WORDS, 0.3)
    pages = sorted(tmp_path.glob("*.html"))
    assert [page.name for page in pages] == ["index.html", "index_002.html", "index_003.html"]
    assert [len(names_on(page)) for page in pages] == [20, 20, 1]
    assert names_on(pages[0])[0] == "040.jpg"
    text = pages[1].read_text("utf-8")
    assert '<option value="dog" data-count="40" data-pages="1 2 3">' in text
    assert '<option value="犬" data-count="1" data-pages="1">' in text
    assert 'href="index.html"' in text
    assert 'href="index_003.html"' in text
    # a smaller gallery leaves nothing of a larger one
    write_gallery(tmp_path, lambda: iter([photo("a.jpg", 0.5)]), WORDS, 0.3)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"index.html", "gallery/000001.jpg"}


def test_masks_are_in_the_pictures(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (1600, 1200), (100, 100, 100)).save(file)
    pixels = np.zeros((1200, 1600), dtype=bool)
    pixels[:, :800] = True
    things = (LabelledObject("dog", (0, 0, 800, 1200), 0.9, mask_of_pixels(pixels)),)
    write_gallery(tmp_path, lambda: iter([LabelledPhoto("a.png", 1600, 1200, things, path=file)]), WORDS, 0.3)
    with Image.open(tmp_path / "gallery/000001.jpg") as image:
        small = np.asarray(image).astype(int)
    assert small.shape == (540, 720, 3)
    assert abs(small[270, 600] - 100).max() < 8
    assert abs(small[270, 100] - 100).max() > 30


def test_photos_that_are_gone_are_grey(tmp_path: Path) -> None:
    photos = [photo("a.jpg", 0.5, path=tmp_path / "none.jpg"), photo("frame", 0.5)]
    frame = replace(photos[1], pixels=lambda: np.full((30, 40, 3), 20, dtype=np.uint8))
    write_gallery(tmp_path, lambda: iter([photos[0], frame]), WORDS, 0.3)
    for name, value in (("000001", 160), ("000002", 20)):
        with Image.open(tmp_path / f"gallery/{name}.jpg") as image:
            assert abs(np.asarray(image).astype(int) - value).max() < 5


def test_memory_holds_one_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "PAGE", 10)

    def peak(count: int) -> int:
        photos = (photo(f"{'long name ' * 500}{number}.jpg", 0.5) for number in range(count))
        tracemalloc.start()
        try:
            write_gallery(tmp_path / str(count), lambda: photos, WORDS, 0.3)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(12)  # templates are compiled once
    assert peak(30) - peak(12) < 18 * 2500  # half a name each
