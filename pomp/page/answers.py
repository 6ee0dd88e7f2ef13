"""Models that are loaded once, and words that are set when they change."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pomp.showing.answer import Answer, answer
from prompt_core.errors import UserError

if TYPE_CHECKING:
    from pomp.models.photo_model import Model

HAND, LEARNED = "hand", "learned"
# What scores less is shown at no place of the slider.
LOWEST = 0.1
MAX_WORDS, MAX_LETTERS = 1000, 100


@dataclass(frozen=True)
class Question:
    """Words for a task.

    Attributes:
        task: ``detect``, ``classify`` or ``segment``.
        words: what to look for.
        negatives: what else may be there.
        prompt: ``hand`` or ``learned``.
    """

    task: str
    words: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    prompt: str = HAND


def words_of(text: str) -> tuple[str, ...]:
    """Words as they are typed: separated by commas or lines. Never the name of a file.

    Raises:
        UserError: too many, too long, or one twice.
    """
    words = [" ".join(word.split()) for line in text.splitlines() for word in line.split(",")]
    words = [word for word in words if word]
    if len(words) > MAX_WORDS:
        raise UserError(
            f"{len(words):,} words are given and the page takes {MAX_WORDS:,}; pomp detect takes any number"
        )
    seen: set[str] = set()
    for word in words:
        if len(word) > MAX_LETTERS:
            raise UserError(f"the word that begins {word[:20]!r} has {len(word):,} letters; {MAX_LETTERS} are enough")
        if word in seen:
            raise UserError(f"the word {word!r} is given twice; give it once")
        seen.add(word)
    return tuple(words)


class Answers:
    """Answers questions; one at a time, since models are shared by everybody who has the page open.

    Args:
        load: :func:`pomp.load`, or what takes the same arguments.
        models: the name of the model of each task.
        prompt: the file of a learned prompt, or none.
        device: of all models.
    """

    def __init__(
        self,
        load: Callable[..., Model],
        models: dict[str, str],
        prompt: str | os.PathLike[str] = "",
        device: str = "auto",
    ) -> None:
        self._load = load
        self._names, self._device = models, device
        self.prompt = os.fspath(prompt)
        self._models: dict[tuple[str, str], Model] = {}
        self._words: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._one_at_a_time = threading.Lock()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have a model."""
        return tuple(self._names)

    def __call__(self, question: Question, pixels: np.ndarray, name: str) -> Answer:
        """The answer for (H, W, 3) uint8 in RGB.

        Raises:
            UserError: no words, or words or negatives that the model refuses.
        """
        if not question.words:
            raise UserError("type a word or more, separated by commas: bus, taxi, traffic light")
        both = sorted(set(question.words) & set(question.negatives))
        if both:
            raise UserError(f"{both[0]!r} is asked for and ruled out; give it in one place")
        with self._one_at_a_time:
            return answer(self._with_words(question), question.words, pixels, name)

    def get_ready(self) -> None:
        """Load the models of all tasks, so that no question has to wait for them.

        Raises:
            UserError: as :func:`pomp.load`.
        """
        with self._one_at_a_time:
            for task in self._names:
                for prompt in (HAND, LEARNED) if self.prompt else (HAND,):
                    self._of(task, prompt)

    def _with_words(self, question: Question) -> Model:
        key = question.task, question.prompt
        model = self._of(*key)
        asked = question.words, question.negatives
        if self._words.get(key) != asked:
            self._words.pop(key, None)  # a model that refuses words may have neither these nor those before
            model.words(list(question.words), question.negatives)
            self._words[key] = asked
        return model

    def _of(self, task: str, prompt: str) -> Model:
        if (task, prompt) not in self._models:
            if task not in self._names:
                raise UserError(f"the page has no model to {task}; it was started for {', '.join(self._names)}")
            more: dict[str, Any] = {}
            if task != "segment":
                more["threshold"] = LOWEST if task == "detect" else 0.0
            if prompt == LEARNED:
                if not self.prompt:
                    raise UserError("there is no learned prompt; start the page with pomp app --prompt FILE")
                more["prompt"] = self.prompt
            self._models[task, prompt] = self._load(self._names[task], task, device=self._device, **more)
        return self._models[task, prompt]
