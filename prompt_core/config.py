"""Configuration of prompt learning: every key with its default; and functions that all configurations share.

Defaults are the published settings of POMP (``scripts/pomp/main.sh`` and ``configs/trainers/POMP``). Detectors and
segmenters have other keys (:mod:`pomp_engine.config`), but the same strict merging of files and overrides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from prompt_core.dassl.settings import is_dassl, translate
from prompt_core.documents.setting_values import decode, of_type
from prompt_core.documents.yaml_with_bases import read_with_bases
from prompt_core.errors import UserError, nearest
from prompt_core.ranges import PROMPT_RANGES, check_ranges
from prompt_core.visible import shortened

# The section of a method of another package: any keys are accepted here, the method itself refuses unknown ones.
OPEN_SECTION = ["METHOD", "OPTIONS"]


def default_config() -> CfgNode:
    """A fresh configuration with every key."""
    cfg = CfgNode()
    cfg.SEED = 42
    cfg.DEVICE = "auto"  # auto, cpu, cuda, cuda:0
    cfg.OUTPUT = ""  # usually given as --output

    cfg.MODEL = CfgNode()
    cfg.MODEL.NAME = "ViT-B-16-quickgelu"  # an open_clip architecture, mini, openai, or a JSON configuration
    cfg.MODEL.PRETRAINED = ""  # a tag or a file; empty for mini
    cfg.MODEL.PRECISION = "float32"  # of the towers' products: float32 or bfloat16; all else stays float32

    cfg.DATA = CfgNode()
    cfg.DATA.TRAIN = ""  # KIND:PATH or a path whose layout is recognised (prompt_core.data.sources)
    cfg.DATA.SPLIT = "train"
    cfg.DATA.SHOTS = 16  # images per class; -1 for all
    cfg.DATA.CLASSES = ""  # only these: base or novel (halves by label), or a file with one class id or name per line
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
    # What is no negative of an image: id: its own class only; name: classes of that name; ancestors: also those above
    # it in WordNet; relatives: above and below it
    cfg.LOSS.REJECT = "name"
    cfg.LOSS.DRAWS = "batch"  # batch: one draw for all images of a step; per_group: one for each GROUP of them
    cfg.LOSS.GROUP = 32  # images, before views; the published batch of a GPU
    cfg.LOSS.SAMPLER = "uniform"  # uniform, frequency, hard
    cfg.LOSS.HARD_REFRESH = 50  # steps between two encodings of all classes for the hard sampler
    cfg.LOSS.CHUNK = 0  # classes per pass, to bound memory; 0 for all at once
    # Names outside the training classes are held at their untuned text (prompt_core.training.anchor).
    cfg.LOSS.ANCHOR = 0.0  # weight; 0 for off
    cfg.LOSS.ANCHOR_NAMES = 256  # drawn in each step
    cfg.LOSS.ANCHOR_VOCABULARY = "imagenet21k"  # what they are drawn from
    cfg.LOSS.ANCHOR_TEMPLATE = "a photo of a {}."  # their untuned text

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

    cfg.RANKS = CfgNode()  # of a job that torchrun started
    cfg.RANKS.TIMEOUT_MINUTES = 10.0  # how long a process waits for another one that does not answer

    cfg.EVAL = CfgNode()
    cfg.EVAL.DATASETS = ()  # image sources to score
    cfg.EVAL.SPLIT = "val"
    cfg.EVAL.CLASSES = "all"  # all, base, novel (halves by label, each among its own classes), or base,novel for both
    cfg.EVAL.VOCABULARY = ""  # candidates; empty for each data set's own classes
    cfg.EVAL.NAMESAKES = "merged"  # merged: classes of one name count as one; separate: as published
    return cfg


def _methods() -> CfgNode:
    """What is learned (:mod:`prompt_core.methods`); the loss is ``LOSS``, whichever method it is."""
    node = CfgNode()
    # zero_shot, ensemble, coop, pomp, cocoop, maple, ivlp, vpt, lasp, linear_probe, logistic_regression; or a method
    # of another package, package.module:Class, whose options are METHOD.OPTIONS.* (docs/add_a_method.md)
    node.NAME = "pomp"

    node.ZERO_SHOT = CfgNode()
    node.ZERO_SHOT.TEMPLATE = "a photo of a {}."  # data_set for each data set's own
    node.ENSEMBLE = CfgNode()
    node.ENSEMBLE.TEMPLATES = "selected_own"  # selected (7), selected_own (and the data set's own), imagenet (80)

    node.COCOOP = CfgNode()
    node.COCOOP.REDUCTION = 16  # how much narrower the meta-net's hidden layer is than image features

    node.MAPLE = CfgNode()
    node.MAPLE.N_CTX = 2  # how many of the words are learned
    node.MAPLE.WORDS = "a photo of a"  # before the name; empty for N_CTX random vectors instead
    node.MAPLE.DEPTH = 3  # blocks with prompts; 0 for all

    node.IVLP = CfgNode()
    node.IVLP.N_CTX = 2  # how many of the words are learned
    node.IVLP.WORDS = "a photo of a"
    node.IVLP.DEPTH = 9  # blocks of the text tower with tokens of their own; 0 for all
    node.IVLP.TOKENS = 2  # in the vision tower; 0 for none
    node.IVLP.VISION_DEPTH = 9

    node.VPT = CfgNode()
    node.VPT.TOKENS = 8
    node.VPT.DEPTH = 0  # blocks with tokens: 0 for all (deep), 1 for the first alone (shallow)
    node.VPT.TEMPLATE = "a photo of a {}."

    node.LASP = CfgNode()
    node.LASP.TEXT_WEIGHT = 5.0  # of the text-to-text loss
    node.LASP.TEMPLATES = 35  # its own; more are the others of CLIP's 80
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

    Args:
        file: with keys of :func:`default_config`, or of a trainer on Dassl (:mod:`prompt_core.dassl.settings`); then
            overrides may be of either.

    Raises:
        UserError: an unknown key (with the nearest), a value of another type or range, an absent or malformed file.
    """
    cfg = default_config()
    given = [] if file is None else flatten(read_settings(file, read_with_bases))
    more = [(key, decode(text)) for key, text in override_pairs(overrides)]
    if is_dassl(given):
        given, more = translate([(key, decode(value)) for key, value in given] + more, str(file)), []
    merge_settings(cfg, given, str(file))
    merge_settings(cfg, more, "the command line")
    check_ranges(cfg, PROMPT_RANGES)
    cfg.freeze()
    return cfg


