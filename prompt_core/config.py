"""Configuration of prompt learning: every key with its default, YAML files with ``_BASE_``, strict overrides.

Defaults are the published settings of POMP (``scripts/pomp/main.sh`` and ``configs/trainers/POMP``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from prompt_core.errors import UserError, nearest


def default_config() -> CfgNode:
    """A fresh configuration with every key."""
    cfg = CfgNode()
    cfg.SEED = 42
    cfg.DEVICE = "auto"  # auto, cpu, cuda, cuda:0
    cfg.OUTPUT = ""  # usually given as --output

    cfg.MODEL = CfgNode()
    cfg.MODEL.NAME = "ViT-B-16-quickgelu"  # an open_clip architecture, mini, openai, or a JSON configuration
    cfg.MODEL.PRETRAINED = ""  # a tag or a file; empty for mini

    cfg.DATA = CfgNode()
    cfg.DATA.TRAIN = ""  # KIND:PATH or a path whose layout is recognised (prompt_core.data.sources)
    cfg.DATA.SPLIT = "train"
    cfg.DATA.SHOTS = 16  # images per class; -1 for all
    cfg.DATA.CLASSES = ""  # of these alone: base or new (halves by label), or a file with one class id or name a line
    cfg.DATA.VOCABULARY = ""  # names that negatives are drawn from; empty for the training classes
    cfg.DATA.CACHE = "runs/cache"  # where image features are kept
    cfg.DATA.WORKERS = -1  # decoding threads; -1 for one per core
    cfg.DATA.ENCODE_BATCH = 32  # on CPUs small batches stay in the cache; raise it on a GPU

    cfg.AUGMENT = CfgNode()
    cfg.AUGMENT.STORED_VIEWS = 8  # augmented views of each image in the cache; 0 for the test transform
    cfg.AUGMENT.VIEWS = 4  # views of each image in a step, of the stored ones
    cfg.AUGMENT.RAND_AUGMENT = True
    cfg.AUGMENT.SCALE = (0.08, 1.0)

    cfg.METHOD = _methods()

    cfg.PROMPT = CfgNode()  # of coop, pomp, cocoop and lasp
    cfg.PROMPT.N_CTX = 16
    cfg.PROMPT.INIT = ""  # words to start from; then N_CTX is their number
    cfg.PROMPT.POSITION = "end"
    cfg.PROMPT.CLASS_SPECIFIC = False

    cfg.LOSS = CfgNode()
    cfg.LOSS.NUM_CLASSES = 1000  # K: the image's own class and K - 1 sampled ones; 0 for the full softmax
    cfg.LOSS.CORRECTION = "log10"  # log10 (published code), ln, a number, or none
    cfg.LOSS.REJECT = "name"  # name: classes that share the image's class name; id: the image's own class only
    cfg.LOSS.SAMPLER = "uniform"  # uniform, frequency, hard
    cfg.LOSS.HARD_REFRESH = 50  # steps between two encodings of all classes for the hard sampler
    cfg.LOSS.CHUNK = 0  # classes per pass, to bound memory; 0 for all at once

    cfg.OPTIM = CfgNode()
    cfg.OPTIM.LR = 0.002
    cfg.OPTIM.MOMENTUM = 0.9
    cfg.OPTIM.WEIGHT_DECAY = 5e-4
    cfg.OPTIM.EPOCHS = 20
    cfg.OPTIM.WARMUP_EPOCHS = 1
    cfg.OPTIM.WARMUP_LR = 1e-5
    cfg.OPTIM.BATCH = 32  # images, before views
    cfg.OPTIM.CLIP_GRAD_NORM = 0.0  # largest norm of the gradient; 0 for no bound

    cfg.SELECT = CfgNode()
    # Which epoch is kept: last, or the best on images that are not learned on: held_out (of the training split), val.
    cfg.SELECT.ON = "last"
    cfg.SELECT.SHOTS = 4  # images of each class that choose; -1 for all
    cfg.SELECT_ON_TEST = False  # the published habit: the best epoch on EVAL.SPLIT itself; numbers are labelled

    cfg.LOG = CfgNode()
    cfg.LOG.TENSORBOARD = True
    cfg.LOG.CHECKPOINT_MINUTES = 10.0

    cfg.EVAL = CfgNode()
    cfg.EVAL.DATASETS = ()  # image sources to score
    cfg.EVAL.SPLIT = "val"
    cfg.EVAL.CLASSES = "all"  # all, base, new (halves by label, each among its own classes), or base,new for both
    cfg.EVAL.VOCABULARY = ""  # candidates; empty for each data set's own classes
    cfg.EVAL.NAMESAKES = "merged"  # merged: classes of one name count as one; separate: as published
    return cfg


def _methods() -> CfgNode:
    """What is learned (:mod:`prompt_core.methods`); the loss is ``LOSS``, whichever method it is."""
    node = CfgNode()
    # zero_shot, ensemble, coop, pomp, cocoop, maple, vpt, lasp, linear_probe, logistic_regression
    node.NAME = "pomp"

    node.ZERO_SHOT = CfgNode()
    node.ZERO_SHOT.TEMPLATE = "a photo of a {}."  # data_set for each data set's own
    node.ENSEMBLE = CfgNode()
    node.ENSEMBLE.TEMPLATES = "selected_own"  # selected (7), selected_own (and the data set's own), imagenet (80)

    node.COCOOP = CfgNode()
    node.COCOOP.REDUCTION = 16  # how much narrower the meta-net's hidden layer is than image features

    node.MAPLE = CfgNode()
    node.MAPLE.N_CTX = 2  # how many of the words are learned
    node.MAPLE.WORDS = "a photo of a"
    node.MAPLE.DEPTH = 3  # blocks with prompts; 0 for all

    node.VPT = CfgNode()
    node.VPT.TOKENS = 8
    node.VPT.DEPTH = 0  # blocks with tokens: 0 for all (deep), 1 for the first alone (shallow)
    node.VPT.TEMPLATE = "a photo of a {}."

    node.LASP = CfgNode()
    node.LASP.TEXT_WEIGHT = 5.0  # of the text-to-text loss
    node.LASP.TEMPLATES = 35  # how many of CLIP's 80
    node.LASP.NOISE = 0.05  # standard deviation on the templates' features
    node.LASP.NOISE_PROBABILITY = 0.5
    node.LASP.NORM_RATE = 0.1  # learning rate of the vision tower's layer norms, as a share of OPTIM.LR

    node.LOGISTIC_REGRESSION = CfgNode()
    node.LOGISTIC_REGRESSION.VAL_SPLIT = "val"  # where C is chosen, on up to 4 images of each class
    node.LOGISTIC_REGRESSION.ITERATIONS = 1000
    node.LOGISTIC_REGRESSION.HALVINGS = 8  # steps of the binary search
    return node


def load_config(file: str | Path | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """Defaults, then ``file``, then ``KEY VALUE`` (or ``KEY=VALUE``) overrides; frozen.

    Raises:
        UserError: an unknown key (with the nearest), a value of another type, an absent or malformed file.
    """
    cfg = default_config()
    if file is not None:
        if not Path(file).is_file():
            raise UserError(f"configuration {file} does not exist")
        try:
            settings = CfgNode.load_yaml_with_base(str(file))
        except Exception as error:  # YAML's and yacs's own exceptions, and missing _BASE_ files
            raise UserError(f"configuration {file} cannot be read: {error}") from error
        for key, value in flatten(dict(settings)):
            _set(cfg, key, value, str(file))
    for key, text in _pairs(overrides):
        _set(cfg, key, CfgNode._decode_cfg_value(text), "the command line")
    cfg.freeze()
    return cfg


def correction_of(cfg: CfgNode) -> str | float | None:
    """``LOSS.CORRECTION`` as :func:`prompt_core.losses.local_contrast_logits` takes it."""
    text = cfg.LOSS.CORRECTION
    if text in ("log10", "ln"):
        return str(text)
    if text.lower() in ("none", ""):
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"LOSS.CORRECTION is {text!r}; expected log10, ln, a number or none") from error


def one_of(cfg: CfgNode, key: str, allowed: Sequence[str]) -> str:
    """The value of ``key``, which must be one of ``allowed``."""
    value: Any = cfg
    for part in key.split("."):
        value = value[part]
    if value not in allowed:
        raise UserError(f"{key} is {value!r}; expected one of {', '.join(allowed)}")
    return str(value)


def _pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    pairs, rest = [], list(overrides)
    while rest:
        first = rest.pop(0)
        if "=" in first and not first.startswith("="):
            key, _, value = first.partition("=")
        elif rest:
            key, value = first, rest.pop(0)
        else:
            raise UserError(f"override {first!r} has no value; overrides are KEY VALUE pairs")
        pairs.append((key, value))
    return pairs


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted key and value of each leaf of a nested configuration, in order."""
    flat: list[tuple[str, Any]] = []
    for key, value in settings.items():
        nested = isinstance(value, dict)
        flat.extend(flatten(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)])
    return flat


