"""A tiny segmenter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# A segmenter on the embedded CLIP that runs in milliseconds.
TINY: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.META_ARCHITECTURE": "ZeroShotMaskFormer",
    "MODEL.BACKBONE.NAME": "build_resnet_deeplab_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
    "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
    "MODEL.RESNETS.STEM_TYPE": "deeplab",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.NAME": "ZeroShotMaskFormerHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 3,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 16,
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.SEM_SEG_HEAD.EMBEDDING_DIM": 116,
    "MODEL.SEM_SEG_HEAD.EMBED_HIDDEN_DIM": 24,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 16,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 5,
    "MODEL.MASK_FORMER.NHEADS": 2,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 16,
    "MODEL.MASK_FORMER.DEC_LAYERS": 2,
    "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME": "mini",
    "MODEL.CLIP_ADAPTER.PROMPT_LEARNER": "predefined",
    "MODEL.CLIP_ADAPTER.PROMPT_DIM": 116,
    "MODEL.CLIP_ADAPTER.PROMPT_SHAPE": (4, 0),
}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """Builds a random segmenter; a dictionary changes its configuration."""
    pytest.importorskip("detectron2")
    import torch

    from pomp_seg import build_segmenter, load_config

    def build(changed: dict[str, Any] | None = None, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        return build_segmenter(load_config(None, TINY | (changed or {})))

    return build
