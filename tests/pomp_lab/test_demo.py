"""The demo on few classes with a tiny random model: files, numbers, page, and a second run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pomp.demo.demo_folder import MARKER, claim_folder
from pomp_lab.demo.make_demo import WRITTEN, run_demo
from pomp_lab.demo.scores import ATTRIBUTES, predictions
from pomp_lab.demo.summary import DemoResult, finding, score_table
from pomp_lab.shapes.options import ShapesOptions
from prompt_core import SoftPrompt, TextClassifier, UserError
from prompt_core.config import load_config
from prompt_core.files import read_json

pytest.importorskip("matplotlib", reason="the demo's pictures need matplotlib (extra `demo`)")

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "prompt" / "mini_shapes.yaml"
SHAPES = ShapesOptions(
    classes=30,
    classification_classes=9,
    train_images_per_class=2,
    val_images_per_class=2,
    classification_size=32,
    parts=("classification",),
)
PICTURES = ("examples.png", "learning.png", "accuracy.png")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Numbers, addresses and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[float, str]] = []
        self.addresses: list[str] = []
        self.tags: Counter[str] = Counter()
        self._open: float | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] += 1
        self.addresses += [str(values[name]) for name in ("src", "href", "srcset", "action", "data") if name in values]
        if tag == "data":
            self._open = float(str(values["value"]))

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.numbers.append((self._open, data))
            self._open = None


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A JSON configuration of open_clip, and random weights for it."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("model")
    settings: dict[str, Any] = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (folder / "tiny.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**settings).state_dict(), folder / "tiny.safetensors")
    return folder / "tiny.json", folder / "tiny.safetensors"


def settings(tiny_files: tuple[Path, Path], *more: str) -> Any:
    config, weights = tiny_files
    few = ["PROMPT.N_CTX=2", "OPTIM.EPOCHS=2", "OPTIM.BATCH=4", "AUGMENT.STORED_VIEWS=1", "LOSS.NUM_CLASSES=8"]
    model = [f"MODEL.NAME={config}", f"MODEL.PRETRAINED={weights}", "DEVICE=cpu", "DATA.WORKERS=0"]
    return load_config(CONFIG, [*few, *model, *more])


@pytest.fixture(scope="module")
def demo(tiny_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return run_demo(tmp_path_factory.mktemp("demo"), settings(tiny_files), SHAPES, workers=1)


def test_files(demo: DemoResult) -> None:
    from PIL import Image

    for name in PICTURES:
        with Image.open(demo.folder / name) as picture:
            assert picture.width > 500
            assert np.asarray(picture.convert("L")).std() > 5, f"{name} is blank"
    prompt = SoftPrompt.load(demo.folder / "prompt" / "prompt.safetensors")
    assert prompt.n_ctx == 2
    assert prompt.metadata["K"] == 8
    classifier = TextClassifier.load(demo.folder / "classifier.safetensors")
    names = (demo.folder / "shapes" / "class_names.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert classifier.names == names
    assert len(names) == 30
    assert not list(demo.folder.rglob("*.tmp*"))


def test_metrics_are_counts_of_right_answers(demo: DemoResult) -> None:
    metrics = read_json(demo.folder / "metrics.json")
    assert {key: value for key, value in metrics.items() if not key.startswith("_")} == demo.metrics
    assert (
        set(metrics["_protocol"]) == {column.key for column in demo.columns} == {k.split("/")[0] for k in demo.metrics}
    )
    assert metrics["_run"]["shapes"]["options"]["classes"] == 30
    weight = TextClassifier.load(demo.folder / "classifier.safetensors").weight
    counts = {}
    for column in demo.columns:
        counts[column.key] = len(column.test_set.rows)
        names = [column.test_set.candidates.names[label] for label in column.test_set.labels]
        assert [file.parent.name.replace("_", " ") for file in column.files] == names
        right = predictions(column, weight) == column.labels
        assert metrics[f"{column.key}/top1_learned"] == pytest.approx(100 * right.mean())
        assert metrics[f"{column.key}/top1_chance"] == pytest.approx(100 / len(column.test_set.rows))
        assert metrics[f"{column.key}/top5_learned"] >= metrics[f"{column.key}/top1_learned"]
        gain = metrics[f"{column.key}/top1_learned"] - metrics[f"{column.key}/top1_photo"]
        assert metrics[f"{column.key}/top1_gain"] == pytest.approx(gain)
        assert metrics["_protocol"][column.key]["candidates"] == len(column.test_set.rows)
    assert counts["shapes_base_of_own"] + counts["shapes_novel_of_own"] == counts["shapes_base_of_pictured"] == 9
    assert counts["shapes_novel_of_all"] == 30


def test_novel_classes_have_no_training_image(demo: DemoResult) -> None:
    train = {folder.name for folder in (demo.folder / "shapes" / "classification" / "train").iterdir()}
    novel = {file.parent.name for column in demo.columns if column.group == "novel" for file in column.files}
    assert novel
    assert not novel & train


def test_page_shows_the_metrics_and_asks_nobody(demo: DemoResult) -> None:
    text = (demo.folder / "index.html").read_text(encoding="utf-8")
    page, metrics = Page(text), read_json(demo.folder / "metrics.json")
    lines = ("chance", *(row.key for row in demo.rows))
    top1 = [metrics[f"{column.key}/top1_{line}"] for line in lines for column in demo.columns]
    gains = [metrics[f"{column.key}/top1_gain"] for column in demo.columns]
    widest = [column.key for column in demo.columns if column.key.endswith("_of_all")]
    shares = [metrics[f"{k}/{attribute}_{line}"] for line in lines for k in widest for attribute in ATTRIBUTES]
    assert [value for value, _ in page.numbers] == [*top1, *gains, *shares]
    assert all(float(shown.split(" ")[0]) == pytest.approx(value, abs=0.051) for value, shown in page.numbers)
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(", re.sub(r"data:image/png;base64,[\w+/=]+", "", text))
    assert (page.tags["img"], page.tags["script"]) == (len(PICTURES), 0)
    for example in demo.examples:
        assert f"{'✓' if example.after == example.name else '✗'} {example.after}" in text
    for row in (*demo.columns, *demo.rows):
        assert row.key in ("name", "photo", "ensemble", "learned") or row.key in text


def test_table_has_every_prompt(demo: DemoResult) -> None:
    texts = score_table(demo).texts
    assert [row[0] for row in texts[:-1]] == ["chance", *(prompt.label for prompt in demo.rows)]
    assert {len(row) for row in texts} == {len(demo.columns) + 1}


@pytest.mark.parametrize(("gain", "verdict"), [(3.0, "better"), (-3.0, "worse"), (1.0, "not clearly different")])
def test_verdict_follows_the_interval(demo: DemoResult, gain: float, verdict: str) -> None:
    column = demo.columns[0]
    metrics = {**demo.metrics, f"{column.key}/top1_gain": gain, f"{column.key}/top1_gain_margin": 2.0}
    assert finding(column, metrics).endswith(f"The learned prompt is {verdict}.")


def test_again_uses_what_is_there(demo: DemoResult, tiny_files: tuple[Path, Path]) -> None:
    reused = [*(demo.folder / "shapes").rglob("*.png"), *(demo.folder / "cache").rglob("features.npy")]
    before = {file: file.stat().st_mtime_ns for file in reused}
    context = SoftPrompt.load(demo.folder / "prompt" / "prompt.safetensors").context
    again = run_demo(demo.folder, settings(tiny_files), SHAPES, workers=1)
    assert {file: file.stat().st_mtime_ns for file in reused} == before
    assert torch.equal(SoftPrompt.load(demo.folder / "prompt" / "prompt.safetensors").context, context)
    assert again.metrics == demo.metrics


def test_other_settings_are_reported_and_fresh_starts_over(
    demo: DemoResult, tiny_files: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(demo.folder, folder)
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    (folder / "prompt" / "mine.txt").write_text("kept", encoding="utf-8")
    changed = settings(tiny_files, "OPTIM.LR", "0.5")
    with pytest.raises(UserError, match=r"other settings .*OPTIM.LR.*--fresh"):
        run_demo(folder, changed, SHAPES, workers=1)
    claim_folder(folder, WRITTEN)
    # Shapes know for themselves what is theirs.
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {path for path in left if not path.startswith("shapes")} == {MARKER, "mine.txt", "prompt/mine.txt"}


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_with_other_things_is_left_alone(tiny_files: tuple[Path, Path], tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "index.html").write_text("somebody's", encoding="utf-8")
    with pytest.raises(UserError, match="holds files but no earlier demo"):
        run_demo(tmp_path, settings(tiny_files), SHAPES, fresh=fresh)
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]


def test_missing_matplotlib_is_reported_before_any_work(
    tiny_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install -e \"\.\[demo\]\""):
        run_demo(tmp_path / "demo", settings(tiny_files), SHAPES)
    assert not (tmp_path / "demo").exists()


def test_tool_tells_mistakes_in_one_line(call_tool: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    code, _, error = call_tool("demo", "--shapes", "--output", tmp_path)
    assert code == 2
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / MARKER).exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page in")
def test_page_in_a_browser(demo: DemoResult, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    # The page itself reports what it holds, after layout; the copy differs from the page by this script alone.
    text = (demo.folder / "index.html").read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => { document.title = JSON.stringify({
        tables: document.querySelectorAll("table").length,
        broken: [...document.images].filter(image => !image.naturalWidth).length,
        requests: performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length,
        wider: document.documentElement.scrollWidth > innerWidth }); });</script>"""
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", probe + "</body>"), encoding="utf-8")
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    quiet += ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [CHROMIUM, *quiet, "--enable-logging=stderr", "--window-size=500,900", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    measured = json.loads(re.search(r"<title>(.*?)</title>", done.stdout).group(1))  # type: ignore[union-attr]
    assert measured == {"tables": 5, "broken": 0, "requests": 0, "wider": False}
    assert "CONSOLE" not in done.stderr