def correction_of(cfg: CfgNode) -> str | float | None:
    """``LOSS.CORRECTION`` as :func:`prompt_core.losses.local_contrast_logits` takes it."""
    text = cfg.LOSS.CORRECTION
    if text in ("log10", "ln"):
        return str(text)
    if text.lower() in ("none", ""):
        return None
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise UserError(f"LOSS.CORRECTION is {shortened(text)}; expected log10, ln, a number or none")


def one_of(cfg: CfgNode, key: str, allowed: Sequence[str]) -> str:
    """The value of ``key``, which must be one of ``allowed``."""
    value: Any = cfg
    for part in key.split("."):
        value = value[part]
    if value not in allowed:
        raise UserError(f"{key} is {value!r}; expected one of {', '.join(allowed)}")
    return str(value)


def keyword_options(cfg: CfgNode, section: str, options: type, given: Collection[str] = ()) -> dict[str, Any]:
    """The settings of a section as keyword arguments of a dataclass, keys in lower case.

    Args:
        section: such as ``METHOD.MAPLE``; it may be absent.
        options: a dataclass; its defaults determine the expected types.
        given: fields that are set elsewhere.

    Raises:
        UserError: a key that is not a field (with the nearest), a value of another type, a field without a value.
    """
    node: Any = cfg
    for part in section.split("."):
        node = node.get(part, {})
    fields = {field.name.upper(): field for field in dataclasses.fields(options) if field.name not in given}
    chosen = {}
    for key, value in node.items():
        field = fields.get(key.upper())
        if field is None:
            known = [f"{section}.{name}" for name in fields]
            raise UserError(f"unknown key '{section}.{key}'{nearest(f'{section}.{key}', known)}")
        plain = isinstance(field.default, (bool, int, float, str, list, tuple))
        chosen[field.name] = of_type(f"{section}.{key}", value, field.default, "the settings") if plain else value
    for key, field in fields.items():
        without = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if without and field.name not in chosen:
            raise UserError(f"{section}.{key} has no value; give one")
    return chosen


def read_settings(file: str | Path, read: Callable[[str], Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of a YAML file with its ``_BASE_`` files, nested as they are written.

    Args:
        read: the function that reads such a file.

    Raises:
        UserError: when the file is absent or malformed.
    """
    if not Path(file).is_file():
        raise UserError(f"configuration {file} does not exist")
    try:
        return dict(read(str(file)))
    except Exception as error:  # YAML's and yacs's own exceptions, and missing _BASE_ files
        raise UserError(f"configuration {file} cannot be read: {error}") from error


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as pairs of a dotted key and a value, in their order.

    An empty mapping is kept as a value, so that a section without keys is named in an error.
    """
    flat: list[tuple[str, Any]] = []
    for key, value in settings.items():
        nested = isinstance(value, Mapping) and len(value) > 0
        flat.extend(flatten(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)])
    return flat


def override_pairs(overrides: Sequence[Any] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    """``KEY VALUE`` pairs in one flat sequence, ``KEY=VALUE`` texts, or a dictionary, as pairs of key and value.

    Raises:
        UserError: for a key without a value, or a single text.
    """
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    if isinstance(overrides, str):
        raise UserError(f"overrides are {overrides!r}; a sequence of KEY VALUE pairs is expected")
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


def merge_settings(cfg: CfgNode, settings: Iterable[tuple[str, Any]], origin: str) -> None:
    """Put settings into a configuration with every key, in place.

    Args:
        settings: pairs of a dotted key and a value.
        origin: where they come from, for messages.

    Raises:
        UserError: an unknown key (with the nearest), or a value of another type.
    """
    for key, value in settings:
        node: Any = cfg
        *parents, leaf = str(key).split(".")
        if parents == OPEN_SECTION and OPEN_SECTION[0] in cfg:
            cfg.METHOD.setdefault("OPTIONS", CfgNode())[leaf] = value
            continue
        for parent in parents:
            node = node.get(parent) if isinstance(node, CfgNode) else None
        if not isinstance(node, CfgNode) or leaf not in node:
            known = [name for name, _ in flatten(cfg)]
            raise UserError(f"unknown key {key!r} in {origin}{nearest(str(key), known)}")
        if isinstance(node[leaf], CfgNode):
            raise UserError(f"unknown key {key!r} in {origin}: it is a section, not a setting; name a key inside it")
        node[leaf] = of_type(key, value, node[leaf], origin)
