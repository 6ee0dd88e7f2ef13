"""Keys of published configurations whose parts are not built: they are read, and refused where they are set.

Detectron2 writes every key into a run's ``config.yaml``, so that files of published runs name all of them. Names and
defaults are those of ``centernet/config.py`` (CenterNet2) and ``detic/config.py`` (Detic).
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from pomp_engine import unbuilt_keys
from prompt_core.errors import UserError

DETR = "DeformableDetr"
_OTHER_MODELS = "detectors here are CustomRCNN"
_KEYPOINTS = "detectors here find boxes and masks"
_PICTURES = "training draws no pictures; tools/predict.py does"
_RECALL = "average precision is scored, no recall of proposals; Detic's published code does not read it either"
_WSDDN = "image labels are learned from one proposal; ROI_BOX_HEAD.IMAGE_LABEL_LOSS chooses it"
_BACKBONES = "the feature pyramids are build_p67_…_fpn_backbone and build_swintransformer_fpn_backbone"
UNBUILT = unbuilt_keys.UNBUILT | {
    "MODEL.DETR": f"it is for MODEL.META_ARCHITECTURE {DETR}, and detectors here are CustomRCNN",
    "MODEL.BIFPN": _BACKBONES,
    "MODEL.DLA": _BACKBONES,
    "MODEL.ROI_BOX_HEAD.USE_EQL_LOSS": "the federated loss, USE_FED_LOSS, is for classes of few images",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": "the published key is FED_LOSS_FREQ_WEIGHT",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": "the published key is FED_LOSS_NUM_CAT",
    "MODEL.ROI_BOX_HEAD.ADD_FEATURE_TO_PROP": _WSDDN,
    "MODEL.ROI_BOX_HEAD.WITH_SOFTMAX_PROP": _WSDDN,
    "MODEL.CENTERNET.NUM_CLS_CONVS": "proposals have no class",
    "MODEL.CENTERNET.MORE_POS_THRESH": "MORE_POS is not built",
    "MODEL.CENTERNET.MORE_POS_TOPK": "MORE_POS is not built",
    "MODEL.ROI_KEYPOINT_HEAD": _KEYPOINTS,
    "MODEL.RETINANET": _OTHER_MODELS,
    "MODEL.SEM_SEG_HEAD": _OTHER_MODELS,
    "MODEL.PANOPTIC_FPN": _OTHER_MODELS,
    "DATALOADER.SOURCE_AWARE": "data sets are kept apart by DATALOADER.MULTI_DATASET_GROUPING",
    "TEST.AUG": "a photo is tested at one size",
    "MODEL.DATASET_LOSS_WEIGHT": "data sets are weighted by DATALOADER.DATASET_RATIO",
    "INPUT.CROP": "INPUT.CUSTOM_AUG EfficientDetResizeCrop crops to INPUT.TRAIN_SIZE",
    "INPUT.NOT_CLAMP_BOX": "boxes are cut at the border of the photo",
    "DEBUG": _PICTURES,
    "IS_DEBUG": _PICTURES,
    "QUICK_DEBUG": _PICTURES,
    "SAVE_DEBUG": _PICTURES,
    "SAVE_DEBUG_PATH": _PICTURES,
    "SAVE_PTH": _PICTURES,
    "DEBUG_SHOW_NAME": _PICTURES,
    "VIS_THRESH": _PICTURES,
    "EVAL_PRED_AR": _RECALL,
    "EVAL_PROPOSAL_AR": _RECALL,
    "EVAL_CAT_SPEC_AR": _RECALL,
    "GEN_PSEDO_LABELS": "tools/predict.py writes the detections of any photos as a COCO file",
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
    cfg.MODEL.ROI_BOX_HEAD.ADD_FEATURE_TO_PROP = False
    cfg.MODEL.ROI_BOX_HEAD.WITH_SOFTMAX_PROP = False
    cfg.DATALOADER.SOURCE_AWARE = False
    cfg.DEBUG = cfg.IS_DEBUG = cfg.QUICK_DEBUG = cfg.SAVE_DEBUG = cfg.SAVE_PTH = cfg.DEBUG_SHOW_NAME = False
    cfg.SAVE_DEBUG_PATH = "output/save_debug/"
    cfg.VIS_THRESH = 0.3
    cfg.EVAL_PRED_AR = cfg.EVAL_PROPOSAL_AR = cfg.EVAL_CAT_SPEC_AR = cfg.GEN_PSEDO_LABELS = False


def refuse_detr(cfg: CfgNode) -> None:
    """Raises UserError for a configuration of Detic's Deformable DETR."""
    if cfg.MODEL.META_ARCHITECTURE == DETR:
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {DETR!r}: Deformable DETR is not built here, because its classes are a "
            "learned layer, which no words and no prompt can replace; use a CustomRCNN of the same data, such as "
            "BoxSup-C2_L_CLIP_R5021k_640b64_4x.yaml"
        )
