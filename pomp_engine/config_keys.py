"""The configuration keys of training that Detectron2 itself does not know, with their defaults.

Keys of this project are marked *own*; the others are those of Detic (arXiv 2201.02605) and MaskFormer
(arXiv 2107.06278), whose published YAML files set them.
"""

from __future__ import annotations

from detectron2.config import CfgNode


def add_engine_config(cfg: CfgNode) -> None:
    """Add the keys that :mod:`pomp_engine.loop` and :mod:`pomp_engine.solver` read, in place."""
    node = cfg.SOLVER
    node.USE_CUSTOM_SOLVER = False
    node.OPTIMIZER = "SGD"  # SGD or ADAMW; for a detector, with USE_CUSTOM_SOLVER
    # own; AdamW's decay rates. The sigmoid losses of all classes start a hundred times higher than they end; the second
    # rate decides how long steps stay small after that, which matters in a short schedule.
    node.BETAS = (0.9, 0.999)
    node.BACKBONE_MULTIPLIER = 1.0
    node.CUSTOM_MULTIPLIER = 1.0
    node.CUSTOM_MULTIPLIER_NAME = []
    node.RESUME_PERIOD = 1000  # own; iterations between renewals of model_last.pth, which --resume goes on from
    cfg.FP16 = False  # on a GPU the backbone runs in half precision; on a CPU nothing changes
    cfg.FIND_UNUSED_PARAM = True
