"""Which epoch of a run is kept: the last, or the best on images that training did not see.

The reported images never choose, unless ``SELECT_ON_TEST`` says so: published trainers of ImageNet-21K do it, since
their validation split is their test split (POMP's ``validation_test.py``), and numbers of such a run are labelled.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_core.config import one_of
from prompt_core.data.images import ImageSet
from prompt_core.data.sources import open_images
from prompt_core.data.splits import few_shot
from prompt_core.errors import UserError
from prompt_core.evaluation.evaluate import TestSet, load_test_set
from prompt_core.evaluation.method_scoring import score_method
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.methods.base import Method
from prompt_core.methods.image_towers import image_tower
from prompt_core.methods.registry import method_file_metadata
from prompt_core.prompt import SoftPrompt
from prompt_core.training.data import training_images, training_vocabulary
from prompt_core.training.image_marks import any_marked, image_marks
from prompt_core.training.loop import BestEpoch, LearningState

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

LAST, HELD_OUT, VALIDATION, TEST = "last", "held_out", "val", "test"


class ChosenEpoch(BestEpoch):
    """The same with the images that chose it (:func:`prompt_core.training.image_marks.image_marks`)."""

    marks: str


@dataclass
class Selection:
    """Images that tell the epochs of a run apart.

    Attributes:
        on: ``held_out``, ``val``, or ``test`` for the reported images.
        images: what they are.
        vocabulary: the wider candidates, as ``DATA.VOCABULARY`` names them, for methods that are bound to these; empty
            for the images' own classes.
        cache: folder of cached image features.
    """

    on: str
    images: ImageSet
    vocabulary: str
    cache: str
    _loaded: TestSet | None = None

    def accuracy(self, method: Method) -> float:
        """Top-1 in [0, 1] of a method as it is now; namesakes count as one class."""
        if method.reads != "images":
            self._loaded = self._loaded or load_test_set(image_tower(method), self.images, self.vocabulary, self.cache)
            return score_method(method, self._loaded).top1
        # The method's image tower is another one after each epoch: its features are of no use later.
        with tempfile.TemporaryDirectory() as folder:
            return score_method(method, load_test_set(image_tower(method), self.images, self.vocabulary, folder)).top1

    def describe(self) -> dict[str, Any]:
        """What the resumable state and, beside :attr:`marks`, files say of it."""
        return {
            "on": self.on,
            "source": self.images.source,
            "images": len(self.images),
            "images_sha256": self.images.fingerprint(),
        }

    @cached_property
    def marks(self) -> str:
        """What the images are recognised by, wherever they are scored."""
        return image_marks(self.images)


def open_selection(cfg: CfgNode, bound: bool) -> Selection | None:
    """The images that ``cfg.SELECT`` names; None when the last epoch is kept.

    Args:
        bound: whether the method takes no other classes than those that it learns on.

    Raises:
        UserError: contradicting settings, a split that is not there, no images beyond those learned on, or images
            that are learned on or, as ``val``, reported.
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
        known, _ = training_vocabulary(learned_on, vocabulary)
        if training_vocabulary(images, vocabulary)[0].names != known.names:
            raise UserError(f"the classes of {images.source} are not those of {learned_on.source}")
    return Selection(on, images, vocabulary, cfg.DATA.CACHE)


def keep_best(selection: Selection, method: Method, state: LearningState) -> None:
    """Score the epoch that has just ended, and keep what was learned where it is better than all before."""
    accuracy = selection.accuracy(method)
    state.history[-1]["validation"] = accuracy
    if state.best is None or accuracy > state.best["accuracy"]:
        learned = {key: value.detach().cpu().clone() for key, value in method.state_module.state_dict().items()}
        best: ChosenEpoch = {
            "epoch": state.epoch,
            "accuracy": accuracy,
            "learned": learned,
            "marks": selection.marks,
        }
        state.best = best


def _held_out(cfg: CfgNode, learned_on: ImageSet) -> ImageSet:
    """Images of the training split beyond the few that are learned on."""
    everything = training_images(cfg, cfg.DATA.SPLIT, -1)
    known = set(learned_on.keys)
    rest = everything.subset(np.array([row for row, key in enumerate(everything.keys) if key not in known], dtype=int))
    if not len(rest):
        raise UserError(
            f"SELECT.ON held_out: all {len(everything)} images of {everything.source} are learned on, none is left to "
            "choose the epoch by; lower DATA.SHOTS, or give SELECT.ON val or last"
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


def overlap(one: ImageSet, other: ImageSet) -> bool:
    """Whether two sets share an image: the same file, or the same member of the same shards."""
    files = {str(one.root / key) for key in one.keys}
    return any(str(other.root / key) in files for key in other.keys)


def selection_words(file: str | Path | None, images: ImageSet | str, of: str | None = None) -> str:
    """How the epoch of a learned file was chosen, for the protocol of a number; empty for the last epoch.

    Args:
        file: a prompt or a method; None and other texts are hand-written prompts.
        images: those that are scored. Of a hash of them alone (:meth:`ImageSet.fingerprint`), and of files of before
            that do not say which images chose, it is only known whether all of them are the same.
        of: what the images that chose are called; by default as the file says it.
    """
    path = Path(file) if file else None
    if path is None or path.suffix != ".safetensors" or not path.is_file():
        return ""
    metadata = method_file_metadata(path) or SoftPrompt.load(path).metadata
    chosen = metadata.get("selection")
    if not chosen:
        return ""
    if _chose(chosen, images):
        return ON_REPORTED
    what = {HELD_OUT: "training images that were not learned on", VALIDATION: "validation images", TEST: "test images"}
    return f"best epoch chosen on {what[chosen['on']]} of {chosen['source'] if of is None else of}"


def _chose(chosen: dict[str, Any], images: ImageSet | str) -> bool:
    """Whether an image that chose is among those that are scored, whatever split it chose as."""
    marks = chosen.get("marks")
    if isinstance(images, str) or marks is None:
        own = images if isinstance(images, str) else images.fingerprint()
        return bool(chosen["images_sha256"] == own and (chosen["on"] == TEST or marks is not None))
    return any_marked(images, marks)
