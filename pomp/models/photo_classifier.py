"""The model that names whole photos: a CLIP, words and a background of other names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pomp.labelling.photo_answers import PhotoAnswers, described
from pomp.models.photo_model import Model, names_of, vocabulary_of
from prompt_core.background.photo_words import THRESHOLD, PhotoNamer, PhotoWord
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import supervision

    from pomp.labelling.outputs import Outputs
    from pomp.learning.word_thresholds import WordThresholds
    from prompt_core.clip import Clip
    from prompt_core.prompt import SoftPrompt

TEMPLATE = "a photo of a {}."
BACKGROUND = "imagenet21k"


class PhotoClassifier(Model):
    """Names photos by own shares.

    Args:
        clip: the CLIP.
        prompt: a soft prompt or templates.
        threshold: a photo gets a word whose own share is above this.
        thresholds: of words, instead of ``threshold``.
    """

    task = "classify"

    def __init__(
        self,
        clip: Clip,
        prompt: SoftPrompt | Sequence[str],
        threshold: float = THRESHOLD,
        thresholds: WordThresholds | None = None,
    ) -> None:
        self.clip = clip
        self.prompt = prompt
        self.threshold = threshold
        self.thresholds = thresholds
        self._namer: PhotoNamer | None = None

    @property
    def names(self) -> list[str]:
        """The words, in the order of ``class_id``."""
        return self._with_words().classifier.names

    @property
    def namer(self) -> PhotoNamer:
        """What answers for batches of photos.

        Raises:
            UserError: when no words are set.
        """
        return self._with_words()

    def photo_task(self, outputs: Outputs) -> PhotoAnswers:
        """A row for each photo, and contact sheets as its pictures."""
        return PhotoAnswers(self.namer, outputs.pictures)

    def _set(self, words: Vocabulary | str, negatives: tuple[str, ...] | str) -> None:
        from prompt_core.classifier import TextClassifier

        vocabulary, prompt = vocabulary_of(words), self.prompt
        classifier = TextClassifier.build(
            self.clip, vocabulary, prompt, background=BACKGROUND, negatives=names_of(negatives)
        )
        self._namer = PhotoNamer(self.clip, classifier, self._bounds(classifier.names))

    def _bounds(self, names: Sequence[str]) -> list[float]:
        return [self.threshold] * len(names) if self.thresholds is None else self.thresholds.of(names)

    def _answer(self, pixels: np.ndarray) -> PhotoWord:
        return self._with_words()([Image.fromarray(pixels)])[0]

    def _detections(self, pixels: np.ndarray) -> supervision.Detections:
        import supervision

        answer, names = self._answer(pixels), self.names
        bounds = dict(zip(names, self._bounds(names), strict=True))
        found = [(word, share) for word, share in answer.best if share > bounds[word]]
        height, width = pixels.shape[:2]
        return supervision.Detections(
            xyxy=np.array([[0, 0, width, height]] * len(found), dtype=np.float32).reshape(-1, 4),
            confidence=np.array([share for _, share in found], dtype=np.float32),
            class_id=np.array([names.index(word) for word, _ in found], dtype=int),
            data={"class_name": np.array([word for word, _ in found], dtype=str)},
        )

    def _description(self, pixels: np.ndarray) -> dict[str, Any]:
        return described(self._answer(pixels))

    def _with_words(self) -> PhotoNamer:
        if self._namer is None:
            raise UserError("the classifier has no words; give .words([…]) first")
        return self._namer


def check_known(name: str, configurations: Sequence[str]) -> None:
    """Raises UserError for a name that is neither a CLIP nor, as the caller found, one of the configurations."""
    import open_clip

    from prompt_core.errors import nearest
    from prompt_core.towers.build import SCHEMAS

    clip = name.partition(":")[0]
    known = ("mini", "openai", *open_clip.list_models())
    if clip in known or name.startswith(SCHEMAS) or name.endswith(".json") or ".json:" in name:
        return
    raise UserError(
        f"model {name!r} is neither a configuration, nor the folder of a run, nor a CLIP of open_clip"
        f"{nearest(clip, (*configurations, *known))}; pomp models lists what there is"
    )


def load_classifier(
    name: str,
    prompt: SoftPrompt | str | None,
    weights: str,
    threshold: float | None,
    device: str,
    thresholds: WordThresholds | None = None,
) -> PhotoClassifier:
    """A CLIP as ``mini`` or ``NAME:PRETRAINED``, see :func:`pomp.load`.

    Raises:
        UserError: an unknown CLIP, random weights, a prompt of another CLIP.
    """
    from prompt_core.command_line import load_model
    from prompt_core.config import load_config
    from prompt_core.files import resolve_path
    from prompt_core.prompt import SoftPrompt

    clip_name, _, pretrained = name.partition(":")
    overrides = ["MODEL.NAME", clip_name, "MODEL.PRETRAINED", weights or pretrained, "DEVICE", device]
    clip = load_model(load_config(None, overrides), random_weights=False)
    subject: SoftPrompt | list[str]
    if prompt is None:
        subject = [TEMPLATE]
    elif isinstance(prompt, str):
        subject = prompt.split("|") if "{}" in prompt else SoftPrompt.load(resolve_path(prompt))
    else:
        subject = prompt
    if isinstance(subject, SoftPrompt):
        from prompt_core.towers.origin import Origin, stated_origin

        learned_with = stated_origin(subject.metadata)
        if learned_with is not None and learned_with.differs_from(Origin(clip.name, clip.pretrained)):
            raise UserError(f"the prompt was learned with {learned_with}, the classifier is {clip.name}")
    return PhotoClassifier(clip, subject, THRESHOLD if threshold is None else threshold, thresholds)
