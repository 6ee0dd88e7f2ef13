"""From a configuration to a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

# Imported for the names that they register with Detectron2.
from detectron2.projects.deeplab import build_resnet_deeplab_backbone  # noqa: F401
from torch import nn

from pomp_engine.backbones import detection_and_words, efficientnet_lite  # noqa: F401
from pomp_engine.backbones.outside import register_outside_backbone
from pomp_engine.config import build_configured, check_parts, refuse_unsupported
from pomp_seg.config import META_ARCHITECTURES, UNBUILT, add_segmenter_config
from pomp_seg.heads import mask_former_head  # noqa: F401
from pomp_seg.models import generated_features, mask_former, per_pixel, region_classifier  # noqa: F401
from pomp_seg.pixel_shares import check_none_of_these
from pomp_seg.vocabulary import Classes, read_class_names
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary


def build_segmenter(cfg: CfgNode) -> nn.Module:
    """A segmenter in Detectron2's usual input and output format, in training mode.

    Its own weights are random: :func:`pomp_seg.load_weights` loads ``MODEL.WEIGHTS`` or any other file. CLIP's weights
    come with such a file, or are loaded when first needed. The classes are those of ``MODEL.VOCABULARY``, or if that is
    empty those of the data set that an example comes from.

    Raises:
        UserError: an unknown name, a prompt that is missing or does not fit, incompatible options.
    """
    cfg = register_outside_backbone(cfg)
    _check_names(cfg)
    refuse_unsupported(cfg, add_segmenter_config, UNBUILT)
    head, has_shares = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.META_ARCHITECTURE == "ZeroShotPerPixelModel"
    check_none_of_these(head.BACKGROUND, head.NONE_OF_THESE, has_shares)
    model = build_configured(cfg)
    if cfg.MODEL.VOCABULARY:
        set_classes(model, read_class_names(cfg.MODEL.VOCABULARY))
    return model


def set_classes(model: nn.Module, classes: Vocabulary | Sequence[str], seen: Sequence[bool] | None = None) -> None:
    """Give a segmenter other classes, in place; no weights change.

    Args:
        model: an open-vocabulary segmenter, also inside DistributedDataParallel.
        classes: C names.
        seen: C flags of what training saw, for the ensemble; None treats all classes as unseen, as published for data
            sets without a split.

    Raises:
        UserError: no class, another number of flags, or a segmenter with a closed list of classes.
    """
    model = getattr(model, "module", model)
    if not hasattr(model, "clip_adapter"):
        raise UserError(
            f"{type(model).__name__} has a closed list of classes; use META_ARCHITECTURE ZeroShotMaskFormer"
        )
    names = getattr(classes, "names", classes)
    holder: Any = model
    holder.classes = Classes(tuple(name.strip() for name in names), None if seen is None else tuple(map(bool, seen)))


def _check_names(cfg: CfgNode) -> None:
    check_parts(
        cfg,
        [
            ("MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY),
            ("MODEL.BACKBONE.NAME", BACKBONE_REGISTRY),
            ("MODEL.SEM_SEG_HEAD.NAME", SEM_SEG_HEADS_REGISTRY),
        ],
    )
    if cfg.MODEL.META_ARCHITECTURE not in META_ARCHITECTURES:
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}, no segmenter; expected "
            f"{', '.join(META_ARCHITECTURES)}"
        )
    if cfg.MODEL.PROPOSALS.FILE and cfg.MODEL.META_ARCHITECTURE != "ZeroShotMaskFormer":
        raise UserError(
            f"MODEL.PROPOSALS.FILE has regions to name, which {cfg.MODEL.META_ARCHITECTURE} does not do; use "
            "META_ARCHITECTURE ZeroShotMaskFormer"
        )
    if cfg.MODEL.PROPOSALS.FILE and (cfg.TEST.AUG.ENABLED or cfg.TEST.SLIDING_WINDOW):
        raise UserError(
            "the regions of MODEL.PROPOSALS.FILE are those of a whole photo; set TEST.AUG.ENABLED and "
            "TEST.SLIDING_WINDOW to False"
        )
    if cfg.MODEL.META_ARCHITECTURE != "MaskFormer" and cfg.INPUT.FORMAT != "RGB":
        raise UserError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; CLIP also reads the photos and takes RGB")
