"""The model that finds things: boxes, masks and words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pomp.formats.mask_shapes import polygons_of_mask
from pomp.models.photo_model import Model, names_of
from pomp_det.config import load_config
from pomp_det.photo_detections import PhotoDetections, coco_rows
from pomp_det.predictor import OpenVocabularyPredictor
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    import supervision

    from pomp.labelling.outputs import Outputs
    from pomp.learning.word_thresholds import WordThresholds

THRESHOLD = 0.3


class PhotoDetector(Model):
    """Finds things by words.

    Args:
        predictor: the detector.
        prompt: what words are encoded with; empty for what the detector's configuration says.
        threshold: the lowest score of a detection.
        own_words: that are set when the detector is used before it is given others; empty where it has words.
        thresholds: of words, instead of ``threshold``.
    """

    task = "detect"

    def __init__(
        self,
        predictor: OpenVocabularyPredictor,
        prompt: str = "",
        threshold: float = THRESHOLD,
        own_words: str = "",
        thresholds: WordThresholds | None = None,
    ) -> None:
        self._predictor = predictor
        self.prompt = prompt
        self.threshold = threshold
        self._own_words = own_words
        self.thresholds = thresholds

    @property
    def predictor(self) -> OpenVocabularyPredictor:
        """The detector, with its words."""
        if self._own_words:
            self._set(self._own_words, ())
        return self._predictor

    @property
    def names(self) -> list[str]:
        """The words, in the order of ``class_id``."""
        return self.predictor.class_names

    def photo_task(self, outputs: Outputs) -> PhotoDetections:
        """A picture for each photo, and one COCO document."""
        return PhotoDetections(
            self.predictor,
            self._lowest_scores(),
            outputs.hide_photo,
            pictures=outputs.pictures,
            crops=outputs.crops,
            shape=polygons_of_mask if outputs.polygons else None,
        )

    def _set(self, words: Vocabulary | str, negatives: tuple[str, ...] | str) -> None:
        self._predictor.set_vocabulary(words, self.prompt, names_of(negatives))
        self._own_words = ""

    def _lowest_scores(self) -> float | list[float]:
        return self.threshold if self.thresholds is None else self.thresholds.of(self.names)

    def _detections(self, pixels: np.ndarray) -> supervision.Detections:
        import supervision

        from pomp_det.box_masks import BOX_MASKS, paste_masks

        found = self.predictor.detect(pixels, self._lowest_scores())
        labels = found.pred_classes.numpy().astype(int)
        return supervision.Detections(
            xyxy=found.pred_boxes.tensor.numpy().reshape(-1, 4),
            mask=paste_masks(found).numpy() if found.has(BOX_MASKS) and len(found) else None,
            confidence=found.scores.numpy(),
            class_id=labels,
            data={"class_name": np.array([self.names[label] for label in labels], dtype=str)},
        )

    def _description(self, pixels: np.ndarray) -> dict[str, Any]:
        rows = coco_rows(self.predictor.detect(pixels, self._lowest_scores()))
        names = self.names
        return {"detections": [{"word": names[row["category_id"] - 1], **row} for row in rows]}


def load_detector(
    config: Path,
    overrides: list[str],
    prompt: str,
    threshold: float | None,
    words: str = "",
    thresholds: WordThresholds | None = None,
) -> PhotoDetector:
    """A detector of a configuration, see :func:`pomp.load`.

    Raises:
        UserError: anything that its configuration, its weights or its class matrix lack.
    """
    cfg = load_config(config, overrides)
    own = "" if words else cfg.MODEL.VOCABULARY  # encoded when they are asked for: mostly others come first
    # Where words come later, a configuration without words of its own has no class matrix that could be read.
    start = words or ("" if own or not prompt else "thing")
    predictor = OpenVocabularyPredictor.load(cfg, start, prompt if start else "", words_follow=bool(own))
    return PhotoDetector(predictor, prompt, THRESHOLD if threshold is None else threshold, own, thresholds)