def _set(cfg: CfgNode, key: str, value: Any, origin: str) -> None:
    known = dict(flatten(dict(cfg)))
    if key not in known:
        raise UserError(f"unknown key {key!r} in {origin}{nearest(key, known)}")
    node = cfg
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = _coerce(key, value, known[key], origin)


def _coerce(key: str, value: Any, default: Any, origin: str) -> Any:
    """YAML writes 1 for a float and 1.5 for a text; more than that is a mistake."""
    if isinstance(default, str) and (value is None or isinstance(value, (int, float))) and not isinstance(value, bool):
        return "" if value is None else str(value)
    if isinstance(default, float) and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-5 as a text
        except ValueError:
            pass
    if isinstance(default, tuple) and isinstance(value, (list, tuple, str)):
        # YAML has no tuples: "(0.5, 1.0)" arrives as a text, and so does "a,b" from the command line.
        decoded = CfgNode._decode_cfg_value(value) if isinstance(value, str) else value
        values = tuple(decoded.split(",") if isinstance(decoded, str) else decoded)
        if default and (len(values) != len(default) or any(not isinstance(each, (int, float)) for each in values)):
            raise UserError(f"{key} is {value!r} in {origin}; {len(default)} numbers are expected, as {default!r}")
        return values
    if type(value) is not type(default):
        raise UserError(f"{key} is {value!r} in {origin}; a {type(default).__name__} is expected, as {default!r}")
    return value
