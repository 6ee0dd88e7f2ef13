"""The gallery in a browser: filters, pages, the large view and its keys."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pomp.formats.labelled import LabelledObject, LabelledPhoto
from pomp.gallery import gallery

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]

ACT = """
<script>
const said = {errors: []};
window.addEventListener("error", event => said.errors.push(event.message));
const shown = () => cards.filter(card => !card.hidden).length;
const key = name => large.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const caption = () => document.getElementById("caption").textContent;
said.all = shown();
filter.value = "犬"; filter.dispatchEvent(new Event("change"));
said.filtered = shown();
said.text = document.getElementById("shown").textContent;
said.next = document.getElementById("after").hidden ? null : document.getElementById("after").getAttribute("href");
cards.find(card => !card.hidden).querySelector(".picture").click();
said.open = large.open;
said.first = caption();
key("ArrowRight");
said.second = caption();
key("ArrowRight"); key("ArrowRight");
said.last = caption();
key("ArrowLeft");
said.back = caption();
large.close();
said.closed = !large.open;
filter.value = ""; filter.dispatchEvent(new Event("change"));
said.again = shown();
said.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
document.body.setAttribute("data-said", JSON.stringify(said));
</script></body>
"""


def test_what_a_person_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "PAGE", 6)

    def photos() -> Iterator[LabelledPhoto]:
        for number in range(20):
            word = "犬" if number % 3 == 0 or number > 17 else "dog"
            score = 0.35 + number / 50
            yield LabelledPhoto(f"{number:02d}.jpg", 40, 30, (LabelledObject(word, (1, 2, 20, 20), score),))

    page = gallery.write_gallery(tmp_path, photos, ["dog", "犬"], 0.3)
    acted = page.with_name("acted.html")
    acted.write_text(page.read_text("utf-8").replace("</body>", ACT), "utf-8")
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--window-size=500,900"]
    run = subprocess.run([*command, acted.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    said = json.loads(re.search(r'data-said="(.*?)"', run.stdout).group(1).replace("&quot;", '"'))  # type: ignore[union-attr]
    assert said == {
        "errors": [],
        "all": 6,
        "filtered": 2,
        "text": "2 of 8 on this page",
        "next": "index_002.html#%E7%8A%AC",
        "open": True,
        "first": "00.jpg · score 0.35",
        "second": "03.jpg · score 0.41",
        "last": "03.jpg · score 0.41",
        "back": "00.jpg · score 0.35",
        "closed": True,
        "again": 6,
        "wide": False,
    }
