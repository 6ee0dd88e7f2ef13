"""The loop, top to bottom: words, what is found, corrections, a learned prompt, before and after, one page."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pomp.demo.demo_folder import claim_folder
from pomp.demo.loop_page import loop_page
from pomp.demo.loop_result import CORRECTIONS, METRICS, PAGE, PROMPT, THRESHOLD, Counts, Found, LoopResult, Region
from pomp.formats.labelled import Corrections, LabelledPhoto
from pomp.page.answers import words_of
from pomp.shipped_photos import PHOTOS, SUGGESTED, shipped_photos
from pomp.showing.answer import Answer, answer
from prompt_core.data.open_photo import read_photo
from prompt_core.visible import say
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pomp.learning.before_after import BeforeAfter
    from pomp.learning.learn_words import LearnedWords
    from pomp.models.photo_model import Model

# Of pomp learn, for two minutes: fewer names beside the words.
SETTINGS = ("LOSS.NUM_CLASSES=96", "LOSS.ANCHOR_NAMES=32")
# The others stay as nobody's: before and after is measured on them. Most of their words are corrected elsewhere.
CORRECTED = ("broccoli.jpg", "desk.jpg", "gull.jpg", "kitchen.jpg", "sandwich.jpg", "street.jpg", "suitcases.jpg")


def run_loop(output: str | os.PathLike[str], settings: tuple[str, ...] = SETTINGS) -> LoopResult:
    """Run the loop in a folder.

    Args:
        settings: of learning, ``KEY=VALUE``.

    Raises:
        UserError: for a folder that holds something else.
    """
    from pomp import load
    from pomp.formats import coco_json
    from prompt_core.files import write_json, write_text

    folder = claim_folder(output)
    seconds: dict[str, float] = {}
    photos = shipped_photos()
    corrected = [photo for photo in photos if photo.name in CORRECTED]
    untouched = [photo for photo in photos if photo.name not in CORRECTED]
    words = tuple(sorted({thing.word for photo in photos for thing in photo.objects}))
    with _part("load the models", seconds):
        detector, namer = load("mini", "detect", threshold=THRESHOLD), load("mini", "classify")
    with _part("find the words of each photo", seconds):
        found = [_find(detector, namer, photo) for photo in photos]
    with _part("compare with the corrections", seconds):
        detector.words(list(words))
        first = _count(detector, corrected, words)
        coco_json.write_corrections(Corrections("coco", tuple(corrected), words), folder / CORRECTIONS)
    with _part("learn a prompt from the corrections", seconds):
        lesson = learn_and_compare(corrected, untouched, words, settings, folder / PROMPT)
    with _part("find the same words before and after", seconds):
        after = load("mini", "detect", prompt=folder / PROMPT, threshold=THRESHOLD).words(list(words))
        counts = _count(detector, untouched, words), _count(after, untouched, words)
        pairs = [(_answer(detector, photo, words), _answer(after, photo, words)) for photo in untouched]
    result = LoopResult(folder, found, corrected, words, first, *lesson, counts, pairs, seconds)
    write_text(folder / PAGE, loop_page(result))
    write_json(folder / METRICS, _metrics(result, settings))
    return result


def _find(detector: Model, namer: Model, photo: LabelledPhoto) -> Found:
    words, negatives = (words_of(text) for text in SUGGESTED[photo.name])
    return Found(*(_answer(model.words(list(words), negatives), photo, words) for model in (detector, namer)))


def _answer(model: Model, photo: LabelledPhoto, words: tuple[str, ...]) -> Answer:
    return answer(model, words, read_photo(photo.path or ""), photo.name)


def _count(detector: Any, photos: list[LabelledPhoto], words: tuple[str, ...]) -> Counts:
    from pomp.learning.scored_answers import box_answers

    answers = box_answers(detector, photos, Vocabulary(words, source="corrections"), lambda done, of: None)
    right = int(answers.right.sum())
    return Counts(sum(len(photo.objects) for photo in photos), right, len(answers.right) - right)


def learn_and_compare(
    corrected: list[LabelledPhoto],
    untouched: list[LabelledPhoto],
    words: tuple[str, ...],
    settings: tuple[str, ...],
    file: Path,
) -> tuple[LearnedWords, BeforeAfter, list[Region]]:
    """Learn a prompt on some photos, write it, and ask for the boxes of others."""
    import torch

    from pomp.learning.before_after import BeforeAfter
    from pomp.learning.encoded import encode_examples
    from pomp.learning.examples import examples_of
    from pomp.learning.learn_prompt import word_logits
    from pomp.learning.learn_words import learn_words, save_learned
    from pomp.learning.prompt_settings import TEMPLATE, learning_config
    from prompt_core.command_line import load_model
    from prompt_core.methods.templates import TemplateMethod

    cfg = learning_config("pomp", ("mini", ""), 0, settings)
    clip = load_model(cfg, random_weights=False)
    asked = Vocabulary(words, source="corrections")
    with tempfile.TemporaryDirectory() as cache:
        learned = learn_words(cfg, clip, examples_of(corrected, PHOTOS, "detect", asked), 0, Path(cache))
        examples = examples_of(untouched, PHOTOS, "detect", asked)
        encoded = encode_examples(clip, examples, cfg, Path(cache))
    save_learned(learned, file, cfg)
    methods = (TemplateMethod(clip, templates=[TEMPLATE]), learned.learned.method)
    images = torch.from_numpy(encoded.plain)
    with torch.no_grad():
        before, after = (word_logits(method, images, encoded.words).argmax(dim=1).numpy() for method in methods)
    regions = BeforeAfter(
        "photos that nobody corrected", before == encoded.labels, after == encoded.labels, encoded.photo, "never seen"
    )
    changed = [
        Region(examples.images.read(row), words[encoded.labels[row]], words[before[row]], words[after[row]])
        for row in np.flatnonzero(before != after).tolist()
    ]
    return learned, regions, changed


def _metrics(result: LoopResult, settings: tuple[str, ...]) -> dict[str, Any]:
    return {
        "first": asdict(result.first),
        "before": asdict(result.counts[0]),
        "after": asdict(result.counts[1]),
        "regions": result.regions.describe(),
        "learned": result.learned.notes(),
        "settings": list(settings),
        "seconds": result.seconds,
    }


@contextlib.contextmanager
def _part(name: str, seconds: dict[str, float]) -> Iterator[Any]:
    say(f"{name} …")
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
