"""The loop, top to bottom: words, what is found, corrections, a learned prompt, before and after, one page."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pomp.demo.demo_folder import claim_folder
from pomp.formats.labelled import Corrections, LabelledPhoto
from pomp.page.answers import words_of
from pomp.shipped_photos import PHOTOS, SUGGESTED, shipped_photos
from pomp.showing.answer import Answer, answer
from prompt_core.data.open_photo import read_photo
from prompt_core.visible import say

if TYPE_CHECKING:
    from PIL.Image import Image

    from pomp.learning.examples import Examples
    from pomp.learning.learn_words import LearnedWords
    from pomp.models.photo_model import Model

THRESHOLD = 0.3
# Of pomp learn, for two minutes: fewer names beside the words, and fewer turns.
SETTINGS = ("OPTIM.EPOCHS=10", "LOSS.NUM_CLASSES=96", "LOSS.ANCHOR_NAMES=32")
HELD_OUT = 0.5
PAIRS = 3  # photos that are shown before and after
PAGE, CORRECTIONS, PROMPT, METRICS = "index.html", "corrections.json", "prompt.safetensors", "metrics.json"


@dataclass(frozen=True)
class Found:
    """What a photo's own words find: things, and the own shares of the whole photo."""

    things: Answer
    whole: Answer


@dataclass(frozen=True)
class Region:
    """A corrected box, and the word that it gets before and after.

    Attributes:
        picture: its pixels.
        word: what a person said.
        before, after: the best of the words.
    """

    picture: Image
    word: str
    before: str
    after: str


@dataclass(frozen=True)
class LoopResult:
    """All that the page shows.

    Attributes:
        folder: of the page.
        found: of each photo.
        corrected: the photos with true boxes.
        learned: the prompt and what it is worth.
        changed: regions whose word is another one with the prompt, and how many there are in all.
        pairs: photos before and after.
        seconds: of each part.
    """

    folder: Path
    found: list[Found]
    corrected: tuple[LabelledPhoto, ...]
    words: tuple[str, ...]
    learned: LearnedWords
    changed: list[Region]
    pairs: list[tuple[Answer, Answer]]
    seconds: dict[str, float]

    @property
    def finding(self) -> str:
        """One sentence with the numbers on photos that were not learned on."""
        parts = []
        for comparison in self.learned.comparisons:
            told = comparison.describe()
            low, high = told["gain_interval"]
            parts.append(
                f"{comparison.title}: {told['before']:.0f} % of {told['images']} boxes right before, {told['after']:.0f} % "
                f"after (difference {told['gain']:+.0f}, 95 % interval {low:+.0f} to {high:+.0f})"
            )
        return "; ".join(parts) or "too few photos to measure by"


def run_loop(output: str | os.PathLike[str], settings: tuple[str, ...] = SETTINGS) -> LoopResult:
    """Run the loop in a folder.

    Args:
        settings: of learning, ``KEY=VALUE``.

    Raises:
        UserError: for a folder that holds something else.
    """
    from pomp.demo.loop_page import loop_page
    from pomp.formats import coco_json
    from prompt_core.files import write_json, write_text

    folder = claim_folder(output)
    seconds: dict[str, float] = {}
    photos = shipped_photos()
    with _part("load the models", seconds):
        detector, namer = _models()
    with _part("find the words of each photo", seconds):
        found = [_find(detector, namer, photo) for photo in photos]
    words = tuple(sorted({thing.word for photo in photos for thing in photo.objects}))
    corrections = Corrections("coco", tuple(photos), words)
    coco_json.write_corrections(corrections, folder / CORRECTIONS)
    with _part("learn a prompt from the corrections, and measure it", seconds):
        learned, changed, most_changed = _learn(corrections, settings, folder)
    with _part("find the corrected words before and after", seconds):
        after = _models(str(folder / PROMPT))[0]
        chosen = [photo for photo in photos if photo.name in most_changed]
        pairs = _pairs(detector, after, words, chosen)
    result = LoopResult(folder, found, corrections.photos, words, learned, changed, pairs, seconds)
    write_text(folder / PAGE, loop_page(result))
    write_json(folder / METRICS, {**learned.notes(), "seconds": seconds, "settings": list(settings)})
    return result


def _models(prompt: str = "") -> tuple[Model, Model]:
    from pomp import load

    if prompt:
        return load("mini", "detect", prompt=prompt, threshold=THRESHOLD), load("mini", "classify", prompt=prompt)
    return load("mini", "detect", threshold=THRESHOLD), load("mini", "classify")


def _find(detector: Model, namer: Model, photo: LabelledPhoto) -> Found:
    words, negatives = (words_of(text) for text in SUGGESTED[photo.name])
    pixels = read_photo(photo.path or "")
    answers = []
    for model in (detector, namer):
        model.words(list(words), negatives)
        answers.append(answer(model, words, pixels, photo.name))
    return Found(*answers)


def _learn(
    corrections: Corrections, settings: tuple[str, ...], folder: Path
) -> tuple[LearnedWords, list[Region], list[str]]:
    """The prompt, regions that it names otherwise, and the photos that have most of them."""
    from tempfile import TemporaryDirectory

    from pomp.learning.encoded import encode_examples
    from pomp.learning.examples import examples_of
    from pomp.learning.learn_prompt import word_logits
    from pomp.learning.learn_words import learn_words, save_learned
    from pomp.learning.prompt_settings import TEMPLATE, learning_config
    from prompt_core.command_line import load_model
    from prompt_core.methods.templates import TemplateMethod

    cfg = learning_config("pomp", ("mini", ""), 0, settings)
    clip = load_model(cfg, random_weights=False)
    examples = examples_of(corrections.photos, PHOTOS, "detect")
    with TemporaryDirectory() as cache:
        learned = learn_words(cfg, clip, examples, HELD_OUT, Path(cache))
        encoded = encode_examples(clip, examples, cfg, Path(cache))
    save_learned(learned, folder / PROMPT, cfg)
    import torch

    images = torch.from_numpy(encoded.plain)
    methods = (TemplateMethod(clip, templates=[TEMPLATE]), learned.learned.method)
    with torch.no_grad():
        before, after = (word_logits(method, images, encoded.words).argmax(dim=1).numpy() for method in methods)
    changed = np.flatnonzero(before != after)
    names = encoded.words.names
    regions = [
        Region(examples.images.read(row), names[encoded.labels[row]], names[before[row]], names[after[row]])
        for row in changed.tolist()
    ]
    return learned, regions, _most(encoded.photo[changed], examples, corrections)


def _most(owners: np.ndarray, examples: Examples, corrections: Corrections) -> list[str]:
    """Names of the photos with the most of some regions, then of others."""
    counts = {number: int((owners == number).sum()) for number in np.unique(examples.photo).tolist()}
    order = sorted(counts, key=lambda number: -counts[number])
    return [corrections.photos[number].name for number in order[:PAIRS]]


def _pairs(
    before: Model, after: Model, words: tuple[str, ...], photos: list[LabelledPhoto]
) -> list[tuple[Answer, Answer]]:
    for model in (before, after):
        model.words(list(words))
    pixels = [read_photo(photo.path or "") for photo in photos]
    return [
        (answer(before, words, seen, photo.name), answer(after, words, seen, photo.name))
        for photo, seen in zip(photos, pixels, strict=True)
    ]


@contextlib.contextmanager
def _part(name: str, seconds: dict[str, float]) -> Iterator[Any]:
    say(f"{name} …")
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
