"""Keys of Detectron2 that no run here reads, whatever its task; see :func:`pomp_engine.config.refuse_unsupported`."""

from __future__ import annotations

_PICTURES = "training draws no pictures; tools/predict.py does"
_PROPOSALS = "proposals are the model's own"
_KEYPOINTS = "there are no keypoints"
UNBUILT = {
    "SOLVER.AMP": "FP16 is half precision",
    "SOLVER.REFERENCE_WORLD_SIZE": "IMS_PER_BATCH, BASE_LR and MAX_ITER hold for any number of processes",
    "TEST.PRECISE_BN": "the statistics are those of training",
    "TEST.EXPECTED_RESULTS": "results are written, and compared by nothing",
    "TEST.KEYPOINT_OKS_SIGMAS": _KEYPOINTS,
    "MODEL.KEYPOINT_ON": _KEYPOINTS,
    "MODEL.LOAD_PROPOSALS": _PROPOSALS,
    "DATASETS.PROPOSAL_FILES_TRAIN": _PROPOSALS,
    "DATASETS.PROPOSAL_FILES_TEST": _PROPOSALS,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": _PROPOSALS,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": _PROPOSALS,
    "VIS_PERIOD": _PICTURES,
    "GLOBAL.HACK": "nothing reads it",
    "CUDNN_BENCHMARK": "a resumed run would not continue as the interrupted one",
}
