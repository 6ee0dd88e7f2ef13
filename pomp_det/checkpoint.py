"""Loading and saving detectors: published checkpoints, and which class matrix stays."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import nn

from pomp_det.classifier import set_classifier, zero_shot_predictors
from pomp_det.heads.zero_shot import same_classes
from pomp_engine.checkpoint import ModelCheckpointer
from prompt_core.errors import UserError
from prompt_core.towers.origin import Origin, recognise

logger = logging.getLogger(__name__)


class DetectorCheckpointer(ModelCheckpointer):
    """The engine's checkpointer, which also guards the class matrix.

    A class matrix inside a checkpoint never replaces the configured one, unless ``classes_from_checkpoint`` says so;
    one log line says which is used when they differ. Where the model's matrix is random, the checkpoint's is taken.

    Reads ``.pth`` of Detectron2, Detic and POMP, ``.pkl`` of Detectron2 and Caffe2, ``.safetensors``, and state dicts
    of a classification network for the backbone (a timm ResNet, EfficientNet-Lite0).
    """

    parts = ("backbone.", "proposal_generator.", "roi_heads.", "text_encoder.")

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, classes_from_checkpoint: bool | None = None, **options: Any
    ) -> None:
        """
        Args:
            classes_from_checkpoint: take the checkpoint's class matrix and number of classes; None for what the model
                was configured with (``MODEL.ROI_BOX_HEAD.CLASSIFIER_FROM_CHECKPOINT``).
            options: of Detectron2's ``DetectionCheckpointer``.
        """
        super().__init__(model, save_dir, **options)
        configured = bool(getattr(self.model, "classes_from_checkpoint", False))
        self.learned_with: Origin | None = None
        self.classes_from_checkpoint = configured if classes_from_checkpoint is None else classes_from_checkpoint

    def adapt_state(self, state: dict[str, Any]) -> list[str]:
        """Drop the text tower of a caption run, and settle the class matrix; returns the keys that were taken out.

        Raises:
            UserError: names of seen classes that are more or fewer than configured.
        """
        for key, own in self.model.state_dict().items():
            if key.endswith("cls_score.seen_words") and key in state and len(state[key]) != len(own):
                raise UserError(
                    f"the weights have {len(state[key])} names of seen classes, MODEL.WORDS.SEEN_NAMES is {len(own)}; "
                    "set it alike"
                )
        for key in [key for key in state if key.startswith("text_encoder.")]:
            del state[key]  # the caption run's text tower, which is loaded from its own weights
        return self._choose_classes(state)

    def _choose_classes(self, state: dict[str, Any]) -> list[str]:
        """Settle the class matrix; returns the keys that were taken out of ``state``."""
        keys = [key for key in state if key.endswith("cls_score.zs_weight")]
        predictors = zero_shot_predictors(self.model)
        if not keys or not predictors:
            return []
        given, classifier = state[keys[0]], predictors[0].cls_score
        self.learned_with = recognise(given[:, :-1].T)
        description = f"{given.shape[1] - 1} classes of the checkpoint"
        if classifier.source == "random" or self.classes_from_checkpoint:
            why = "no class matrix was configured" if classifier.source == "random" else "CLASSIFIER_FROM_CHECKPOINT"
            logger.info("class matrix: the %s are used (%s)", description, why)
            if not same_classes(classifier.zs_weight, given):
                set_classifier(self.model, given[:, :-1].T)  # the names, too, are no longer the configured ones
            for predictor in predictors:
                predictor.cls_score.source = "the checkpoint"
            return []
        if not same_classes(classifier.zs_weight, given):
            logger.warning(
                "class matrix: the configured one is used (%s, %d classes); the %s are another matrix and are left "
                "out. MODEL.ROI_BOX_HEAD.CLASSIFIER_FROM_CHECKPOINT True takes them",
                classifier.source, classifier.num_classes, description,
            )  # fmt: skip
        counts = [key for key in state if key.endswith(".freq_weight")]
        if predictors[0].class_counts.missing:  # without counts of its own the detector takes those that fit
            counts = [key for key in counts if len(state[key]) != classifier.num_classes]
        for key in keys + counts:
            del state[key]
        return keys + counts


def load_weights(model: nn.Module, file: str | Path, classes_from_checkpoint: bool | None = None) -> None:
    """Load a checkpoint, or backbone weights, into a detector; see :class:`DetectorCheckpointer`.

    ``model.learned_with`` becomes the CLIP of the checkpoint's class matrix, or None where it is not known.

    Raises:
        UserError: when the file is absent or damaged.
    """
    checkpointer = DetectorCheckpointer(model, classes_from_checkpoint=classes_from_checkpoint)
    checkpointer.load(str(file))
    model.learned_with = checkpointer.learned_with  # type: ignore[assignment]
