"""The photos that come with the package: whose they are, and that no embedded model learned from them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pomp.shipped_photos import PHOTOS, photo_credits, shipped_photos
from prompt_core.files import read_json

ROOT = Path(__file__).resolve().parents[2]
LEARNED_FROM = ROOT / "pomp_det" / "data" / "assets" / "coco_small_photos.json"


def test_each_photo_is_there_with_its_things_and_may_be_shown() -> None:
    photos, credits = shipped_photos(), photo_credits()
    assert {photo.name for photo in photos} == {file.name for file in PHOTOS.glob("*.jpg")} == set(credits)
    assert len(photos) == 12
    for photo in photos:
        assert photo.path is not None
        with Image.open(photo.path) as image:
            assert image.size == (photo.width, photo.height)
        assert photo.objects
        for thing in photo.objects:
            x, y, width, height = thing.box
            assert min(x, y) >= 0
            assert x + width <= photo.width + 0.1
            assert y + height <= photo.height + 0.1
            assert thing.score is None
        assert credits[photo.name].licence == "CC BY 2.0"
        assert credits[photo.name].page.startswith("https://www.flickr.com/")
        assert credits[photo.name].page.rpartition("=")[2] in credits[photo.name].source
    assert sum(file.stat().st_size for file in PHOTOS.iterdir()) < 1_500_000


def test_no_embedded_model_learned_from_them() -> None:
    # The mask head and the segmenter learned from the training parts of these; mini from ImageNet.
    parts = read_json(LEARNED_FROM)
    training = {number for numbers in parts["train2017"].values() for number in numbers}
    validation = {number for numbers in parts["val2017"].values() for number in numbers}
    shipped = {credit.photo for credit in photo_credits().values()}
    assert not shipped & training
    assert shipped <= validation


def test_the_notice_names_each_photo() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for name, credit in photo_credits().items():
        assert f"{name.removesuffix('.jpg')} {credit.photo} {credit.page.rpartition('=')[2]}" in notice, name
