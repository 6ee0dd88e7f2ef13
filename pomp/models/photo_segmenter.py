"""The model that gives each pixel a word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pomp.models.photo_model import Model
from pomp_seg.config import load_config
from pomp_seg.predict_photos import PhotoSegmentations
from pomp_seg.predictor import OpenVocabularySegmenter, Segmentation
from pomp_seg.prompts.build import use_prompt
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    import supervision

    from pomp.labelling.outputs import Outputs


class PhotoSegmenter(Model):
    """Names pixels by words.

    Args:
        predictor: the segmenter.
    """

    task = "segment"

    def __init__(self, predictor: OpenVocabularySegmenter) -> None:
        self.predictor = predictor

    @property
    def names(self) -> list[str]:
        """The words and then the negative ones, in the order of ``class_id``."""
        return self.predictor.class_names

    @property
    def asked(self) -> list[str]:
        """The words without negative ones."""
        background = self.predictor.background
        return [name for name, others in zip(self.names, background, strict=True) if not others]

    def segment(self, pixels: np.ndarray) -> Segmentation:
        """The words of the pixels of (H, W, 3) uint8 in RGB."""
        return self.predictor(pixels)

    def photo_task(self, outputs: Outputs) -> PhotoSegmentations:
        """A picture and a label map for each photo, and one document."""
        return PhotoSegmentations(self.predictor, outputs.hide_photo, pictures=outputs.pictures, crops=outputs.crops)

    def _set(self, words: Vocabulary | str, negatives: tuple[str, ...] | str) -> None:
        self.predictor.set_vocabulary(words, negatives)

    def _detections(self, pixels: np.ndarray) -> supervision.Detections:
        import supervision

        found = self.segment(pixels)
        present = [index for index in found.present if not found.background[index]]
        masks = np.stack([found.labels == index for index in present]) if present else None
        empty = np.zeros((0, 4), dtype=np.float32)
        return supervision.Detections(
            xyxy=supervision.mask_to_xyxy(masks).astype(np.float32) if masks is not None else empty,
            mask=masks,
            confidence=found.scores[present].astype(np.float32),
            class_id=np.array(present, dtype=int),
            data={"class_name": np.array([found.class_names[index] for index in present], dtype=str)},
        )

    def _description(self, pixels: np.ndarray) -> dict[str, Any]:
        found = self.segment(pixels)
        classes = [
            {
                "index": index,
                "word": found.class_names[index],
                "share": float(found.shares[index]),
                "score": float(found.scores[index]),
                "background": found.background[index],
            }
            for index in found.present
        ]
        return {"classes": classes}


def load_segmenter(config: Path, overrides: list[str], prompt: str) -> PhotoSegmenter:
    """A segmenter of a configuration, see :func:`pomp.load`.

    Raises:
        UserError: anything that its configuration or its weights lack.
    """
    return PhotoSegmenter(OpenVocabularySegmenter.load(use_prompt(load_config(config, overrides), prompt)))
