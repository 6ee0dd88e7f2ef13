"""From corrections to a prompt and what it is worth, top to bottom."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pomp.learning.before_after import BeforeAfter
from pomp.learning.encoded import EncodedExamples, encode_examples
from pomp.learning.examples import Examples, photos_of
from pomp.learning.held_out import photos_held_out, words_held_out
from pomp.learning.learn_prompt import LearnedMethod, Learner
from pomp.learning.other_answers import Drift, labelled_others, name_drift
from pomp.learning.prompt_settings import TEMPLATE
from prompt_core.background.background import Background
from prompt_core.background.own_share import own_shares
from prompt_core.background.photo_words import THRESHOLD
from prompt_core.classifier import TextClassifier
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.images import ImageSet
from prompt_core.data.photo_files import list_photos
from prompt_core.evaluation.protocol import package_versions
from prompt_core.methods.templates import TemplateMethod
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.methods.base import Method

OTHER_PHOTOS = 100  # photos without corrections that are looked at
Progress = Callable[[int, int], None]
Shown = Callable[[str], AbstractContextManager[Progress]]


def _quiet(text: str) -> AbstractContextManager[Progress]:
    return nullcontext(lambda done, of: None)


@dataclass(frozen=True, eq=False)
class LearnedWords:
    """What was learned from corrections, and what it is worth.

    Attributes:
        learned: on all corrections.
        comparisons: before and after on images that were not learned on; the first, where there is one, is that of
            the corrected words.
        drift: of names that are none of the words; None for methods without text of their own.
        none_refused: of the photos that show none of the words, the share that gets none, before and after; None
            without such photos.
        photos, images: what was learned from.
    """

    learned: LearnedMethod
    comparisons: list[BeforeAfter]
    drift: Drift | None
    none_refused: tuple[float, float] | None
    photos: int
    images: int

    @property
    def verdict(self) -> str:
        """One sentence: take the prompt, or keep the template."""
        corrected = [comparison for comparison in self.comparisons if comparison.title == "corrected words"]
        if self.learned.epoch == 0:
            return (
                "no epoch was better than the template on the corrections that choose: the file holds what learning "
                "started from; keep the template"
            )
        if not corrected:
            return "too few corrected photos to say whether the prompt is better than the template: look at its answers"
        shown = corrected[0].verdict
        if shown == "better":
            return "the prompt is better than the template on photos that it was not learned on"
        if shown == "worse":
            return "the prompt is worse than the template on photos that it was not learned on: keep the template"
        return (
            "the prompt is not better than the template, as far as these photos can tell: the template is the safer "
            "choice, and more corrections tell more"
        )

    def notes(self) -> dict[str, Any]:
        """For the file of the prompt."""
        return {
            "epoch": self.learned.epoch,
            "verdict": self.verdict,
            "comparisons": {comparison.title: comparison.describe() for comparison in self.comparisons},
            "drift": None if self.drift is None else self.drift.describe(),
            "corrected_photos": self.photos,
            "corrected_images": self.images,
        }


def learn_words(
    cfg: CfgNode,
    clip: Clip,
    examples: Examples,
    held_out: float,
    cache: Path,
    template: str = TEMPLATE,
    others: ImageSet | None = None,
    progress: Shown = _quiet,
) -> LearnedWords:
    """Learn a prompt, and measure it on what it was not learned on.

    Args:
        cfg: of :func:`pomp.learning.prompt_settings.learning_config`.
        held_out: share of the photos that are held out at once; 0 measures nothing by photos.
        cache: folder of image features.
        template: what the prompt is compared with.
        others: labelled photos of other names.
        progress: a context manager around each part.

    Raises:
        UserError: photos that cannot be read, a diverged loss, settings that do not fit.
    """
    with progress("looking at the corrected photos") as count:
        encoded = encode_examples(clip, examples, cfg, cache, count)
    words = encoded.words
    classifier = TextClassifier.build(clip, words, [template], background=cfg.DATA.VOCABULARY)
    assert classifier.background is not None
    names = Vocabulary(classifier.background.names, source=cfg.DATA.VOCABULARY)
    whole_softmax = cfg.LOSS.NUM_CLASSES == 0
    vocabulary = (
        words if whole_softmax else Vocabulary([*words.names, *names.names], source=f"words and {cfg.DATA.VOCABULARY}")
    )
    learner = Learner.of(cfg, clip, encoded, vocabulary)
    with progress("learning") as count:
        learned = learner.learn(progress=count)
    with progress("learning without some photos") as count:
        by_photos = photos_held_out(learner, template, held_out, count)
    by_words = None
    if learned.method.bound_names is None:
        with progress("learning without some words") as count:
            by_words = words_held_out(learner, template, count)
    comparisons = [comparison for comparison in (by_photos, by_words) if comparison is not None]
    before = TemplateMethod(clip, templates=[template])
    if others is not None:
        comparisons.append(labelled_others(clip, others, words, before, learned.method, cache))
    drift = refused = None
    if not learned.method.conditional and learned.method.bound_names is None:
        with progress("looking at other names"), torch.no_grad():
            tuned = classifier.background.encoded_by(lambda asked: learned.method.class_features(asked).cpu())
            elsewhere = photos_without_corrections(clip, examples, cfg, cache)
            looked_at = elsewhere if len(elsewhere) else encoded.plain
            drift = name_drift(looked_at, classifier.background.weight, tuned.weight)
            refused = _refused(encoded, [before, learned.method], [classifier.background, tuned])
    return LearnedWords(learned, comparisons, drift, refused, examples.photos, len(encoded.labels))


def photos_without_corrections(clip: Clip, examples: Examples, cfg: CfgNode, cache: Path) -> np.ndarray:
    """Features (m, E) of some photos beside the corrected ones; the draw depends on their names alone."""
    root = examples.images.root
    corrected = {*photos_of(examples.images).keys, *examples.nothing.keys}
    folders = sorted({Path(key).parent for key in corrected})
    beside = [(folder / name).as_posix() for folder in folders for name in list_photos(root / folder)]
    free = [name for name in beside if name not in corrected]
    free.sort(key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    names = sorted(free[:OTHER_PHOTOS])
    if not names:
        return np.empty((0, clip.embed_dim), dtype=np.float32)
    images = ImageSet(["photo"], ["photo"], np.zeros(len(names), np.int64), names, "other photos", root)
    return np.asarray(cached_features(clip, images, 0, None, cfg.SEED, cache).features[:, 0], dtype=np.float32)


def _refused(
    encoded: EncodedExamples, methods: list[Method], backgrounds: list[Background]
) -> tuple[float, float] | None:
    """Of the photos that show none of the words, the share that gets none of them, by each method."""
    if not len(encoded.nothing):
        return None
    features = torch.from_numpy(encoded.nothing)
    shares = []
    for method, background in zip(methods, backgrounds, strict=True):
        words = method.class_features(encoded.words).cpu()
        share = own_shares(features, words, background.weight, background.logit_scale, kinds=background.kinds)
        best = share.amax(dim=1)
        shares.append(float((best <= THRESHOLD).float().mean()))
    return shares[0], shares[1]


def save_learned(words: LearnedWords, path: Path, cfg: CfgNode) -> None:
    """Write a prompt file, or, of a method that is more than a prompt, a method's file."""
    from prompt_core.methods.soft_prompt import SoftPromptMethod

    method = words.learned.method
    notes: dict[str, Any] = {
        "K": cfg.LOSS.NUM_CLASSES,
        "learned_from": words.notes(),
        "settings": cfg.dump(),
        "versions": package_versions(),
    }
    if isinstance(method, SoftPromptMethod):
        method.save_prompt(path, **notes)
    else:
        method.save(path, **notes)
