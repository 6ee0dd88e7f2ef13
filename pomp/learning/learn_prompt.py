"""A prompt from examples: the loop of :mod:`prompt_core.training`, and the epoch that is best on some of them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.methods.base import class_logits
from prompt_core.methods.registry import build_method
from prompt_core.training.anchor import Anchor, make_anchor
from prompt_core.training.batches import FeatureBatches
from prompt_core.training.data import TrainingData
from prompt_core.training.loop import LearningState, learn
from prompt_core.training.recipe import learning_settings, make_sampler

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from pomp.learning.encoded import EncodedExamples
    from prompt_core.clip import Clip
    from prompt_core.methods.base import Method
    from prompt_core.vocabulary import Vocabulary

CHOOSING = 4  # one photo in so many chooses the epoch
FEWEST = 8  # photos of which some choose; with fewer all are learned on


@dataclass(frozen=True, eq=False)
class LearnedMethod:
    """What was learned.

    Attributes:
        method: in the state of the epoch that was chosen.
        epoch: that epoch; 0 for what it started from, which no epoch improved.
        loss: of each epoch on the examples that choose, from 0; empty where the last epoch is kept.
        learned_on, chose: photos.
    """

    method: Method
    epoch: int
    loss: list[float]
    learned_on: int
    chose: int


@dataclass(frozen=True, eq=False)
class Learner:
    """What all learning from the same corrections shares.

    Attributes:
        cfg: of :func:`pomp.learning.prompt_settings.learning_config`.
        clip: the frozen model.
        encoded: the examples.
        vocabulary: the words, then the names that negatives are drawn from.
        anchor: what holds other names at the template; None without ``LOSS.ANCHOR``. Its text is encoded once.
    """

    cfg: CfgNode
    clip: Clip
    encoded: EncodedExamples
    vocabulary: Vocabulary
    anchor: Anchor | None

    @classmethod
    def of(cls, cfg: CfgNode, clip: Clip, encoded: EncodedExamples, vocabulary: Vocabulary) -> Learner:
        """Prepare to learn.

        Raises:
            UserError: settings that do not fit the method or the model.
        """
        learner = cls(cfg, clip, encoded, vocabulary, None)
        everything = learner.training_data(np.arange(len(encoded.labels)))
        anchor = make_anchor(cfg, build_method(cfg, clip, vocabulary), everything)
        return dataclasses.replace(learner, anchor=anchor)

    def training_data(self, rows: np.ndarray) -> TrainingData:
        """The examples at ``rows`` as the training loop takes them."""
        encoded = self.encoded
        labels = encoded.labels[rows]
        batches = FeatureBatches(encoded.views[rows], labels, self.cfg.AUGMENT.VIEWS)
        views = int(encoded.views.shape[1])
        return TrainingData(batches, labels, self.vocabulary, [], encoded.source, views, encoded.fingerprint)

    def learn(
        self, chosen: np.ndarray | None = None, progress: Callable[[int, int], None] = lambda done, of: None
    ) -> LearnedMethod:
        """Learn on some examples.

        A quarter of their photos chooses the epoch, by the cross-entropy among the words, which is steadier than
        accuracy; the method as it starts takes part.

        Args:
            chosen: positions of the examples to learn from; None for all.
            progress: called with (epochs done, epochs).

        Raises:
            UserError: anything that :func:`prompt_core.training.loop.learn` refuses.
        """
        cfg, encoded = self.cfg, self.encoded
        rows = np.arange(len(encoded.labels)) if chosen is None else chosen
        learning, choosing = (rows[part] for part in parts(encoded.photo[rows], cfg.SEED))
        data = self.training_data(learning)
        method = build_method(cfg, self.clip, self.vocabulary)
        settings = learning_settings(cfg)
        losses = [word_loss(method, encoded, choosing)] if len(choosing) else []
        epoch, learned = 0, _state(method)
        for report in learn(
            method,
            self.vocabulary,
            data.batches,
            settings,
            make_sampler(cfg, data),
            LearningState(),
            clip_grad_norm=cfg.OPTIM.CLIP_GRAD_NORM or None,
            anchor=self.anchor,
        ):
            if not report.epoch_done:
                continue
            progress(report.epoch + 1, settings.epochs)
            if len(choosing):
                losses.append(word_loss(method, encoded, choosing))
            if not len(choosing) or losses[-1] < min(losses[:-1]):
                epoch, learned = report.epoch + 1, _state(method)
        method.state_module.load_state_dict(learned)
        learned_on, chose = (len(np.unique(encoded.photo[part])) for part in (learning, choosing))
        return LearnedMethod(method, epoch, losses, learned_on, chose)


def word_loss(method: Method, encoded: EncodedExamples, rows: np.ndarray) -> float:
    """Cross-entropy of examples among the words, without augmentation."""
    features = torch.from_numpy(encoded.plain[rows])
    with torch.no_grad():
        logits = word_logits(method, features, encoded.words)
    return float(F.cross_entropy(logits, torch.from_numpy(encoded.labels[rows])))


def word_logits(method: Method, features: Tensor, words: Vocabulary) -> Tensor:
    """Logits (n, C) of image features (n, E) under a method's features of words, on the CPU."""
    images = method.image_features(features.to(method.device))
    classes = method.class_features(words, None, images)
    return class_logits(images, classes.to(images.dtype), method.logit_scale).cpu()


def parts(photo: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the examples to learn on, and of those that choose the epoch; all examples of a photo together.

    Args:
        photo: (n,) the photo of each example.
    """
    photos = np.unique(photo)
    if len(photos) < FEWEST:
        return np.arange(len(photo)), np.empty(0, dtype=np.int64)
    order = np.random.default_rng([seed, len(photos)]).permutation(photos)
    choosing = np.isin(photo, order[: len(photos) // CHOOSING])
    return np.flatnonzero(~choosing), np.flatnonzero(choosing)


def _state(method: Method) -> dict[str, Any]:
    return copy.deepcopy(method.state_module.state_dict())
