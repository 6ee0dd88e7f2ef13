"""Configurations of segmenters: every key that Detectron2 itself does not know, and YAML files with strict overrides.

Keys and defaults of MaskFormer (arXiv 2107.06278), ZSSeg (arXiv 2112.14757) and POMP (arXiv 2304.04704) are those of
the published projects, so that their YAML files keep their meaning. Keys of this project are marked *own*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from pomp_engine import unbuilt_keys
from pomp_engine.backbones.detection_and_words import add_words_config
from pomp_engine.backbones.efficientnet_lite import add_backbone_config
from pomp_engine.config import add_engine_config, override_pairs, read_config, task_config
from pomp_seg.ranges import SEGMENTER_RANGES
from prompt_core.errors import UserError, nearest

META_ARCHITECTURES = (
    "MaskFormer",
    "ZeroShotMaskFormer",
    "ProposalClipClassifier",
    "ZeroShotPerPixelModel",
    "GeneratedFeatureModel",
)

_SELF_TRAINING = "there is no self-training on pseudo labels"
_PANOPTIC = "segmentation here is semantic, not panoptic"
_NO_ENCODER = "there is no transformer encoder, as in the published files"
_MASK_FORMER = "segmenters are trained as MaskFormer is"
# Keys that published files or their users may set, and that nothing reads: why, see refuse_unsupported.
UNBUILT = unbuilt_keys.UNBUILT | {
    "PSEUDO": _SELF_TRAINING,
    "PSEUDO_WITH_PRIOR": _SELF_TRAINING,
    "PSEUDO_REJECT_THRESHOLD": _SELF_TRAINING,
    "PSEUDO_FLAG_NAME": _SELF_TRAINING,
    "WANDB": "losses go to OUTPUT_DIR/log.jsonl and to TensorBoard",
    "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": _PANOPTIC,
    "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": _PANOPTIC,
    "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": _PANOPTIC,
    "MODEL.MASK_FORMER.ENC_LAYERS": _NO_ENCODER,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": _NO_ENCODER,
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": _NO_ENCODER,
    "MODEL.CLIP_ADAPTER.REGION_RESIZED": "CLIP sees regions in its own size",
    "DATALOADER.SAMPLER_TRAIN": "the records of training come in random order",
    "SOLVER.BIAS_LR_FACTOR": _MASK_FORMER,
    "SOLVER.WEIGHT_DECAY_BIAS": _MASK_FORMER,
    "SOLVER.USE_CUSTOM_SOLVER": _MASK_FORMER,
    "SOLVER.CUSTOM_MULTIPLIER": _MASK_FORMER,
    "SOLVER.CUSTOM_MULTIPLIER_NAME": _MASK_FORMER,
}


def add_segmenter_config(cfg: CfgNode) -> None:
    """Add every key of MaskFormer, ZSSeg, POMP and this project to a Detectron2 configuration, in place."""
    add_engine_config(cfg)
    add_backbone_config(cfg)
    add_words_config(cfg)
    _add_models(cfg)
    _add_solver(cfg)
    _add_data(cfg)


def load_config(file: str | Path | None = None, overrides: Sequence[Any] | Mapping[str, Any] = ()) -> CfgNode:
    """Every key's default, then ``file`` with its ``_BASE_`` files, then ``overrides``.

    See :func:`pomp_engine.config.task_config`.

    Args:
        file: a YAML file; None for the defaults.
        overrides: ``KEY VALUE`` pairs in one flat sequence, ``KEY=VALUE`` texts, or a dictionary.

    Raises:
        UserError: an unknown key (with the nearest), a value of another type or range, an absent or malformed file.
    """
    return task_config(add_segmenter_config, file, overrides, SEGMENTER_RANGES)


def is_segmenter(file: str | Path, overrides: Sequence[Any] = ()) -> bool:
    """Whether ``MODEL.META_ARCHITECTURE`` of a YAML file, or of ``KEY VALUE`` overrides, is a segmenter's.

    Raises:
        UserError: when the file is absent or cannot be read, or the name resembles a segmenter's: otherwise it would be
            read with a detector's keys.
    """
    settings: Any = read_config(Path(file)).get("MODEL", {})
    name = settings.get("META_ARCHITECTURE", "") if isinstance(settings, dict) else ""
    for key, value in override_pairs(overrides):
        if key == "MODEL.META_ARCHITECTURE":
            name = value
    hint = "" if name in META_ARCHITECTURES else nearest(str(name), META_ARCHITECTURES)
    if hint:
        raise UserError(f"MODEL.META_ARCHITECTURE is {name!r}, neither a detector nor a segmenter{hint}")
    return name in META_ARCHITECTURES


def _add_models(cfg: CfgNode) -> None:
    """Add the keys of the models to a Detectron2 configuration, in place."""
    _add_mask_former(cfg)
    _add_clip_adapter(cfg)
    _add_generator(cfg)
    cfg.MODEL.RESNETS.STEM_TYPE = "basic"  # basic or deeplab, of build_resnet_deeplab_backbone
    cfg.MODEL.RESNETS.RES4_DILATION = 1
    cfg.MODEL.RESNETS.RES5_MULTI_GRID = [1, 2, 4]
    # own; the classes to segment: a vocabulary's name, a file of names, or names joined by commas. Empty takes the
    # classes of each data set.
    cfg.MODEL.VOCABULARY = ""
    # An evaluation names the true regions, see pomp_seg.oracle_regions; a prompt tuning does so anyway.
    cfg.ORACLE = False
    cfg.PSEUDO = False  # with the next five see UNBUILT
    cfg.PSEUDO_WITH_PRIOR = True
    cfg.PSEUDO_REJECT_THRESHOLD = 0.0
    cfg.PSEUDO_FLAG_NAME = "trainable_flag"
    cfg.WANDB = CfgNode()
    cfg.WANDB.PROJECT = "zero_shot_seg"
    cfg.WANDB.NAME = None


def _add_mask_former(cfg: CfgNode) -> None:
    node = cfg.MODEL.MASK_FORMER = CfgNode()
    node.DEEP_SUPERVISION = True  # losses after every decoder layer
    node.NO_OBJECT_WEIGHT = 0.1
    node.DICE_WEIGHT = 1.0
    node.MASK_WEIGHT = 20.0
    node.NHEADS = 8
    node.DROPOUT = 0.1
    node.DIM_FEEDFORWARD = 2048
    node.ENC_LAYERS = 0
    node.DEC_LAYERS = 6
    node.PRE_NORM = False
    node.HIDDEN_DIM = 256
    node.NUM_OBJECT_QUERIES = 100
    node.TRANSFORMER_IN_FEATURE = "res5"
    node.ENFORCE_INPUT_PROJ = False
    node.SIZE_DIVISIBILITY = 32
    node.TEST = CfgNode()
    node.TEST.PANOPTIC_ON = False  # with the next two see UNBUILT
    node.TEST.OBJECT_MASK_THRESHOLD = 0.0
    node.TEST.OVERLAP_THRESHOLD = 0.0
    # Resize masks before they are weighted by class scores. ZSSeg heeds it only with a closed list of classes.
    node.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False

    head = cfg.MODEL.SEM_SEG_HEAD
    head.MASK_DIM = 256
    head.TRANSFORMER_ENC_LAYERS = 0
    head.PIXEL_DECODER_NAME = "BasePixelDecoder"
    head.EMBEDDING_DIM = 512  # of the class embeddings: the width of the text features
    head.EMBED_HIDDEN_DIM = 1024
    head.EMBED_LAYERS = 2
    # own; ZeroShotPerPixelModel: names that pixels may show instead of the words, see pomp_seg.pixel_shares. What
    # MODEL.VOCABULARY takes, or package://PACKAGE/FILE; empty gives scores among the words alone
    head.BACKGROUND = ""
    # own; photos of users: pixels of no greater own share than this are "none of these"; 0.0 gives each pixel a word
    head.NONE_OF_THESE = 0.0


def _add_generator(cfg: CfgNode) -> None:
    node = cfg.MODEL.GENERATOR = CfgNode()  # own; of GeneratedFeatureModel, see pomp_seg.models.generated_features
    node.KIND = "zs3"  # or cagnet
    node.CLASSES = ""  # seen and unseen ones, as MODEL.VOCABULARY takes them; empty for those of the first test set
    node.EMBEDDINGS = ""  # a matrix with a row for each class; empty for CLIP's text features
    node.HIDDEN = 256
    node.PIXELS = 128  # of each seen class in a step, at most
    node.MOMENTS = 1.0  # weights of the losses; with cagnet 50 as published
    node.CONTEXT = 100.0
    node.ADVERSARIAL = 1.0
    node.SELF_TRAINING = 0.0  # share of the surest pixels of an unseen class that become pseudo labels; 0 for none
    node.SELF_TRAINING_FROM = 0  # iteration


def _add_clip_adapter(cfg: CfgNode) -> None:
    node = cfg.MODEL.CLIP_ADAPTER = CfgNode()
    _add_prompt(node, "imagenet")
    node.MASK_FILL = "mean"  # what the mask leaves out of a crop: mean or zero
    node.MASK_EXPAND_RATIO = 1.0
    node.MASK_THR = 0.5  # above it a pixel belongs to the region
    node.MASK_MATTING = False
    node.REGION_RESIZED = True
    node.CLIP_ENSEMBLE = True
    node.CLIP_ENSEMBLE_WEIGHT = 0.8
    # own; how ZeroShotMaskFormer combines its own scores with CLIP's: zsseg (by CLIP_ENSEMBLE_WEIGHT) or zegformer, see
    # pomp_seg.ensemble
    node.ENSEMBLE = "zsseg"
    node.ZEGFORMER_LAMBDA = 2 / 3  # own; that of ZegFormer's mask_former_model.py (lambda_balance)
    node.ZEGFORMER_GAMMA = 0.1  # own; that of ZegFormer's files (GZERO_CALIBRATE)
    # own; crops (each distinct region cropped and encoded, in batches), one_by_one (its plain reference) or
    # single_pass (CLIP's features of the whole image, pooled under each mask)
    node.REGION_FEATURES = "crops"
    node.REGION_BATCH = 0  # own; crops that CLIP is given at once; 0: 32
    node.SINGLE_PASS_FIRST_BLOCK = -3  # own; block of a vision transformer from which on regions are pooled
    node.SEPERATE_ADAPTER = False  # (sic) another prompt or CLIP for the regions
    node.REGION_CLIP_ADAPTER = CfgNode()
    _add_prompt(node.REGION_CLIP_ADAPTER, "predefined")


def _add_prompt(node: CfgNode, learner: str) -> None:
    node.PROMPT_LEARNER = learner  # predefined, imagenet, vild, learnable, pomp or pomp_tuned
    node.PREDEFINED_PROMPT_TEMPLATES = ["a sculpture of a {}."]
    node.PROMPT_DIM = 512  # width of the text tower
    node.PROMPT_SHAPE = (16, 0)  # learned vectors before and behind the class name
    node.PROMPT_CHECKPOINT = ""
    node.PROMPT_LAYOUT = "separate"  # own; separate or joined, see pomp_seg.prompts.prompt_learner
    node.CLIP_MODEL_NAME = "ViT-B/16"  # OpenAI's name, or an open_clip architecture, mini, openai
    node.CLIP_PRETRAINED = ""  # own; a tag or a file; empty: OpenAI's weights (mini has its own)


def _add_solver(cfg: CfgNode) -> None:
    """Add the keys of training and testing, and set the defaults that the published projects change, in place."""
    node = cfg.SOLVER
    node.OPTIMIZER = "ADAMW"  # or SGD
    node.BACKBONE_MULTIPLIER = 0.1
    node.WEIGHT_DECAY_EMBED = 0.0
    node.POLY_LR_POWER = 0.9
    node.POLY_LR_CONSTANT_ENDING = 0.0
    # own; what mIoU divides by: ground_truth (classes with ground truth, Detectron2 since 2022) or union (classes with
    # ground truth or predictions, as ZSSeg and POMP), see pomp_seg.evaluation.metrics
    cfg.TEST.MIOU_DENOMINATOR = "ground_truth"
    # own; your data sets: [name, folder of label images, folder of photos, vocabulary], and behind it, where training
    # sees only some classes, a file of their names
    cfg.DATASETS.FILES = []
    node.TEST_IMS_PER_BATCH = 1  # photos or regions of a batch of an evaluation, for each process
    # Several views of a photo in a test, with Detectron2's TEST.AUG, see pomp_seg.views
    cfg.TEST.SLIDING_WINDOW = False
    cfg.TEST.SLIDING_TILE_SIZE = 224  # pixels; 0 goes by the shorter side of the resized photo
    cfg.TEST.SLIDING_OVERLAP = 2 / 3.0  # share of a window
    cfg.TEST.DENSE_CRF = False


def _add_data(cfg: CfgNode) -> None:
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
