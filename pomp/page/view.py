"""What the page does when something is typed, sent or picked: plain functions of values."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pomp.page.answers import HAND, LEARNED, Answers, Question, words_of
from pomp.shipped_photos import SUGGESTED
from pomp.showing.answer import Answer
from pomp.showing.answer_cards import answer_card
from prompt_core.errors import UserError
from prompt_core.visible import visible

THRESHOLDS = {"detect": 0.3, "classify": 0.5, "segment": 0.0}
BOTH = "both"
TITLES = {HAND: "Hand-written prompt", LEARNED: "Learned prompt"}


@dataclass(frozen=True)
class Sent:
    """A photo in front of a person."""

    name: str
    pixels: np.ndarray


@dataclass(frozen=True)
class View:
    """What the page shows: the answers as HTML, or one line that says what is wrong."""

    answers: tuple[Answer, ...]
    card: str
    message: str = ""


def view(
    answers: Answers, photo: Sent | None, task: str, words: str, negatives: str, prompt: str, threshold: float
) -> View:
    """Ask, and show what comes.

    Args:
        prompt: ``hand``, ``learned`` or ``both``.
    """
    try:
        if photo is None:
            raise UserError("drop a photo, or pick one below")
        prompts = (HAND, LEARNED) if prompt == BOTH else (prompt,)
        questions = [Question(task, words_of(words), words_of(negatives), name) for name in prompts]
        found = tuple(answers(question, photo.pixels, photo.name) for question in questions)
    except UserError as error:
        return View((), "", problem(str(error)))
    return View(found, cards(found, threshold, [TITLES[name] for name in prompts] if len(prompts) > 1 else [""]))


def cards(found: Sequence[Answer], threshold: float, titles: Sequence[str]) -> str:
    """Answers side by side."""
    parts = [answer_card(answer, threshold, title) for answer, title in zip(found, titles, strict=True)]
    return f'<div class="answers">{"".join(parts)}</div>' if len(parts) > 1 else "".join(parts)


def problem(text: str) -> str:
    """One line that a person can act on."""
    line = " ".join(text.split())
    return f'<p class="problem" role="alert">{html.escape(visible(line[:1].upper() + line[1:]))}.</p>'


def words_for(photo: str, words: str, negatives: str) -> tuple[str, str]:
    """Words and negative words to show a photo of the package with: those that were typed, or else its own."""
    typed = (words.strip() or negatives.strip()) and (words, negatives) not in SUGGESTED.values()
    return (words, negatives) if typed else SUGGESTED.get(photo, (words, negatives))
