"""From a configuration to a detector."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)
from torch import nn

from pomp_det.class_matrix import RANDOM, check_background, check_class_count, configured_classifier
from pomp_det.classifier import set_classifier
from pomp_det.config import add_detic_config
from pomp_det.heads import cascade, crop_words, region_words, res5, vild_ensemble  # noqa: F401
from pomp_det.model import PRECOMPUTED, CustomRCNN  # noqa: F401
from pomp_det.proposals.cells import CellProposals  # noqa: F401
from pomp_det.proposals.centernet import CenterNet  # noqa: F401
from pomp_det.published_keys import UNBUILT, refuse_detr

# Imported for the names that they register with Detectron2.
from pomp_engine.backbones import (  # noqa: F401
    detection_and_words,
    efficientnet_lite,
    pyramid,
    swin,
    timm_backbones,
)
from pomp_engine.backbones.outside import register_outside_backbone
from pomp_engine.config import build_configured, check_parts, refuse_unsupported
from prompt_core.classifier import TextClassifier
from prompt_core.errors import UserError


def build_detector(cfg: CfgNode, classifier: TextClassifier | None = None) -> nn.Module:
    """A detector in Detectron2's usual input and output format, in training mode, with the configured classes.

    Its weights are random: :func:`pomp_det.load_weights` loads ``MODEL.WEIGHTS`` or any other file. With
    ``MODEL.VOCABULARY``, or a ``classifier``, the number of classes is that of its names.

    Args:
        classifier: the classes, instead of the configured ones.

    Raises:
        UserError: an unknown name, a class matrix that is missing or does not fit, options that do not go together.
    """
    refuse_detr(cfg)
    refuse_unsupported(cfg, add_detic_config, UNBUILT)
    cfg = register_outside_backbone(cfg)
    check_parts(
        cfg,
        [
            ("MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY),
            ("MODEL.BACKBONE.NAME", BACKBONE_REGISTRY),
            ("MODEL.ROI_HEADS.NAME", ROI_HEADS_REGISTRY),
        ],
    )
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME != PRECOMPUTED:
        check_parts(cfg, [("MODEL.PROPOSAL_GENERATOR.NAME", PROPOSAL_GENERATOR_REGISTRY)])
    if cfg.MODEL.PROPOSALS.FILE and cfg.MODEL.META_ARCHITECTURE != "CustomRCNN":
        raise UserError(
            f"MODEL.PROPOSALS.FILE has regions to name, which {cfg.MODEL.META_ARCHITECTURE} does not do; use "
            "MODEL.META_ARCHITECTURE CustomRCNN"
        )
    named = classifier is not None or bool(cfg.MODEL.VOCABULARY)
    if classifier is None:
        classifier = configured_classifier(cfg)
    check_background(cfg, classifier)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_BOX_HEAD.BACKGROUND = ""
    if classifier is not None:
        if named:
            cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(classifier)
        check_class_count(classifier, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        # The stages start with random rows and get the classifier's afterwards, so that it is made once.
        cfg.MODEL.VOCABULARY, cfg.MODEL.PROMPT = "", ""
        cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH = RANDOM
    model = build_configured(cfg)
    model.classes_from_checkpoint = cfg.MODEL.ROI_BOX_HEAD.CLASSIFIER_FROM_CHECKPOINT
    if hasattr(model, "roi_heads"):
        model.roi_heads.class_names = [f"class {row}" for row in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)]
    if classifier is not None:
        set_classifier(model, classifier)
    return model
