"""Keys of published configurations whose parts are not built: they are read, and refused where they are set.

Detectron2 writes every key into a run's ``config.yaml``, so that files of published runs name all of them. Names and
defaults are those of ``centernet/config.py`` (CenterNet2) and ``detic/config.py`` (Detic).
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from prompt_core.errors import UserError

DETR = "DeformableDetr"
_BACKBONES = "the feature pyramids are build_p67_…_fpn_backbone and build_swintransformer_fpn_backbone"
UNBUILT = {
    "MODEL.DETR": f"it is for MODEL.META_ARCHITECTURE {DETR}, and detectors here are CustomRCNN",
    "MODEL.BIFPN": _BACKBONES,
    "MODEL.DLA": _BACKBONES,
    "MODEL.ROI_BOX_HEAD.USE_EQL_LOSS": "the federated loss, USE_FED_LOSS, is for classes of few images",
    "MODEL.DATASET_LOSS_WEIGHT": "data sets are weighted by DATALOADER.DATASET_RATIO",
    "INPUT.NOT_CLAMP_BOX": "boxes are cut at the border of the photo",
    "DEBUG": "training draws no pictures",
    "SOLVER.RESET_ITER": "a run starts at its first iteration, and continues with --resume",
    "SOLVER.TRAIN_ITER": "a run ends at SOLVER.MAX_ITER",
}
_DETR_DEFAULTS: dict[str, Any] = {
    "NUM_CLASSES": 80, "FROZEN_WEIGHTS": "", "GIOU_WEIGHT": 2.0, "L1_WEIGHT": 5.0, "DEEP_SUPERVISION": True,
    "NO_OBJECT_WEIGHT": 0.1, "CLS_WEIGHT": 2.0, "NUM_FEATURE_LEVELS": 4, "TWO_STAGE": False, "WITH_BOX_REFINE": False,
    "FOCAL_ALPHA": 0.25, "NHEADS": 8, "DROPOUT": 0.1, "DIM_FEEDFORWARD": 2048, "ENC_LAYERS": 6, "DEC_LAYERS": 6,
    "PRE_NORM": False, "HIDDEN_DIM": 256, "NUM_OBJECT_QUERIES": 100, "USE_FED_LOSS": False, "WEAK_WEIGHT": 0.1,
}  # fmt: skip
_BIFPN_DEFAULTS: dict[str, Any] = {
    "NUM_LEVELS": 5, "NUM_BIFPN": 6, "NORM": "GN", "OUT_CHANNELS": 160, "SEPARABLE_CONV": False,
}  # fmt: skip
_DLA_DEFAULTS: dict[str, Any] = {
    "OUT_FEATURES": ["dla2"], "USE_DLA_UP": True, "NUM_LAYERS": 34, "MS_OUTPUT": False, "NORM": "BN",
    "DLAUP_IN_FEATURES": ["dla3", "dla4", "dla5"], "DLAUP_NODE": "conv",
}  # fmt: skip


def add_published_keys(cfg: CfgNode) -> None:
    """Add the keys with their published defaults, in place."""
    cfg.MODEL.DETR = CfgNode(_DETR_DEFAULTS)
    cfg.MODEL.BIFPN = CfgNode(_BIFPN_DEFAULTS)
    cfg.MODEL.DLA = CfgNode(_DLA_DEFAULTS)
    cfg.MODEL.ROI_BOX_HEAD.USE_EQL_LOSS = False
    cfg.MODEL.ROI_BOX_HEAD.EQL_FREQ_CAT = 200  # only with USE_EQL_LOSS
    cfg.MODEL.DATASET_LOSS_WEIGHT = []
    cfg.INPUT.NOT_CLAMP_BOX = False
    cfg.SOLVER.RESET_ITER = False
    cfg.SOLVER.TRAIN_ITER = -1
    cfg.DEBUG = False


def refuse_detr(cfg: CfgNode) -> None:
    """Raises UserError for a configuration of Detic's Deformable DETR."""
    if cfg.MODEL.META_ARCHITECTURE == DETR:
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {DETR!r}: Deformable DETR is not built here, because its classes are a "
            "learned layer, which no words and no prompt can replace; use a CustomRCNN of the same data, such as "
            "BoxSup-C2_L_CLIP_R5021k_640b64_4x.yaml"
        )
