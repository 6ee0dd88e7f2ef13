"""From a configuration to a detector."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
    build_model,
)
from torch import nn

from pomp_det.class_matrix import RANDOM, check_class_count, configured_matrix
from pomp_det.classifier import set_classifier
from pomp_det.heads import cascade, res5  # noqa: F401
from pomp_det.model import CustomRCNN  # noqa: F401
from pomp_det.proposals.centernet import CenterNet  # noqa: F401

# Imported for the names that they register with Detectron2.
from pomp_engine.backbones import efficientnet_lite, pyramid, swin, timm_resnet  # noqa: F401
from pomp_engine.backbones.outside import register_outside_backbone
from pomp_engine.config import check_parts


def build_detector(cfg: CfgNode) -> nn.Module:
    """A detector in Detectron2's usual input and output format, in training mode, with the configured classes.

    Its weights are random: :func:`pomp_det.load_weights` loads ``MODEL.WEIGHTS`` or any other file. With
    ``MODEL.VOCABULARY`` the number of classes is the vocabulary's.

    Raises:
        UserError: an unknown name, a class matrix that is missing or does not fit, options that do not go together.
    """
    cfg = register_outside_backbone(cfg)
    check_parts(
        cfg,
        [
            ("MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY),
            ("MODEL.BACKBONE.NAME", BACKBONE_REGISTRY),
            ("MODEL.PROPOSAL_GENERATOR.NAME", PROPOSAL_GENERATOR_REGISTRY),
            ("MODEL.ROI_HEADS.NAME", ROI_HEADS_REGISTRY),
        ],
    )
    matrix = configured_matrix(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    if matrix is not None:
        if cfg.MODEL.VOCABULARY:
            cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(matrix.weight)
        check_class_count(matrix, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        # The stages start with random rows and get the matrix afterwards, so that it is made once.
        cfg.MODEL.VOCABULARY, cfg.MODEL.PROMPT = "", ""
        cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH = RANDOM
    model = build_model(cfg)
    model.classes_from_checkpoint = cfg.MODEL.ROI_BOX_HEAD.CLASSIFIER_FROM_CHECKPOINT
    if hasattr(model, "roi_heads"):
        model.roi_heads.class_names = [f"class {row}" for row in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)]
    if matrix is not None:
        set_classifier(model, matrix)
    return model
