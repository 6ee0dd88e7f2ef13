"""How much a photo's answer is in doubt, to show first what a person should look at."""

from __future__ import annotations

from pomp.formats.labelled import LabelledPhoto


def doubt(photo: LabelledPhoto, threshold: float) -> float:
    """From 0, sure or said by a person, to 1.

    A thing is in doubt as its score is near the threshold, and a photo as its least sure thing is. A photo in which
    nothing was found comes first: what a detector has missed shows nowhere else. A word of the whole photo is in doubt
    as its own share is near the threshold; "none of these" is, as the share of all words together is near it.

    Args:
        threshold: the lowest score of a thing, or the own share above which a photo gets a word.
    """
    if photo.words is not None:
        if photo.scores:
            return _nearness(photo.scores[0], threshold)
        return 0.0 if photo.none_share is None else _nearness(1 - photo.none_share, threshold)
    scores = [item.score for item in photo.objects if item.score is not None]
    if not photo.objects:
        return 1.0
    return _nearness(min(scores), threshold) if scores else 0.0


def _nearness(score: float, threshold: float) -> float:
    """1 at the threshold, 0 at the end of the scale that the score is on."""
    scale = 1 - threshold if score >= threshold else threshold
    return max(0.0, 1 - abs(score - threshold) / scale) if scale > 0 else 1.0
