"""Photos in, detections of any class names out: the model is loaded once, the words change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pomp_det.box_masks import BOX_MASKS, in_photo, paste_masks
from pomp_det.build import build_detector
from pomp_det.checkpoint import load_weights
from pomp_det.class_matrix import RANDOM, check_background, classifier_of_names
from pomp_det.classifier import check_learned_clip, set_classifier
from pomp_det.data.evaluation_mapper import evaluation_resize
from pomp_engine.trained_weights import load_trained
from prompt_core.data.open_photo import read_photo
from prompt_core.documents.collector import collector_paused

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from detectron2.structures import Instances

    from prompt_core.vocabulary import Vocabulary


class OpenVocabularyPredictor:
    """A detector with the resizing of photos that its configuration asks for.

    Args:
        model: a detector.
        cfg: its configuration.
    """

    def __init__(self, model: nn.Module, cfg: CfgNode) -> None:
        self.model = model.eval()
        self.cfg = cfg
        self._resize = evaluation_resize(cfg)
        self._words: tuple[str | Vocabulary, str, tuple[str, ...]] = ("", "", ())  # that were set

    @classmethod
    @collector_paused()
    def load(
        cls, cfg: CfgNode, vocabulary: str = "", prompt: str = "", words_follow: bool = False
    ) -> OpenVocabularyPredictor:
        """Build the detector and load ``MODEL.WEIGHTS``.

        Args:
            vocabulary: the classes, see :meth:`set_vocabulary`; where left out, those that ``cfg`` names, whose class
                matrix is needed only then.
            prompt: what the vocabulary is encoded with.
            words_follow: the caller sets classes before it asks for detections; those of ``cfg`` are not encoded.

        Raises:
            UserError: no weights, weights that lack some of the detector's, or anything that :func:`build_detector`,
                :func:`load_weights` and :meth:`set_vocabulary` refuse.
        """
        model = build_detector(_without_classes(cfg) if vocabulary or words_follow else cfg)
        load_trained(model, cfg, load_weights, "detector")
        predictor = cls(model, cfg)
        if vocabulary:
            predictor.set_vocabulary(vocabulary, prompt)
        elif not words_follow:
            check_learned_clip(model)
        return predictor

    @property
    def class_names(self) -> list[str]:
        """C names, in the order of ``pred_classes``."""
        names: list[str] = list(self.model.roi_heads.class_names)  # type: ignore[union-attr, arg-type]
        return names

    def set_vocabulary(self, vocabulary: str | Vocabulary, prompt: str = "", negatives: Sequence[str] = ()) -> None:
        """Set other classes; nothing is loaded again.

        Args:
            vocabulary: a published vocabulary's name, a file of names or a classifier file, or names joined by commas;
                or a vocabulary.
            prompt: a prompt file, or templates with ``{}`` separated by ``|``; where left out, that of the
                configuration, else the names are looked up in its class matrix.
            negatives: what else may be there and shall not be taken for one of the classes.

        Raises:
            UserError: names that cannot be found or encoded.
        """
        asked = vocabulary, prompt, tuple(negatives)
        if asked != self._words:
            learned_with: Any = getattr(self.model, "learned_with", None)
            prompt_or_own = prompt or self.cfg.MODEL.PROMPT
            classifier = classifier_of_names(self.cfg, vocabulary, prompt_or_own, learned_with, negatives)
            check_background(self.cfg, classifier)
            set_classifier(self.model, classifier)
            self._words = asked

    def __call__(self, photo: str | Path | np.ndarray) -> Instances:
        """Detections in one photo, in its own pixels, best first, on the CPU.

        Args:
            photo: a file, or (H, W, 3) uint8 in RGB.

        Returns:
            ``pred_boxes``, ``scores``, ``pred_classes`` and, where the model has masks, ``pred_masks`` (n, H, W).

        Raises:
            UserError: when the file is not a photo.
        """
        pixels = photo if isinstance(photo, np.ndarray) else read_photo(photo)
        detections = self.detect(pixels, name="" if isinstance(photo, np.ndarray) else str(photo))
        if detections.has(BOX_MASKS):
            detections.pred_masks = paste_masks(detections)
            detections.remove(BOX_MASKS)
        return detections

    def detect(self, pixels: np.ndarray, threshold: float | Sequence[float] = 0.0, name: str = "") -> Instances:
        """The same for (H, W, 3) uint8 in RGB, with masks as the model gives them, for photos of any size.

        Args:
            threshold: what scores less is left out, before any mask is made of it; one for each class, or one for all.
            name: of the photo, by which its regions are found in ``MODEL.PROPOSALS.FILE``.

        Returns:
            ``pred_boxes``, ``scores``, ``pred_classes`` and, where the model has masks, ``box_masks`` (n, M, M):
            probabilities on a grid over each box, or those of ``MODEL.PROPOSALS.FILE``; see :mod:`pomp_det.box_masks`.

        Raises:
            UserError: when that file has no regions of the photo.
        """
        height, width = pixels.shape[:2]
        example = self.example(pixels) | {"file_name": name}
        proposals: Any = getattr(self.model, "proposal_file", None)
        if proposals is not None:
            proposals.require(name)
        least = threshold if isinstance(threshold, int | float) else min(threshold)
        with torch.inference_mode(), self._only_above(least):
            (found,) = self.model.inference([example], do_postprocess=False)  # type: ignore[operator]
            detections = in_photo(found, height, width).to("cpu")
        bounds = detections.scores.new_tensor(threshold)
        detections = detections[detections.scores >= (bounds[detections.pred_classes] if bounds.dim() else bounds)]
        return detections[detections.scores.argsort(descending=True, stable=True)]

    def example(self, pixels: np.ndarray) -> dict[str, Any]:
        """What the model takes for (H, W, 3) uint8 in RGB: ``image`` (3, h, w), resized, and the photo's size."""
        height, width = pixels.shape[:2]
        resized = self._resize.get_transform(pixels).apply_image(pixels)
        if self.cfg.INPUT.FORMAT != "RGB":
            resized = resized[:, :, ::-1]  # only now: Pillow reads its own order at once
        image = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)).astype(np.float32))
        return {"image": image, "height": height, "width": width}

    @contextlib.contextmanager
    def _only_above(self, threshold: float) -> Iterator[None]:
        """Lets the model drop most of what scores less: better detections suppress others, never the other way."""
        predictor: Any = self.model.roi_heads.last_predictor  # type: ignore[union-attr]
        configured = predictor.test_score_thresh
        predictor.test_score_thresh = max(configured, threshold - 1e-6)  # the model takes only what is above
        try:
            yield
        finally:
            predictor.test_score_thresh = configured


def _without_classes(cfg: CfgNode) -> CfgNode:
    """The configuration of the same detector with random classes, as long as it has no others."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.VOCABULARY, cfg.MODEL.PROMPT = "", ""
    cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH = RANDOM
    cfg.MODEL.ROI_BOX_HEAD.BACKGROUND = ""
    return cfg
