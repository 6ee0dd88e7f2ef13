"""From corrected photos to thresholds: load the model, look at the photos, choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pomp.formats.labelled import LabelledPhoto
from pomp.learning.confused_words import confused_words
from pomp.learning.examples import examples_of
from pomp.learning.scored_answers import ScoredAnswers, box_answers, photo_answers
from pomp.learning.word_thresholds import WordThresholds, choose_threshold
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from prompt_core.classifier import TextClassifier

LOWEST = 0.05  # score of the boxes that are looked at


def find_thresholds(
    corrected: Sequence[LabelledPhoto],
    words: Vocabulary | None,
    task: Any = "auto",
    model: str = "mini",
    prompt: str | None = None,
    precision: float = 0.9,
    sure: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[WordThresholds, list[str]]:
    """Thresholds of the words, and the photos that could not be read.

    Args:
        corrected: with the ``path`` of each, see :func:`pomp.formats.formats.read_corrections`.
        words: None for all that a person gave.
        task: ``auto`` for boxes where there are any, else whole photos.
        model: as :func:`pomp.load` takes it, as ``prompt``.
        precision: that is wanted; with ``sure`` of the lower end of its interval.

    Raises:
        UserError: corrections without words, absent photos, a model that cannot be loaded.
    """
    examples = examples_of(corrected, Path(), task, words)
    answers, classifier, default = _answers(corrected, examples.words, examples.task, model, prompt, progress)
    chosen = {
        word: choose_threshold(
            answers.scores[answers.words == row],
            answers.right[answers.words == row],
            int(answers.known[row]),
            precision,
            default,
            sure,
        )
        for row, word in enumerate(examples.words.names)
    }
    confused = confused_words(classifier, answers.taken_for, answers.known)
    about = {"model": model, "prompt": prompt, "photos": answers.photos, "lower_end_reaches": sure}
    return WordThresholds(examples.task, precision, default, chosen, confused, about), answers.unreadable


def _answers(
    corrected: Sequence[LabelledPhoto],
    words: Vocabulary,
    task: str,
    model: str,
    prompt: str | None,
    progress: Callable[[int, int], None],
) -> tuple[ScoredAnswers, TextClassifier, float]:
    from pomp.models.load import load

    loaded: Any
    if task == "classify":
        from prompt_core.background.photo_words import THRESHOLD

        loaded = load(model, task, prompt=prompt).words(words)
        return photo_answers(loaded, corrected, words, progress), loaded.namer.classifier, THRESHOLD
    from pomp.models.photo_detector import THRESHOLD as SCORE

    loaded = load(model, task, prompt=prompt, threshold=LOWEST).words(words)
    return box_answers(loaded, corrected, words, progress), detector_words(loaded), SCORE


def detector_words(model: Any) -> TextClassifier:
    """The words of a detector with the names of its background; those of ImageNet-21K where it has none."""
    from pomp_det.class_matrix import classifier_of_names

    predictor = model.predictor
    cfg = predictor.cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_BOX_HEAD.BACKGROUND = cfg.MODEL.ROI_BOX_HEAD.BACKGROUND or "imagenet21k"
    learned_with = getattr(predictor.model, "learned_with", None)
    words = Vocabulary(model.names, source="words of the detector")
    return classifier_of_names(cfg, words, model.prompt or cfg.MODEL.PROMPT, learned_with)
