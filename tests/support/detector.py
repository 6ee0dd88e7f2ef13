"""A tiny detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

# A detector of 30 classes that runs in milliseconds.
TINY: dict[str, Any] = {
    "MODEL.BACKBONE.NAME": "build_p67_resnet_fpn_backbone",
    "MODEL.META_ARCHITECTURE": "CustomRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.PROPOSAL_GENERATOR.NAME": "CenterNet",
    "MODEL.CENTERNET.ONLY_PROPOSAL": True,
    "MODEL.CENTERNET.WITH_AGN_HM": True,
    "MODEL.CENTERNET.NUM_BOX_CONVS": 1,
    "MODEL.CENTERNET.INFERENCE_TH": 0.0001,
    "MODEL.CENTERNET.POST_NMS_TOPK_TEST": 40,
    "MODEL.CENTERNET.POST_NMS_TOPK_TRAIN": 60,
    "MODEL.ROI_HEADS.NAME": "DeticCascadeROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p3", "p4", "p5"],
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.6],
    "MODEL.ROI_HEADS.NUM_CLASSES": 30,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.02,
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.6, 0.7, 0.8],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE": True,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True,
    "MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS": True,
    "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH": "rand",
    "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": 24,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
    "TEST.DETECTIONS_PER_IMAGE": 30,
}


def write_config(path: Path, settings: dict[str, Any]) -> Path:
    """A YAML configuration of flat settings."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        node = nested
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    path.write_text(yaml.safe_dump(nested), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Any]:
    """Builds a tiny random detector; a dictionary changes settings."""
    from pomp_det import build_detector, load_config

    def make(changed: dict[str, Any] | None = None, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        model = build_detector(load_config(None, TINY | {"MODEL.DEVICE": "cpu"} | (changed or {})))
        # Fresh heads give all boxes the same score; spread them, so that tests see an order.
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("agn_hm.weight", "cls_score.linear.weight", "bbox_pred.2.weight")):
                    parameter.mul_(20)
        return model

    return make


@pytest.fixture
def photo() -> torch.Tensor:
    """An image (3, 96, 128) of numbers 0..255."""
    return torch.randint(0, 256, (3, 96, 128), generator=torch.Generator().manual_seed(7)).float()
