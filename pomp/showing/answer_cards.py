"""An answer as HTML: the photo with what is in it, and a row for each word.

What a threshold hides or counts carries its score (``data-score``, ``data-below``, ``data-scores``), so that a page can
move the threshold by itself.
"""

from __future__ import annotations

import html

from pomp.formats.labelled import NONE_OF_THESE, UNSURE, answer_of
from pomp.showing.answer import Answer
from pomp.showing.overlay import Ink, overlay
from pomp.showing.share_bars import Bar, bars, percent
from prompt_core.visible import visible

LISTED = 12  # rows of words, the best first


def answer_card(answer: Answer, threshold: float, title: str = "") -> str:
    """The photo, what is said of it, and the words.

    Args:
        threshold: what scores less is hidden.
        title: a heading, where there are several cards.
    """
    ink = Ink(answer.words, boxes=answer.task == "detect")
    picture = overlay(answer.pixels, answer.photo.objects, ink, threshold)
    said = {"detect": _things, "classify": _whole_photo, "segment": _pixels}[answer.task](answer, ink, threshold)
    heading = f"<h3>{html.escape(visible(title))}</h3>" if title else ""
    return f'<article class="answer"><div>{heading}{picture}</div><div>{said}</div></article>'


def _things(answer: Answer, ink: Ink, threshold: float) -> str:
    scores: dict[str, list[float]] = {word: [] for word in answer.words}
    for thing in answer.photo.objects:
        scores[thing.word].append(thing.score or 0.0)
    best = sorted(answer.words, key=lambda word: -max(scores[word], default=0.0))
    rows = [
        Bar(word, max(scores[word], default=0.0), colour=ink.colours(word)[0], scores=tuple(scores[word]))
        for word in best[:LISTED]
    ]
    highest = max((thing.score or 0.0 for thing in answer.photo.objects), default=0.0)
    found = _between("Things found", f"{NONE_OF_THESE.capitalize()} found", highest, threshold)
    hint = "The bar is the best score of the word, the number says how often it was found at this threshold."
    return f'{found}{bars(rows, threshold)}{_more(answer.words)}<p class="hint">{hint}</p>'


def _whole_photo(answer: Answer, ink: Ink, threshold: float) -> str:
    named = list(zip(answer.photo.words or (), answer.photo.scores, strict=True))
    rows = [Bar(word, share, colour=ink.colours(word)[0]) for word, share in named]
    rows.append(Bar(NONE_OF_THESE, answer.none, quiet=True))
    word, share = named[0] if named else ("", 0.0)
    # A word is the answer where its share is above the threshold, and a thing where its score is not below.
    otherwise = answer_of(None, answer.none) or UNSURE
    verdict = _between(word, otherwise.capitalize(), share, threshold, strictly=True)
    hint = (
        "Own share: how much of the photo's answer a word has against all other words and the 21,843 names of "
        f"ImageNet-21K. What no word has is “{NONE_OF_THESE}”."
    )
    return f'{verdict}{bars(rows)}<p class="hint">{hint}</p>'


def _pixels(answer: Answer, ink: Ink, threshold: float) -> str:
    rows = [Bar(word, share, colour=ink.colours(word)[0]) for word, share in answer.shares[:LISTED]]
    rest = max(0.0, 1 - sum(share for _, share in answer.shares))
    if rest > 0:
        rows.append(Bar(NONE_OF_THESE, rest, quiet=True))
    first = answer.shares[0][0] if answer.shares else NONE_OF_THESE.capitalize()
    largest = f'<p class="verdict">{html.escape(visible(f"Mostly {first}" if answer.shares else first))}</p>'
    hint = "The number is a word's part of the photo. What fits a negative word better, or no word at all, is "
    hint += f"“{NONE_OF_THESE}”."
    hint += f" Words that score below {percent(threshold)} are not drawn." if threshold else ""
    return f'{largest}{bars(rows)}<p class="hint">{hint}</p>'


def _between(above: str, below: str, score: float, threshold: float, strictly: bool = False) -> str:
    reached = score > threshold if strictly else score >= threshold
    mark = ' data-strictly=""' if strictly else ""
    return (
        f'<p class="verdict" data-score="{score:.6f}"{mark}{"" if reached else " hidden"}>{html.escape(visible(above))}'
        f'</p><p class="verdict" data-below="{score:.6f}"{mark}{" hidden" if reached else ""}>'
        f"{html.escape(visible(below))}</p>"
    )


def _more(words: tuple[str, ...]) -> str:
    return f'<p class="hint">and {len(words) - LISTED:,} more words</p>' if len(words) > LISTED else ""
