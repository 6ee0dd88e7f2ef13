"""A tiny detector like the embedded one: a random detection network beside a random image tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pomp_engine.backbones.nanodet import SIDE_BINS

from .detector_run import tiny_settings

SEEN = 4  # classes of the detection network
WIDTH = 24  # of the words' space


def region_words_settings(folder: Path, **changed: Any) -> dict[str, Any]:
    """Settings of a run of two steps on :func:`tests.support.detector_run.make_data`."""
    return (
        tiny_settings(folder)
        | {
            "MODEL.BACKBONE.NAME": "build_detection_and_words_backbone",
            "MODEL.WORDS.SEEN_CLASSES": SEEN,
            "MODEL.WORDS.SEEN_NAMES": 6,
            "MODEL.WORDS.CHANNELS": [4, 8, 16, 32],
            "MODEL.WORDS.WIDTH": WIDTH,
            "MODEL.WORDS.SIZE": 64,
            "MODEL.PROPOSAL_GENERATOR.NAME": "CellProposals",
            "MODEL.CENTERNET.INFERENCE_TH": 0.01,
            "MODEL.ROI_HEADS.NAME": "RegionWordsROIHeads",
            "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
            "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5],
            "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [[10.0, 10.0, 5.0, 5.0]],
            "MODEL.ROI_BOX_HEAD.NAME": "RegionWordsHead",
            "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 0.0,
            "MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM": WIDTH,
            "MODEL.ROI_BOX_HEAD.NORM_TEMP": 30.0,
            "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
            "INPUT.FORMAT": "BGR",
            "INPUT.TRAIN_SIZE": 64,
            "INPUT.MIN_SIZE_TEST": 64,
            "INPUT.MAX_SIZE_TEST": 64,
            "SOLVER.MAX_ITER": 2,
            "SOLVER.RESUME_PERIOD": 0,
        }
        | changed
    )


def cell_width(num_classes: int = SEEN) -> int:
    """Channels of a level's cells."""
    return num_classes + 4 * SIDE_BINS
