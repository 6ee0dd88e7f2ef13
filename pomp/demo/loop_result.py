"""What went around the loop, for the page and for metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pomp.formats.labelled import LabelledPhoto
from pomp.showing.answer import Answer

if TYPE_CHECKING:
    from PIL.Image import Image

    from pomp.learning.before_after import BeforeAfter
    from pomp.learning.learn_words import LearnedWords

THRESHOLD = 0.3
PAGE, CORRECTIONS, PROMPT, METRICS = "index.html", "corrections.json", "prompt.safetensors", "metrics.json"


@dataclass(frozen=True)
class Found:
    """What a photo's own words find: things, and the own shares of the whole photo."""

    things: Answer
    whole: Answer


@dataclass(frozen=True)
class Region:
    """A box of a photo that nobody corrected, and the word that the CLIP gives it before and after.

    Attributes:
        picture: its pixels.
        word: what is in it.
        before, after: the best of the words.
    """

    picture: Image
    word: str
    before: str
    after: str


@dataclass(frozen=True)
class Counts:
    """What a detector finds in photos whose things are known.

    Attributes:
        true: boxes of things.
        right: that were found, with their word.
        wrong: boxes that are no such thing.
    """

    true: int
    right: int
    wrong: int


@dataclass(frozen=True)
class LoopResult:
    """All that the page shows.

    Attributes:
        folder: of the page.
        found: of each photo, by its own words.
        corrected: the photos with boxes of people.
        words: all that the boxes have.
        first: what was found in the corrected photos before, with these words.
        learned: the prompt, and what it was learned from.
        regions: boxes right before and after, on photos that nobody corrected.
        changed: those that get another word.
        counts: what the detector finds in these photos, before and after.
        pairs: these photos before and after.
        seconds: of each part.
    """

    folder: Path
    found: list[Found]
    corrected: list[LabelledPhoto]
    words: tuple[str, ...]
    first: Counts
    learned: LearnedWords
    regions: BeforeAfter
    changed: list[Region]
    counts: tuple[Counts, Counts]
    pairs: list[tuple[Answer, Answer]]
    seconds: dict[str, float]

    @property
    def finding(self) -> str:
        """One sentence with the numbers on photos that nobody corrected."""
        told = self.regions.describe()
        low, high = told["gain_interval"]
        what = f"{told['images']} boxes of {told['photos']} photos that nobody corrected"
        shares = f"{told['before']:.0f} % named right before, {told['after']:.0f} % after"
        return f"{what}: {shares} (difference {told['gain']:+.0f}, 95 % interval {low:+.0f} to {high:+.0f})"
