"""Parts of several models, by configuration, and how the backbone runs."""

from __future__ import annotations

from detectron2.config import CfgNode

from pomp_seg.clip import ClipSource
from pomp_seg.clip_adapter import ClipAdapter, RegionClipAdapter
from pomp_seg.prompts.build import build_prompt_learner
from prompt_core.errors import UserError


def build_region_adapter(cfg: CfgNode, node: CfgNode) -> RegionClipAdapter:
    """The adapter of a ``CLIP_ADAPTER`` or ``REGION_CLIP_ADAPTER`` section; regions are cropped alike in both."""
    options = cfg.MODEL.CLIP_ADAPTER
    if not options.REGION_RESIZED:
        raise UserError("MODEL.CLIP_ADAPTER.REGION_RESIZED is False; regions of any size are not built, set it to True")
    return RegionClipAdapter(
        ClipSource(node.CLIP_MODEL_NAME, node.CLIP_PRETRAINED),
        build_prompt_learner(node),
        mask_fill=options.MASK_FILL,
        mask_expand_ratio=options.MASK_EXPAND_RATIO,
        mask_threshold=options.MASK_THR,
        mask_matting=options.MASK_MATTING,
        region_features=options.REGION_FEATURES,
        region_batch=options.REGION_BATCH,
        first_block=options.SINGLE_PASS_FIRST_BLOCK,
    )


def build_adapter(node: CfgNode, tuning: bool = False) -> ClipAdapter:
    """The adapter of a model that classifies whole images or pixels."""
    return ClipAdapter(ClipSource(node.CLIP_MODEL_NAME, node.CLIP_PRETRAINED), build_prompt_learner(node, tuning))
