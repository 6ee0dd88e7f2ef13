"""Configurations of detectors: every key that Detectron2 does not know with its default, and YAML files on top.

The keys and defaults of CenterNet2 (arXiv 2103.07461), Detic (arXiv 2201.02605) and POMP's Detic (arXiv 2304.04704)
are those of the published projects, so that their YAML files mean here what they meant there. Keys of this project are
marked *own*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from pomp_det.published_keys import add_published_keys
from pomp_det.ranges import DETECTOR_RANGES
from pomp_engine.backbones.detection_and_words import add_words_config
from pomp_engine.backbones.efficientnet_lite import add_backbone_config
from pomp_engine.config import add_engine_config, task_config


def load_config(file: str | Path | None = None, overrides: Sequence[Any] | Mapping[str, Any] = ()) -> CfgNode:
    """Every key's default, then ``file`` with its ``_BASE_`` files, then ``overrides``.

    See :func:`pomp_engine.config.task_config`.

    Args:
        file: a YAML file; None for the defaults.
        overrides: ``KEY VALUE`` pairs in one flat sequence, ``KEY=VALUE`` texts, or a dictionary.

    Raises:
        UserError: an unknown key (with the nearest), a value of another type or range, an absent or malformed file.
    """
    return task_config(add_detic_config, file, overrides, DETECTOR_RANGES)


def add_detic_config(cfg: CfgNode) -> None:
    """Add the keys of CenterNet2, Detic, POMP and this project to a Detectron2 configuration, in place."""
    _add_backbones(cfg)
    _add_centernet(cfg)
    _add_heads(cfg)
    _add_classifier(cfg)
    _add_data(cfg)
    _add_engine(cfg)
    add_published_keys(cfg)


def _add_backbones(cfg: CfgNode) -> None:
    cfg.MODEL.TIMM = CfgNode()
    cfg.MODEL.TIMM.BASE_NAME = "resnet50"  # a ResNet of timm; the ending _in21k names weights, not a shape
    cfg.MODEL.TIMM.OUT_LEVELS = (3, 4, 5)  # level l has stride 2 ** l and is called layer{l}
    cfg.MODEL.TIMM.NORM = "FrozenBN"  # FrozenBN, BN or SyncBN
    cfg.MODEL.TIMM.FREEZE_AT = 0  # levels that do not train: 1 the stem, 2 the first stage too, …
    cfg.MODEL.TIMM.PRETRAINED = False  # True lets timm download ImageNet weights

    cfg.MODEL.SWIN = CfgNode()
    cfg.MODEL.SWIN.SIZE = "T"  # T, S, B, B-22k, B-22k-384, L-22k, L-22k-384
    cfg.MODEL.SWIN.USE_CHECKPOINT = False  # recompute activations in the backward pass
    cfg.MODEL.SWIN.OUT_FEATURES = (1, 2, 3)  # stages, of stride 4 * 2 ** stage

    add_backbone_config(cfg)
    add_words_config(cfg)
    node = cfg.MODEL.WORDS
    node.SEEN_NAMES = 80  # text features of the seen classes' names, of which a class may have several
    node.SEEN_TEMPLATE = "a photo of a {}."  # of these names, and of words that are compared with them
    # How far a word is one of the seen classes, by the cosine of their text features: not up to the first, wholly from
    # the second on; and the factor of the cosines in the softmax that shares it among them.
    node.SEEN_FROM = 0.75
    node.SEEN_WHOLLY = 0.85
    node.SEEN_SHARPNESS = 30.0
    node.UNSEEN_BIAS = -8.0  # added to the scaled cosine of what is not seen, without ROI_BOX_HEAD.BACKGROUND
    node.SHARE_BIAS = 4.0  # with it, added to the logarithm of the own share: half a probability at a share of 1.8 %


def _add_centernet(cfg: CfgNode) -> None:
    node = cfg.MODEL.CENTERNET = CfgNode()
    node.NUM_CLASSES = 80  # without effect: proposals have no class
    node.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    node.FPN_STRIDES = [8, 16, 32, 64, 128]
    node.PRIOR_PROB = 0.01
    node.INFERENCE_TH = 0.05
    node.CENTER_NMS = False
    node.NMS_TH_TRAIN = 0.6
    node.NMS_TH_TEST = 0.6
    node.PRE_NMS_TOPK_TRAIN = 1000  # per level
    node.POST_NMS_TOPK_TRAIN = 100  # per image
    node.PRE_NMS_TOPK_TEST = 1000
    node.POST_NMS_TOPK_TEST = 100
    node.KEEP_TIES = True  # own; as published, proposals that tie with the last one stay; False cuts at the limit
    node.NORM = "GN"
    node.USE_DEFORMABLE = False
    node.NUM_CLS_CONVS = 4
    node.NUM_BOX_CONVS = 4
    node.NUM_SHARE_CONVS = 0
    node.LOC_LOSS_TYPE = "giou"
    node.SIGMOID_CLAMP = 1e-4
    node.HM_MIN_OVERLAP = 0.8
    node.MIN_RADIUS = 4  # pixels
    node.SOI = [[0, 80], [64, 160], [128, 320], [256, 640], [512, 10000000]]  # half box diagonals of each level
    node.POS_WEIGHT = 1.0
    node.NEG_WEIGHT = 1.0
    node.REG_WEIGHT = 2.0
    node.HM_FOCAL_BETA = 4
    node.HM_FOCAL_ALPHA = 0.25
    node.LOSS_GAMMA = 2.0
    node.WITH_AGN_HM = False
    node.ONLY_PROPOSAL = False
    node.AS_PROPOSAL = False
    node.IGNORE_HIGH_FP = -1.0
    node.MORE_POS = False
    node.MORE_POS_THRESH = 0.2
    node.MORE_POS_TOPK = 9
    node.NOT_NORM_REG = True
    node.NOT_NMS = False
    node.NO_REDUCE = False


def _add_heads(cfg: CfgNode) -> None:
    cfg.WITH_IMAGE_LABELS = False  # batches may carry image labels instead of boxes
    cfg.MODEL.ROI_HEADS.MASK_WEIGHT = 1.0
    cfg.MODEL.ROI_HEADS.ONE_CLASS_PER_PROPOSAL = False

    node = cfg.MODEL.ROI_BOX_HEAD
    node.MULT_PROPOSAL_SCORE = False  # score = sqrt(class probability x proposal score)
    node.PRIOR_PROB = 0.01
    node.CAT_FREQ_PATH = "datasets/metadata/lvis_v1_train_cat_info.json"  # categories with "image_count"
    node.FED_LOSS_FREQ_WEIGHT = 0.5  # power of the image count
    node.FED_LOSS_NUM_CAT = 50  # classes of a federated loss, the background counts as one
    node.IGNORE_ZERO_CATS = False  # classes without images take no part in the loss
    # own; frequency letters of classes that are held out of box training. As published ("") they may be drawn as
    # negatives of the federated loss; "r" keeps the rare classes of a base-only LVIS run out of the box loss, be it
    # federated, sigmoid or softmax.
    node.HELD_OUT_FREQUENCIES = ""
    # As in UniDet, for boxes that are labelled with classes of several levels: classes below a box's own are no
    # negatives of it; nor are those above, which HIERARCHY_POS_PARENTS makes positives. The file is Open Images', or
    # UniDet's of "hierarchy" and "categories".
    node.HIERARCHY_IGNORE = False
    node.HIERARCHY_POS_PARENTS = False
    node.HIERARCHY_PATH = "datasets/oid/annotations/challenge-2019-label500-hierarchy.json"
    node.IMAGE_LABEL_LOSS = "max_size"  # max_size, max_score, first, min_loss or image
    node.IMAGE_LOSS_WEIGHT = 0.1
    node.WS_NUM_PROPS = 128  # proposals of an image-labelled image
    node.ADD_IMAGE_BOX = False  # append the whole image to them
    node.IMAGE_BOX_SIZE = 1.0  # its size as a fraction of the image
    # own; which proposal max_size never takes: last (as published, even where it is a real one) or image_box (only
    # an appended whole-image box)
    node.MAX_SIZE_SKIPS = "last"
    node.SOFTMAX_WEAK_LOSS = False  # max_size with the cross-entropy of a softmax
    node.CAPTION_WEIGHT = 1.0  # of the caption loss within the image loss
    node.NEG_CAP_WEIGHT = 0.125  # of other images' captions, with SYNC_CAPTION_BATCH; without it 1
    node.FAST_INFERENCE = True  # own; score only what can pass; False is the plain reference
    # own; ViLD (arXiv 2104.13921): weight of the L1 distance between region embeddings and CLIP's embeddings of the
    # image regions, 0 is off; and the best proposals of each box image that it is taken over
    node.DISTILLATION_WEIGHT = 0.0
    node.DISTILLATION_PROPOSALS = 32
    # own; embeddings of regions that tools/embed_regions.py computed before training, in the place of an image tower
    node.DISTILLATION_FILE = ""
    # own; ViLDEnsembleROIHeads: weight of the text head on base classes, and of the image head on novel ones
    node.ENSEMBLE_WEIGHT = 2 / 3
    cfg.MODEL.DISTILLATION_CLIP = CfgNode()  # own; the image tower, of the CLIP that the class matrix was made with
    cfg.MODEL.DISTILLATION_CLIP.NAME = "ViT-B-32-quickgelu"
    cfg.MODEL.DISTILLATION_CLIP.PRETRAINED = "openai"  # a tag or a file; empty for mini, which has its own

    cfg.MODEL.WITH_CAPTION = False
    cfg.MODEL.CAP_BATCH_RATIO = 4  # images of a caption batch for each image of a box batch
    cfg.MODEL.SYNC_CAPTION_BATCH = False  # captions of all processes are compared with each image
    cfg.MODEL.DYNAMIC_CLASSIFIER = False  # a training step knows the classes of its batch and some that are drawn
    cfg.MODEL.NUM_SAMPLE_CATS = 50  # how many that makes
    cfg.MODEL.CAPTION_CLIP = CfgNode()  # own; the text tower of the caption loss
    cfg.MODEL.CAPTION_CLIP.NAME = "ViT-B-32-quickgelu"
    cfg.MODEL.CAPTION_CLIP.PRETRAINED = "openai"


def _add_classifier(cfg: CfgNode) -> None:
    node = cfg.MODEL.ROI_BOX_HEAD
    node.USE_ZEROSHOT_CLS = False
    # A .npy matrix (C, E), a classifier file (.safetensors), or "rand" for a random matrix of NUM_CLASSES rows, which
    # stays as it is (Detic's code learns it).
    node.ZEROSHOT_WEIGHT_PATH = "datasets/metadata/lvis_v1_clip_a+cname.npy"
    node.ZEROSHOT_WEIGHT_DIM = 512
    node.NORM_WEIGHT = True
    node.NORM_TEMP = 50.0
    node.USE_BIAS = 0.0  # 0 is no bias
    # own; the background is a learned embedding among the classes (ViLD-text), instead of a logit of 0; needs
    # USE_SIGMOID_CE False
    node.LEARNED_BACKGROUND = False
    # own; names that a region may show instead of its classes: a vocabulary such as imagenet21k, a file, or words
    # joined by commas. Probabilities are multiplied by own shares; empty, as published, leaves them as they are.
    node.BACKGROUND = ""
    # own; False: the configured matrix stays when a checkpoint holds another one; True: the checkpoint's is taken
    node.CLASSIFIER_FROM_CHECKPOINT = False

    # own; the classes to detect: a vocabulary's name, a file of names, names joined by commas, or a classifier file.
    # Empty keeps the classes of ZEROSHOT_WEIGHT_PATH.
    cfg.MODEL.VOCABULARY = ""
    cfg.MODEL.PROMPT = ""  # own; a prompt file or templates with {}, to encode the vocabulary with
    cfg.MODEL.CLIP = CfgNode()  # own; the text tower that encodes it
    cfg.MODEL.CLIP.NAME = ""  # empty: the prompt's own, else OpenAI's ViT-B/16
    cfg.MODEL.CLIP.PRETRAINED = ""  # a tag or a file; empty: OpenAI's weights (mini has its own)

    cfg.MODEL.RESET_CLS_TESTS = False  # swap the classifier for each test set
    cfg.MODEL.TEST_CLASSIFIERS = []
    cfg.MODEL.TEST_NUM_CLASSES = []
    cfg.MODEL.RESET_CLS_TRAIN = False  # POMP: swap it after loading weights, before training
    cfg.MODEL.TRAIN_CLASSIFIERS = []
    cfg.MODEL.TRAIN_NUM_CLASSES = []


def _add_data(cfg: CfgNode) -> None:
    # own; your data sets: [name, annotation file, folder of photos], or with the kind (coco, lvis, image_labels) and a
    # vocabulary behind it. Paths that begin with datasets/ are looked for under POMP_DATA where that is set.
    cfg.DATASETS.FILES = []
    cfg.INPUT.CUSTOM_AUG = ""  # EfficientDetResizeCrop or ResizeShortestEdge
    cfg.INPUT.TRAIN_SIZE = 640
    cfg.INPUT.TEST_SIZE = 640
    cfg.INPUT.SCALE_RANGE = (0.1, 2.0)
    cfg.INPUT.TEST_INPUT_TYPE = "default"

    node = cfg.DATALOADER
    node.DATASET_RATIO = [1, 1]
    node.USE_RFS = [False, False]
    node.MULTI_DATASET_GROUPING = False
    node.DATASET_ANN = ["box", "box"]  # box, image, caption or captiontag for each training set
    node.USE_DIFF_BS_SIZE = False
    node.DATASET_BS = [8, 32]
    node.DATASET_INPUT_SIZE = [896, 384]
    node.DATASET_INPUT_SCALE = [[0.1, 2.0], [0.5, 1.5]]
    node.DATASET_MIN_SIZES = [[640, 800], [320, 400]]
    node.DATASET_MAX_SIZES = [1333, 667]
    node.USE_TAR_DATASET = False  # photos of image labels may be numbers through the archives of the next two
    node.TARFILE_PATH = "datasets/imagenet/metadata-22k/tar_files.npy"
    node.TAR_INDEX_DIR = "datasets/imagenet/metadata-22k/tarindex_npy"


def _add_engine(cfg: CfgNode) -> None:
    add_engine_config(cfg)
    # own; for predicted masks where the annotations have none: evaluate (as published: AP 0) or skip
    cfg.TEST.MASKS_WITHOUT_GROUND_TRUTH = "evaluate"
    cfg.EVAL_AP_FIX = False
