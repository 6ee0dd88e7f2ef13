"""Options of the box predictor, from a configuration."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers

from pomp_det.class_matrix import stage_matrix
from pomp_det.heads.class_counts import ClassCounts
from pomp_det.heads.class_hierarchy import ClassHierarchy
from pomp_det.heads.class_losses import ClassChoice
from pomp_det.heads.image_labels import CHOICES, ImageLabelOptions
from pomp_det.heads.inference import ScoreOptions
from pomp_det.heads.zero_shot import ZeroShotClassifier
from prompt_core.errors import UserError
from prompt_core.files import resolve_path


def predictor_options(cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
    """Keywords of :class:`pomp_det.heads.box_predictor.DeticFastRCNNOutputLayers`.

    Raises:
        UserError: unknown values, a class matrix that is missing or does not fit, options that do not go together.
    """
    node = cfg.MODEL.ROI_BOX_HEAD
    options = FastRCNNOutputLayers.from_config(cfg, input_shape)
    del options["get_fed_loss_cls_weights"]  # of Detectron2's own federated loss
    kind = node.IMAGE_LABEL_LOSS
    if kind not in CHOICES:
        raise UserError(f"MODEL.ROI_BOX_HEAD.IMAGE_LABEL_LOSS is {kind!r}; expected one of {', '.join(CHOICES)}")
    if node.SOFTMAX_WEAK_LOSS and kind != "max_size":
        raise UserError(
            "MODEL.ROI_BOX_HEAD.SOFTMAX_WEAK_LOSS is a loss of the largest box; set IMAGE_LABEL_LOSS max_size"
        )
    if node.MAX_SIZE_SKIPS not in ("last", "image_box"):
        raise UserError(f"MODEL.ROI_BOX_HEAD.MAX_SIZE_SKIPS is {node.MAX_SIZE_SKIPS!r}; expected last or image_box")
    if node.MULT_PROPOSAL_SCORE and cfg.MODEL.PROPOSAL_GENERATOR.NAME in ("RPN", "RRPN"):
        raise UserError(
            "MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE needs probabilities as proposal scores, and RPN gives logits; set "
            "it to False, or MODEL.PROPOSAL_GENERATOR.NAME to CenterNet"
        )
    if (node.USE_FED_LOSS or node.IGNORE_ZERO_CATS) and not node.USE_SIGMOID_CE:
        raise UserError(
            "MODEL.ROI_BOX_HEAD.USE_FED_LOSS and IGNORE_ZERO_CATS choose classes of the sigmoid loss; set them to "
            "False, or USE_SIGMOID_CE to True (HELD_OUT_FREQUENCIES goes with the softmax too)"
        )
    if node.LEARNED_BACKGROUND and (node.USE_SIGMOID_CE or not node.USE_ZEROSHOT_CLS):
        raise UserError(
            "MODEL.ROI_BOX_HEAD.LEARNED_BACKGROUND is a class of the zero-shot classifier's softmax; set "
            "USE_ZEROSHOT_CLS to True and USE_SIGMOID_CE to False"
        )
    if node.USE_ZEROSHOT_CLS:
        options["classifier"] = _classifier(cfg, input_shape)
    # With a dynamic classifier held-out classes are not drawn, see pomp_det.heads.sampled_classes.
    hold_out = bool(node.HELD_OUT_FREQUENCIES) and not cfg.MODEL.DYNAMIC_CLASSIFIER
    choice = ClassChoice(options.pop("use_fed_loss"), node.FED_LOSS_NUM_CAT, node.IGNORE_ZERO_CATS, hold_out)
    if choice.by_counts or choice.hold_out:
        options["class_counts"] = ClassCounts.read(
            resolve_path(node.CAT_FREQ_PATH),
            cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            node.FED_LOSS_FREQ_WEIGHT,
            node.HELD_OUT_FREQUENCIES,
        )
    if node.HIERARCHY_IGNORE or node.HIERARCHY_POS_PARENTS:
        options["class_hierarchy"] = _hierarchy(cfg)
    return options | {
        "prior_probability": node.PRIOR_PROB,
        "scoring": ScoreOptions(
            node.MULT_PROPOSAL_SCORE, cfg.MODEL.ROI_HEADS.ONE_CLASS_PER_PROPOSAL, node.FAST_INFERENCE
        ),
        "class_choice": choice,
        "image_labels": ImageLabelOptions(
            kind,
            node.IMAGE_LOSS_WEIGHT,
            skip_last=node.MAX_SIZE_SKIPS == "last" or node.ADD_IMAGE_BOX,
            softmax=node.SOFTMAX_WEAK_LOSS,
        ),
    }


def _hierarchy(cfg: CfgNode) -> ClassHierarchy:
    node = cfg.MODEL.ROI_BOX_HEAD
    if not node.HIERARCHY_IGNORE:
        raise UserError(
            "MODEL.ROI_BOX_HEAD.HIERARCHY_POS_PARENTS says what HIERARCHY_IGNORE does with the classes above a box's "
            "own; set HIERARCHY_IGNORE to True, too"
        )
    if not node.USE_SIGMOID_CE or cfg.MODEL.DYNAMIC_CLASSIFIER:
        raise UserError(
            "MODEL.ROI_BOX_HEAD.HIERARCHY_IGNORE applies to the sigmoid loss over all classes; set USE_SIGMOID_CE to "
            "True and MODEL.DYNAMIC_CLASSIFIER to False"
        )
    return ClassHierarchy.read(resolve_path(node.HIERARCHY_PATH), node.HIERARCHY_POS_PARENTS)


def _classifier(cfg: CfgNode, input_shape: ShapeSpec) -> ZeroShotClassifier:
    node = cfg.MODEL.ROI_BOX_HEAD
    if not node.CLS_AGNOSTIC_BBOX_REG:
        raise UserError("MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS needs CLS_AGNOSTIC_BBOX_REG True")
    if node.USE_BIAS > 0:
        raise UserError(f"MODEL.ROI_BOX_HEAD.USE_BIAS is {node.USE_BIAS}; 0 is no bias, and a bias starts below 0")
    matrix, source = stage_matrix(cfg)
    size = input_shape.channels * (input_shape.width or 1) * (input_shape.height or 1)
    return ZeroShotClassifier(
        size, matrix, node.NORM_TEMP, node.NORM_WEIGHT, node.USE_BIAS, source, node.LEARNED_BACKGROUND
    )
