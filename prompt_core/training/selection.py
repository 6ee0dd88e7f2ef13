"""Which epoch of a run is kept: the last, or the best on images that training did not see.

The reported images never choose, unless ``SELECT_ON_TEST`` says so: published trainers of ImageNet-21K do it, since
their validation split is their test split (POMP's ``validation_test.py``), and numbers of such a run are labelled.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_core.config import one_of
from prompt_core.data.images import ImageSet
from prompt_core.data.sources import open_images
from prompt_core.data.splits import few_shot
from prompt_core.errors import UserError
from prompt_core.evaluation.evaluate import TestSet, load_test_set, score
from prompt_core.files import make_output_folder
from prompt_core.methods.base import Method
from prompt_core.methods.image_towers import image_tower
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.temporary_files import temporary_folder
from prompt_core.training.data import training_images
from prompt_core.training.loop import LearningState
from prompt_core.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

LAST, HELD_OUT, VALIDATION, TEST = "last", "held_out", "val", "test"


@dataclass
class Selection:
    """Images that choose among the epochs of a run.

    Attributes:
        on: ``held_out``, ``val``, or ``test`` for the reported images.
        images: the images.
        vocabulary: the larger list of candidates, as ``DATA.VOCABULARY`` names it, for methods that are bound to it;
            empty for the images' own classes.
        cache: folder of cached image features.
    """

    on: str
    images: ImageSet
    vocabulary: str
    cache: str
    _loaded: TestSet | None = None

    def accuracy(self, method: Method, ranks: Ranks = ALONE) -> float:
        """Top-1 in [0, 1] of a method in its current state, by all ranks; namesakes count as one class."""

        def load(cache: str) -> TestSet:
            return load_test_set(image_tower(method), self.images, self.vocabulary, cache, ranks=ranks)

        if method.reads != "images":
            self._loaded = self._loaded or load(self.cache)
            return score(method, self._loaded, ranks=ranks).top1
        # The method's image tower changes in each epoch: its features cannot be reused.
        with ExitStack() as stack:
            folder = None
            if ranks.leads:
                folder = stack.enter_context(temporary_folder(make_output_folder(self.cache) / "epoch"))
            return score(method, load(str(ranks.from_leader(folder))), ranks=ranks).top1

    def describe(self) -> dict[str, Any]:
        """The record of it in the resumable state and in files."""
        return {
            "on": self.on,
            "source": self.images.source,
            "images": len(self.images),
            "images_sha256": self.images.fingerprint(),
        }


def open_selection(cfg: CfgNode, bound: bool) -> Selection | None:
    """The images that ``cfg.SELECT`` names; None when the last epoch is kept.

    Args:
        bound: whether the method takes only the classes that it learns on.

    Raises:
        UserError: contradictory settings, a missing split, no images beyond those learned on, or images that are
            learned on or, as ``val``, reported.
    """
    on = one_of(cfg, "SELECT.ON", (LAST, HELD_OUT, VALIDATION))
    if cfg.SELECT_ON_TEST:
        if on != LAST:
            raise UserError(f"SELECT_ON_TEST True and SELECT.ON {on!r} contradict each other; give one of them")
        on = TEST
    if on == LAST:
        return None
    learned_on = training_images(cfg, cfg.DATA.SPLIT, cfg.DATA.SHOTS)
    images = _held_out(cfg, learned_on) if on == HELD_OUT else _split(cfg, on, learned_on)
    vocabulary = cfg.DATA.VOCABULARY if bound else ""
    if vocabulary:
        known, _ = vocabulary_of(learned_on, vocabulary)
        if vocabulary_of(images, vocabulary)[0].names != known.names:
            raise UserError(f"the classes of {images.source} are not those of {learned_on.source}")
    return Selection(on, images, vocabulary, cfg.DATA.CACHE)


def keep_best(selection: Selection, method: Method, state: LearningState, ranks: Ranks = ALONE) -> None:
    """Score the epoch that has just ended, and keep what was learned where it is better than all before."""
    accuracy = selection.accuracy(method, ranks)
    state.history[-1]["validation"] = accuracy
    if state.best is None or accuracy > state.best["accuracy"]:
        learned = {key: value.detach().cpu().clone() for key, value in method.state_module.state_dict().items()}
        state.best = {"epoch": state.epoch, "accuracy": accuracy, "learned": learned}


def _held_out(cfg: CfgNode, learned_on: ImageSet) -> ImageSet:
    """Images of the training split that are not learned on."""
    everything = training_images(cfg, cfg.DATA.SPLIT, -1)
    known = set(learned_on.keys)
    rest = everything.subset(np.array([row for row, key in enumerate(everything.keys) if key not in known], dtype=int))
    if not len(rest):
        raise UserError(
            f"SELECT.ON held_out: all {len(everything)} images of {everything.source} are learned on, so none are left "
            "to choose the epoch by; lower DATA.SHOTS, or give SELECT.ON val or last"
        )
    return few_shot(rest, cfg.SELECT.SHOTS, cfg.SEED)


def _split(cfg: CfgNode, on: str, learned_on: ImageSet) -> ImageSet:
    split, shots = (VALIDATION, cfg.SELECT.SHOTS) if on == VALIDATION else (cfg.EVAL.SPLIT, -1)
    images = training_images(cfg, split, shots)
    if overlap(images, learned_on):
        raise UserError(f"split {split!r} of {cfg.DATA.TRAIN} holds images that are learned on; use SELECT.ON held_out")
    if on == VALIDATION and overlap(images, open_images(cfg.DATA.TRAIN, cfg.EVAL.SPLIT)):
        raise UserError(
            f"SELECT.ON val: split 'val' of {cfg.DATA.TRAIN} holds images that are reported (EVAL.SPLIT "
            f"{cfg.EVAL.SPLIT}); use SELECT.ON held_out or another EVAL.SPLIT, or SELECT_ON_TEST True, the published "
            "habit, which labels the numbers"
        )
    return images


def overlap(first: ImageSet, second: ImageSet) -> bool:
    """Whether two sets share an image: the same file, or the same member of the same shards."""
    files = {str(first.root / key) for key in first.keys}
    return any(str(second.root / key) in files for key in second.keys)
