"""The page in a headless Chromium, with the embedded models: what a person types, sends, slides and downloads."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pomp.formats import coco_json
from pomp.models.photo_model import Model
from pomp.page.answers import LOWEST, Answers
from pomp.shipped_photos import PHOTOS

from ...support.chromium import CHROMIUM, Tab, tab

pytest.importorskip("gradio", reason="the page needs Gradio (extra `app`)")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page in"),
]

# Words of the things that the picture shows at the slider's place, as a person reads them.
SHOWN = "[...document.querySelectorAll('#answer .label:not([hidden])')].map(label => label.dataset.word)"
ANSWERED = "document.querySelector('#answer svg')"


@pytest.fixture(scope="module")
def address(mini_detector: Model, mini_classifier: Model, mini_segmenter: Model) -> Iterator[str]:
    """The page with the models that all tests share."""
    from pomp.page.serve import served

    models: dict[str, Any] = {"detect": mini_detector, "classify": mini_classifier, "segment": mini_segmenter}
    before = mini_detector.threshold  # type: ignore[attr-defined]
    mini_detector.threshold = LOWEST  # type: ignore[attr-defined]
    with served(Answers(lambda name, task, **options: models[task], dict.fromkeys(models, "mini"))) as address:
        yield address
    mini_detector.threshold = before  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser: Tab, address: str) -> Iterator[Tab]:
    """The page with its first answer; in the end nobody complained, and nothing was asked of another host."""
    browser.requests.clear()
    browser.complaints.clear()
    browser.failed.clear()
    browser.show(1280, 900)
    browser.open(address)
    browser.wait(ANSWERED)
    yield browser
    assert [text for text in browser.complaints if not text.startswith("warning:")] == []
    assert browser.failed == []
    asked = [url for url in browser.requests if not url.startswith(("data:", "blob:", "about:"))]
    assert asked
    assert [url for url in asked if not url.startswith(address)] == []


def test_typed_words_are_found_and_the_slider_hides_them(page: Tab) -> None:
    page.type("#words textarea", "taxi, bus")
    page.wait(f"{SHOWN}.includes('taxi') && {SHOWN}.includes('bus') && !{SHOWN}.includes('automobile')")
    requests = len(page.requests)
    slide = "(place => {const slider = document.querySelector('#threshold input[type=range]'); slider.value = place; "
    slide += "slider.dispatchEvent(new Event('input', {bubbles: true}))})"
    page.value(f"{slide}(0.99)")
    page.wait(f"{SHOWN}.length == 0")
    page.wait("document.querySelector('#answer .verdict:not([hidden])').innerText == 'None of these found'")
    page.value(f"{slide}(0.3)")
    page.wait(f"{SHOWN}.includes('bus')")
    shown = page.value(f"{SHOWN}.filter(word => word == 'bus').length")
    row = "[...document.querySelectorAll('#answer tr')].find(row => row.innerText.startsWith('bus'))"
    assert page.value(f"{row}.querySelector('.number').innerText") == str(shown)
    assert len(page.requests) == requests  # no new prediction


def test_a_sent_photo_is_answered_and_not_kept(page: Tab, tmp_path: Path) -> None:
    sent = tmp_path / "of a person.jpg"
    sent.write_bytes((PHOTOS / "suitcases.jpg").read_bytes())
    page.type("#words textarea", "suitcase, cat")
    page.send_file("#upload input[type=file]", sent)
    page.wait(f"{SHOWN}.includes('suitcase')")
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert list(folder.rglob(sent.name)) == []
    left = [file for file in folder.rglob("*") if file.is_file() and file.read_bytes() == sent.read_bytes()]
    assert [file.name for file in left] == ["suitcases.jpg"]  # the package's own, which the page offers
    # Nobody else's words or photos are in a page that is opened now.
    page.open(page.value("location.href"))
    page.wait(f"{SHOWN}.includes('automobile')")


def test_a_bad_photo_and_bad_words_are_told_in_a_line(page: Tab, tmp_path: Path) -> None:
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(b"no photo")
    page.send_file("#upload input[type=file]", bad)
    page.wait("document.querySelector('#message').innerText.includes('broken.jpg')")
    assert page.value("document.querySelector('#message').innerText.trim().split('\\n').length") == 1
    assert page.value(f"Boolean({ANSWERED})")  # the photo before it stays
    page.type("#words textarea", "bus, bus")
    page.wait("document.querySelector('#message').innerText.includes('given twice')")
    page.type("#words textarea", "bus")
    page.wait(f"{SHOWN}.includes('bus') && !document.querySelector('#message').innerText.trim()")


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_other_tasks_answer_too(page: Tab, task: str) -> None:
    page.click(f"#task input[value={task}]")
    if task == "classify":
        page.wait("document.querySelector('#answer .verdict:not([hidden])')")
        page.wait("document.querySelector('#answer').innerText.includes('none of these')")
    else:
        page.wait(f"{SHOWN}.includes('bus') && document.querySelector('#answer').innerText.includes('none of these')")


def test_a_photo_of_the_package_brings_its_words(page: Tab) -> None:
    page.click("#photos button:has(img[src*='suitcases'])")
    page.wait(f"{SHOWN}.includes('suitcase')")
    assert "suitcase" in page.value("document.querySelector('#words textarea').value")


def test_a_download_is_a_coco_file(page: Tab, tmp_path: Path) -> None:
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#download-COCO")
    file = tmp_path / "street_coco.json"
    end = time.monotonic() + 60
    while not file.is_file():
        assert time.monotonic() < end
        time.sleep(0.05)
    (photo,) = coco_json.read(file).photos
    assert sorted(thing.word for thing in photo.objects) == sorted(page.value(SHOWN))
    assert json.loads(file.read_text())["images"][0]["file_name"] == "street.jpg"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_shows_it_in_light_and_dark(page: Tab, dark: bool) -> None:
    page.show(390, 844, dark=dark, phone=True)
    page.open(page.value("location.href"))
    page.wait(ANSWERED)
    assert page.value("document.documentElement.scrollWidth") == page.value("innerWidth") == 390
    background, text = page.value(
        "['background-color', 'color'].map(name => getComputedStyle(document.body).getPropertyValue(name))"
    )
    assert (_brightness(background) < 0.2) == dark
    assert abs(_brightness(background) - _brightness(text)) > 0.6
    labels = page.value("[...document.querySelectorAll('#answer .label:not([hidden])')].map(e => e.getBBox().x)")
    assert labels
    assert min(labels) >= 0


def _brightness(colour: str) -> float:
    """Of ``rgb(r, g, b)``, 0 to 1."""
    return sum(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / (3 * 255)
