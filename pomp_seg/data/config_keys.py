"""Configuration keys of the segmenter's training data that Detectron2 itself does not know, with their defaults.

Names and meanings are those of the published files of MaskFormer (arXiv 2107.06278), ZSSeg (arXiv 2112.14757) and POMP
(arXiv 2304.04704). Keys of this project are marked *own*.
"""

from __future__ import annotations

from detectron2.config import CfgNode


def add_data_config(cfg: CfgNode) -> None:
    """Add the keys of the mappers and of sampling by class to a Detectron2 configuration, in place."""
    cfg.INPUT.FORMAT = "RGB"  # what CLIP looks at; Detectron2's own default is BGR
    # The training examples: mask_former_semantic (whole label maps) or mask_former_binary_semantic (one masked region)
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    cfg.INPUT.COLOR_AUG_SSD = False  # the colour jitter of SSD
    cfg.INPUT.SIZE_DIVISIBILITY = -1  # pixels; training images are padded to a multiple of it, -1 pads nothing
    # The largest share that one class may have of a training crop, 1.0 allows all
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # own; resize a masked region's shorter side to MIN_SIZE_TEST before its centre is cut out; False as published
    cfg.INPUT.REGION_TEST_RESIZE = False
    cfg.DATASETS.SAMPLE_PER_CLASS = -1  # records of each class, of data sets with one class a record; -1 takes all
    cfg.DATASETS.SAMPLE_SEED = 0  # of the draw
