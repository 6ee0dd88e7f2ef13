"""The table of keys: what each setting of a trainer on Dassl says in this toolkit's configuration.

Keys and defaults: ``dassl/config/defaults.py`` of ``KaiyangZhou/Dassl.pytorch`` at c61a1b5, and ``extend_cfg`` in the
``train.py`` of ``KaiyangZhou/CoOp``, ``muzairkhattak/multimodal-prompt-learning``, ``muzairkhattak/PromptSRC`` and
``amazon-science/prompt-pretraining``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# From a value to settings of this toolkit.
Rule = Callable[[Any], dict[str, Any]]

PHOTO = "a photo of a"
# MODEL.BACKBONE.NAME: open_clip's name for OpenAI's weights, side of the images in pixels.
BACKBONES = {
    "RN50": ("RN50-quickgelu", 224),
    "RN101": ("RN101-quickgelu", 224),
    "RN50x4": ("RN50x4-quickgelu", 288),
    "RN50x16": ("RN50x16-quickgelu", 384),
    "RN50x64": ("RN50x64-quickgelu", 448),
    "ViT-B/32": ("ViT-B-32-quickgelu", 224),
    "ViT-B/16": ("ViT-B-16-quickgelu", 224),
    "ViT-L/14": ("ViT-L-14-quickgelu", 224),
    "ViT-L/14@336px": ("ViT-L-14-336-quickgelu", 336),
}
_TRANSFORMS = {"random_resized_crop", "random_flip", "normalize"}
_PARTS = {"all": ("", "all"), "base": ("base", "base"), "new": ("novel", "novel")}


class NotHere(Exception):
    """A value that cannot be honoured; the text says what is done or expected instead."""


class NoEffect(Exception):
    """A setting that is read and not followed: no number depends on it, or the text says how it is done."""


def to(key: str) -> Rule:
    """The same value under another key."""
    return lambda value: {key: value}


def only(*allowed: Any, instead: str) -> Rule:
    """Values that say what is done anyway."""

    def check(value: Any) -> dict[str, Any]:
        if value not in allowed:
            raise NotHere(instead)
        return {}

    return check


def no_effect(text: str = "") -> Rule:
    """A setting that no number depends on."""

    def tell(value: Any) -> dict[str, Any]:
        raise NoEffect(text)

    return tell


def _seed(value: int) -> dict[str, Any]:
    if value < 0:
        raise NoEffect("every run is seeded, by SEED")
    return {"SEED": value}


def _precision(value: str) -> dict[str, Any]:
    if value != "fp32":
        raise NoEffect(f"{value} is computed in single precision")
    return {}


def _near(expected: tuple[float, ...]) -> Rule:
    def check(value: Any) -> dict[str, Any]:
        if len(value) != 3 or any(abs(given - own) > 1e-4 for given, own in zip(value, expected, strict=True)):
            raise NotHere(f"images are normalised as the model's own were, for OpenAI's by {expected}")
        return {}

    return check


def _backbone(value: str) -> dict[str, Any]:
    if value not in BACKBONES:
        raise NotHere(f"expected one of {', '.join(BACKBONES)}; give others as MODEL.NAME and MODEL.PRETRAINED")
    return {"MODEL.NAME": BACKBONES[value][0], "MODEL.PRETRAINED": "openai"}


def _transforms(value: Any) -> dict[str, Any]:
    if {*value} - {"randaugment2"} != _TRANSFORMS:
        raise NotHere(f"expected {', '.join(sorted(_TRANSFORMS))}, with or without randaugment2")
    return {"AUGMENT.RAND_AUGMENT": "randaugment2" in value}


def _classes(value: str) -> dict[str, Any]:
    if value not in _PARTS:
        raise NotHere(f"expected one of {', '.join(_PARTS)}")
    return {"DATA.CLASSES": _PARTS[value][0], "EVAL.CLASSES": _PARTS[value][1]}


def _shots(value: int) -> dict[str, Any]:
    # As many validation images of each class choose the epoch, four at most.
    return {"DATA.SHOTS": value if value > 0 else -1, "SELECT.SHOTS": min(value, 4) if value > 0 else -1}


def _depth(key: str) -> Rule:
    def check(value: int) -> dict[str, Any]:
        if value < 1:
            raise NotHere("expected at least 1")
        return {key: value}

    return check


def _together(value: Any) -> dict[str, Any]:
    """Translated with another setting, in :func:`prompt_core.dassl.settings.translate`."""
    return {}


_SGD = "the optimiser is SGD with momentum and weight decay"
_SOURCE = "learning is on one source of labelled images"

KEYS: dict[str, Rule] = {
    "VERSION": no_effect(),
    "VERBOSE": no_effect(),
    "OUTPUT_DIR": to("OUTPUT"),
    "RESUME": only("", instead="give the folder as --output, with --resume"),
    "SEED": _seed,
    "USE_CUDA": lambda value: {} if value else {"DEVICE": "cpu"},
    "INPUT.SIZE": _together,
    "INPUT.INTERPOLATION": only("bicubic", instead="images are resized by bicubic interpolation"),
    "INPUT.TRANSFORMS": _transforms,
    "INPUT.NO_TRANSFORM": only(False, instead="AUGMENT.STORED_VIEWS 0 takes the model's own transform alone"),
    "INPUT.PIXEL_MEAN": _near((0.48145466, 0.4578275, 0.40821073)),
    "INPUT.PIXEL_STD": _near((0.26862954, 0.26130258, 0.27577711)),
    "INPUT.RRCROP_SCALE": to("AUGMENT.SCALE"),
    "DATASET.ROOT": _together,
    "DATASET.NAME": _together,
    "DATASET.NUM_SHOTS": _shots,
    "DATASET.SUBSAMPLE_CLASSES": _classes,
    "DATASET.SOURCE_DOMAINS": only((), [], instead=_SOURCE),
    "DATASET.TARGET_DOMAINS": only((), [], instead=_SOURCE),
    "DATALOADER.NUM_WORKERS": to("DATA.WORKERS"),
    "DATALOADER.K_TRANSFORMS": to("AUGMENT.VIEWS"),
    "DATALOADER.RETURN_IMG0": only(False, instead="no method takes the image without augmentation as well"),
    "DATALOADER.TRAIN_X.SAMPLER": only(
        "RandomSampler", "DistributedSampler", instead="images are drawn at random, each once an epoch"
    ),
    "DATALOADER.TRAIN_X.BATCH_SIZE": to("OPTIM.BATCH"),
    "DATALOADER.TEST.SAMPLER": no_effect(),
    "DATALOADER.TEST.BATCH_SIZE": no_effect(),
    "MODEL.INIT_WEIGHTS": only("", instead="learning starts from random vectors or from words"),
    "MODEL.BACKBONE.NAME": _backbone,
    "MODEL.BACKBONE.PRETRAINED": only(True, instead="MODEL.PRETRAINED '' takes random weights"),
    "MODEL.HEAD.NAME": only("", instead="no method has such a head"),
    "OPTIM.NAME": only("sgd", instead=_SGD),
    "OPTIM.LR": to("OPTIM.LR"),
    "OPTIM.MOMENTUM": to("OPTIM.MOMENTUM"),
    "OPTIM.WEIGHT_DECAY": to("OPTIM.WEIGHT_DECAY"),
    "OPTIM.SGD_DAMPNING": only(0, instead=_SGD),
    "OPTIM.SGD_NESTEROV": only(False, instead=_SGD),
    "OPTIM.STAGED_LR": only(False, instead="a method says itself which of its parts learn at another rate"),
    "OPTIM.LR_SCHEDULER": only("cosine", instead="the rate follows a cosine, set once an epoch"),
    "OPTIM.MAX_EPOCH": to("OPTIM.EPOCHS"),
    "OPTIM.WARMUP_EPOCH": lambda value: {"OPTIM.WARMUP_EPOCHS": max(0, value)},
    "OPTIM.WARMUP_TYPE": only("constant", instead="the rate of the warm-up is constant"),
    "OPTIM.WARMUP_CONS_LR": to("OPTIM.WARMUP_LR"),
    "OPTIM.WARMUP_RECOUNT": only(True, instead="the cosine begins after the warm-up"),
    "TRAIN.CHECKPOINT_FREQ": no_effect(),
    "TRAIN.PRINT_FREQ": no_effect(),
    "TRAIN.COUNT_ITER": only("train_x", instead=_SOURCE),
    "TEST.EVALUATOR": only("Classification", instead="photos are scored by their class"),
    "TEST.PER_CLASS_RESULT": no_effect("always written"),
    "TEST.COMPUTE_CMAT": only(False, instead="no confusion matrix is written"),
    "TEST.NO_TEST": _together,
    "TEST.SPLIT": to("EVAL.SPLIT"),
    "TEST.FINAL_MODEL": only("last_step", "best_val", instead="expected last_step or best_val"),
    "TRAINER.NAME": _together,
}


@dataclass(frozen=True)
class Trainer:
    """A trainer.

    Attributes:
        method: ``METHOD.NAME``.
        section: its part of ``TRAINER``.
        keys: the settings in it, in the order in which they apply.
        defaults: of those settings, where they are not this toolkit's.
        always: settings that it implies.
    """

    method: str
    section: str = ""
    keys: Mapping[str, Rule] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    always: Mapping[str, Any] = field(default_factory=dict)


_SOFT: dict[str, Rule] = {"N_CTX": to("PROMPT.N_CTX"), "CTX_INIT": to("PROMPT.INIT"), "PREC": _precision}
_COOP = {**_SOFT, "CSC": to("PROMPT.CLASS_SPECIFIC"), "CLASS_TOKEN_POSITION": to("PROMPT.POSITION")}
_MAPLE = {
    "N_CTX": to("METHOD.MAPLE.N_CTX"),
    "CTX_INIT": to("METHOD.MAPLE.WORDS"),
    "PROMPT_DEPTH": _depth("METHOD.MAPLE.DEPTH"),
    "PREC": _precision,
}
_VPT = {
    "N_CTX_VISION": to("METHOD.VPT.TOKENS"),
    "PROMPT_DEPTH_VISION": _depth("METHOD.VPT.DEPTH"),
    "CTX_INIT": only(PHOTO, instead=f"the published trainer takes {PHOTO!r}, whatever is given"),
    "PREC": _precision,
}
_IVLP = {
    "N_CTX_TEXT": to("METHOD.IVLP.N_CTX"),
    "CTX_INIT": to("METHOD.IVLP.WORDS"),
    "PROMPT_DEPTH_TEXT": _depth("METHOD.IVLP.DEPTH"),
    "N_CTX_VISION": to("METHOD.IVLP.TOKENS"),
    "PROMPT_DEPTH_VISION": lambda value: {"METHOD.IVLP.VISION_DEPTH": value} if value else {"METHOD.IVLP.TOKENS": 0},
    "PREC": _precision,
}
_LOSSES = ("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT", "GPA_MEAN", "GPA_STD")
_POMP = {
    **_COOP,
    "UPDATE_CLASS_NUM": to("LOSS.NUM_CLASSES"),
    "EPT": lambda value: {} if value else {"LOSS.NUM_CLASSES": 0},
    "LOCAL_CORRECTION": lambda value: {"LOSS.CORRECTION": "log10" if value else "none"},
    "NEG_SAMPLING_MODE": only(
        "random", instead="the published trainer's other modes read a memory that it never fills"
    ),
}
_IVLP_STARTS = {"N_CTX_TEXT": 2, "CTX_INIT": PHOTO, "N_CTX_VISION": 2, "PROMPT_DEPTH_TEXT": 9, "PROMPT_DEPTH_VISION": 9}
_FULL = {"LOSS.NUM_CLASSES": 0}

TRAINERS = {
    "CoOp": Trainer("coop", "COOP", _COOP, {"N_CTX": 16}, _FULL),
    "CoCoOp": Trainer("cocoop", "COCOOP", _SOFT, {"N_CTX": 16}, _FULL),
    "MaPLe": Trainer("maple", "MAPLE", _MAPLE, {"N_CTX": 2, "CTX_INIT": PHOTO, "PROMPT_DEPTH": 9}, _FULL),
    "VPT": Trainer("vpt", "VPT", _VPT, {"N_CTX_VISION": 2, "PROMPT_DEPTH_VISION": 1}, _FULL),
    "IVLP": Trainer("ivlp", "IVLP", _IVLP, _IVLP_STARTS, _FULL),
    # What it learns can be scored; its losses are not here, so that METHOD.NAME is refused where something is learned.
    "PromptSRC": Trainer("promptsrc", "PROMPTSRC", {**_IVLP, **{key: no_effect() for key in _LOSSES}}, _IVLP_STARTS),
    "POMP": Trainer(
        "pomp", "POMP", _POMP, {"N_CTX": 4, "UPDATE_CLASS_NUM": 128, "EPT": False}, {"LOSS.DRAWS": "per_group"}
    ),
    "MLP": Trainer("linear_probe", "MLP", {"PREC": _precision}, always=_FULL),
    "ZeroshotCLIP": Trainer("zero_shot", always={"METHOD.ZERO_SHOT.TEMPLATE": "data_set"}),
    "ZeroshotCLIP2": Trainer("ensemble", always={"METHOD.ENSEMBLE.TEMPLATES": "selected_own"}),
}
