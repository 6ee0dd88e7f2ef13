"""What the page does with what people type and send, without a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pomp.formats import coco_json
from pomp.formats.labelled import LabelledObject, LabelledPhoto
from pomp.formats.mask_shapes import mask_of_pixels
from pomp.models.photo_model import Model
from pomp.page import uploads
from pomp.page.answers import LEARNED, LOWEST, MAX_WORDS, Answers, Question, words_of
from pomp.page.downloads import download
from pomp.page.uploads import take_photo
from pomp.page.view import BOTH, Sent, view, words_for
from pomp.shipped_photos import PHOTOS, SUGGESTED, shipped_photos
from pomp.showing.answer import Answer
from prompt_core.data.open_photo import read_photo
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

GREY = np.full((60, 80, 3), 128, dtype=np.uint8)
STREET = PHOTOS / "street.jpg"


class EverythingFirst(Model):
    """Finds the first word in the left half of any photo; remembers which words were set."""

    task = "detect"

    def __init__(self) -> None:
        self.was_set: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    @property
    def names(self) -> list[str]:
        return list(self.was_set[-1][0])

    def photo_task(self, *given: Any, **options: Any) -> Any:
        raise NotImplementedError

    def _set(self, vocabulary: Vocabulary, negatives: tuple[str, ...]) -> None:
        if "refused" in vocabulary.names:
            raise UserError("'refused' is no word")
        self.was_set.append((tuple(vocabulary.names), negatives))

    def _detections(self, pixels: np.ndarray) -> Any:
        raise NotImplementedError

    def _description(self, pixels: np.ndarray) -> dict[str, Any]:
        height, width = pixels.shape[:2]
        box = [0.0, 0.0, width / 2, float(height)]
        return {"detections": [{"word": self.names[0], "bbox": box, "score": 0.75}]}


def answers_of(*models: Model, prompt: str = "") -> Answers:
    left = list(models)
    return Answers(lambda name, task, **options: left.pop(0), {"detect": "mini"}, prompt)


def test_words_are_set_only_when_they_change() -> None:
    model = EverythingFirst()
    answers = answers_of(model)
    for words in (("cat",), ("cat",), ("cat", "dog"), ("cat",)):
        answers(Question("detect", words), GREY, "grey.jpg")
    assert model.was_set == [(("cat",), ()), (("cat", "dog"), ()), (("cat",), ())]
    # Words that are refused leave no doubt about which are set.
    with pytest.raises(UserError, match="is no word"):
        answers(Question("detect", ("refused",)), GREY, "grey.jpg")
    answers(Question("detect", ("cat",)), GREY, "grey.jpg")
    assert model.was_set[-2:] == [(("cat",), ())] * 2


def test_both_prompts_are_asked_with_models_of_their_own() -> None:
    hand, learned = EverythingFirst(), EverythingFirst()
    asked = []

    def load(name: str, task: str, **options: Any) -> Model:
        asked.append((name, task, options))
        return learned if "prompt" in options else hand

    answers = Answers(load, {"detect": "mini"}, "my.safetensors", "cpu")
    seen = view(answers, Sent("grey.jpg", GREY), "detect", "cat", "", BOTH, 0.3)
    assert len(seen.answers) == 2
    assert seen.card.count("<svg") == 2
    assert hand.was_set == learned.was_set == [(("cat",), ())]
    assert asked == [
        ("mini", "detect", {"device": "cpu", "threshold": LOWEST}),
        ("mini", "detect", {"device": "cpu", "threshold": LOWEST, "prompt": "my.safetensors"}),
    ]


@given(st.lists(st.text(st.characters(exclude_characters=",", exclude_categories=("C", "Z")), min_size=1, max_size=20)))
def test_words_come_back_as_they_were_typed(words: list[str]) -> None:
    distinct = list(dict.fromkeys(words))
    assert words_of(" ,\n".join(distinct)) == tuple(distinct)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "Type a word or more"),
        (" , \n", "Type a word or more"),
        ("cat, cat", "'cat' is given twice"),
        ("x" * 101, "101 letters"),
        (",".join(map(str, range(MAX_WORDS + 1))), "1,001 words are given"),
        ("cat, sky", "'sky' is asked for and ruled out"),
        ("refused", "'refused' is no word"),
    ],
)
def test_bad_words_are_told_in_one_line(typed: str, said: str) -> None:
    seen = view(answers_of(EverythingFirst()), Sent("grey.jpg", GREY), "detect", typed, "sky", "hand", 0.3)
    text = re.sub(r"<[^>]*>", "", seen.message).replace("&#x27;", "'")
    assert said in text
    assert "\n" not in text
    assert (seen.card, seen.answers) == ("", ())


def test_no_photo_and_no_learned_prompt_are_told() -> None:
    answers = answers_of(EverythingFirst())
    assert "Drop a photo" in view(answers, None, "detect", "cat", "", "hand", 0.3).message
    assert "no learned prompt" in view(answers, Sent("g", GREY), "detect", "cat", "", LEARNED, 0.3).message


def test_a_word_is_text_whatever_it_looks_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("words.txt")
    file.write_text("secret", encoding="utf-8")
    # A file's name is a word: the page reads no file of the machine.
    assert words_of(str(file)) == (str(file),)
    model = EverythingFirst()
    seen = view(answers_of(model), Sent("g", GREY), "detect", f"{file}, <script>alert(1)</script>", "", "hand", 0.0)
    assert model.was_set[0][0] == (str(file), "<script>alert(1)</script>")
    assert "<script" not in seen.card
    assert "&lt;script&gt;" in seen.card


def test_suggested_words_give_way_to_typed_ones() -> None:
    assert set(SUGGESTED) == {photo.name for photo in shipped_photos()}
    first = SUGGESTED["street.jpg"]
    assert words_for("cat.jpg", *first) == SUGGESTED["cat.jpg"]
    assert words_for("cat.jpg", "", "") == SUGGESTED["cat.jpg"]
    assert words_for("cat.jpg", "leaf", first[1]) == ("leaf", first[1])


def test_what_was_sent_is_gone_after_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = tmp_path / "cat.jpg"
    sent.write_bytes((PHOTOS / "cat.jpg").read_bytes())
    assert np.array_equal(take_photo(sent), read_photo(PHOTOS / "cat.jpg"))
    assert not list(tmp_path.iterdir())

    def refused(data: bytes, said: str) -> None:
        sent.write_bytes(data)
        with pytest.raises(UserError, match=said):
            take_photo(sent)
        assert not list(tmp_path.iterdir())

    refused(b"no photo", "no image of a known format")
    refused(STREET.read_bytes()[:5000], "cannot be read")
    monkeypatch.setattr(uploads, "MAX_PIXELS", 400 * 300 - 1)
    refused(STREET.read_bytes(), "0 megapixels")
    monkeypatch.setattr(uploads, "MAX_BYTES", 1 << 20)
    refused(bytes(3 << 20), "has 3 MB, and the page takes 1")


def test_an_uploaded_photo_is_measured_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (3000, 2000)).save(tmp_path / "large.png")
    monkeypatch.setattr(uploads, "MAX_PIXELS", 5_000_000)
    monkeypatch.setattr(uploads, "read_photo", lambda file: pytest.fail("decoded"))
    with pytest.raises(UserError, match="6 megapixels"):
        take_photo(tmp_path / "large.png")


@pytest.fixture
def found() -> Answer:
    mask = np.zeros((60, 80), dtype=bool)
    mask[10:30, 20:50] = True
    things = (
        LabelledObject("cat", (20.0, 10.0, 30.0, 20.0), 0.8, mask_of_pixels(mask)),
        LabelledObject("dog", (0.0, 0.0, 8.0, 6.0), 0.2, mask_of_pixels(~mask)),
    )
    return Answer("detect", ("cat", "dog"), LabelledPhoto("my photo.jpg", 80, 60, things), GREY)


def test_a_coco_download_holds_what_is_shown(found: Answer, tmp_path: Path) -> None:
    sent = download("COCO", [found], 0.5)
    assert sent["name"] == "my photo_coco.json"
    file = tmp_path / sent["name"]
    file.write_bytes(base64.b64decode(sent["data"]))
    (photo,) = coco_json.read(file).photos
    assert (photo.name, photo.width, photo.height) == ("my photo.jpg", 80, 60)
    assert photo.objects == found.photo.objects[:1]
    assert [row["name"] for row in json.loads(file.read_text())["categories"]] == ["cat", "dog"]


def test_a_yolo_download_holds_shares_of_the_photo(found: Answer) -> None:
    sent = download("YOLO", [found], 0.1)
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(sent["data"]))) as archive:
        (labels,) = [name for name in archive.namelist() if name.startswith("my photo_yolo/labels/")]
        rows = [[float(value) for value in line.split()] for line in archive.read(labels).decode().splitlines()]
    expected = [[0, 35 / 80, 20 / 60, 30 / 80, 20 / 60], [1, 4 / 80, 3 / 60, 8 / 80, 6 / 60]]
    assert np.allclose(rows, expected, atol=1e-6)


def test_there_is_nothing_to_download_before_an_answer() -> None:
    with pytest.raises(UserError, match="nothing to download yet"):
        download("COCO", [], 0.1)


def test_the_embedded_detector_answers_on_the_page(mini_detector: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_detector, "threshold", LOWEST)
    sent = Sent("street.jpg", read_photo(STREET))
    seen = view(answers_of(mini_detector), sent, "detect", *SUGGESTED["street.jpg"], "hand", 0.3)
    shown = re.findall(r'<g class="label [a-z ]+" data-score="([\d.]+)"( hidden)? data-word="([^"]+)"', seen.card)
    assert {word for score, hidden, word in shown if not hidden} >= {"bus", "automobile"}
    assert all((float(score) < 0.3) == bool(hidden) for score, hidden, _ in shown)
    counts = {
        word: len([1 for score, hidden, name in shown if name == word and not hidden]) for word in ("bus", "scooter")
    }
    for word, count in counts.items():
        assert re.search(rf'<th scope="row">{word}</th>.*?data-scores="[\d. ]*">{count}</td>', seen.card)
