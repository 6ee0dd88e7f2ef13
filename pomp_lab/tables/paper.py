"""The tables as published (arXiv 2304.04704): OpenAI's CLIP, ImageNet-21K and ImageNet, the catalogued data sets.

One seed, 42, as the released prompts. The slides do not say what CoOp and MaPLe of the ImageNet-21K table were learned
on; here it is ImageNet with their published settings, as in the transfer table, since their loss over all names of
ImageNet-21K did not fit into memory then. VPT and the linear probe learn on ImageNet-21K.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pomp_lab.report.comparable import ARCHITECTURES
from pomp_lab.tables.plan import Cost, Published, Row, Settings, Table
from prompt_core.data.catalog.lookup import CROSS_DATASET as TEN_SETS
from prompt_core.data.catalog.lookup import CROSS_DOMAIN as FOUR_DOMAINS

_table = partial(Table, scale="paper")
TRANSFER, LARGE, NUMBER, MARGIN = (
    "Cross-dataset and cross-domain transfer",
    "ImageNet-21K",
    "Number of classes K",
    "Margin m",
)
POMP_FILE = "imagenet21k_vitb16.yaml"
# Row, its configuration, and what it is learned on where that is the same in all tables.
METHODS = {
    "zero-shot CLIP": ("methods/zero_shot.yaml", ""),
    "prompt ensemble": ("methods/ensemble.yaml", ""),
    "CoOp": ("methods/coop.yaml", "imagenet"),
    "CoCoOp": ("methods/cocoop.yaml", "imagenet"),
    "LASP": ("methods/lasp.yaml", "imagenet"),
    "VPT": ("methods/vpt.yaml", "imagenet"),
    "MaPLe": ("methods/maple.yaml", "imagenet"),
    "linear probe": ("methods/linear_probe.yaml", "imagenet21k"),
    "POMP": (POMP_FILE, "imagenet21k"),
}


def _settings(model: str) -> Settings:
    """OpenAI's weights of an architecture; namesakes are classes of their own in the published evaluation."""
    return (
        ("EVAL.NAMESAKES", "separate"),
        ("MODEL.NAME", ARCHITECTURES[model]),
        ("MODEL.PRETRAINED", "openai"),
    )


VIT_B16 = _settings("ViT-B/16")


def _large(name: str, model: str) -> Row:
    config, train = METHODS[name]
    train = "imagenet21k" if name == "VPT" else train
    published = (Published(LARGE, name, model),)
    return Row(f"{name}, {model}", config, train, settings=_settings(model), published=published)


IMAGENET21K = _table(
    "imagenet21k",
    title="ImageNet-21K",
    note="OpenAI's CLIP, 16 images of a class; top-1 over all images of the validation split. CoOp and MaPLe are "
    "learned on ImageNet (the slides do not say on what), VPT, the linear probe and POMP on ImageNet-21K.",
    rows=tuple(
        _large(name, model)
        for model in ARCHITECTURES
        for name in ("zero-shot CLIP", "prompt ensemble", "CoOp", "MaPLe", "linear probe", "VPT", "POMP")
        if not (model == "RN50" and name in ("MaPLe", "VPT"))  # which need a vision transformer
    ),
    targets=("imagenet21k",),
    published=(LARGE,),
)


def _transfer(name: str) -> Row:
    published = () if name in ("zero-shot CLIP", "prompt ensemble") else (Published(TRANSFER, name),)
    return Row(name, *METHODS[name], settings=VIT_B16, published=published)


_TRANSFER_ROWS = tuple(_transfer(name) for name in METHODS if name != "linear probe")
_LEARNED = "ViT-B/16; POMP is learned on ImageNet-21K, the others on ImageNet"

CROSS_DATASET = _table(
    "cross_dataset",
    title="Ten other data sets",
    note=f"{_LEARNED}. Hand prompts are each data set's own, learned prompts the same for all.",
    rows=_TRANSFER_ROWS,
    targets=TEN_SETS,
    published=(TRANSFER,),
)

CROSS_DOMAIN = _table(
    "cross_domain",
    title="Four other domains of ImageNet",
    note=f"{_LEARNED}.",
    rows=_TRANSFER_ROWS,
    targets=FOUR_DOMAINS,
    published=(TRANSFER,),
)

COST = _table(
    "cost",
    title="Cost of a training step",
    note="ViT-B/16 with random weights, the 1,000 names of ImageNet. The published numbers are of runs of 50 epochs "
    "on GPUs in half precision, with the image tower; these are of one step on cached features, in single precision.",
    rows=(),
    published=("Cost of tuning on ImageNet-1K",),
    cost=Cost("ViT-B-16-quickgelu", "imagenet1k", (128, 256, 512)),
)


def _pomp(name: str, number: int, correction: str, *published: Published) -> Row:
    settings = (*VIT_B16, ("LOSS.NUM_CLASSES", str(number)), ("LOSS.CORRECTION", correction))
    return Row(name, POMP_FILE, "imagenet21k", settings=settings, published=published)


ABLATION_K = _table(
    "ablation_k",
    title="Number of classes K in a step",
    note="ViT-B/16, learned on ImageNet-21K.",
    rows=tuple(
        _pomp(name, number, correction, Published(NUMBER, name))
        for name, number, correction in (
            ("K = 100", 100, "log10"),
            ("K = 500", 500, "log10"),
            ("K = 1000", 1000, "log10"),
            ("K = 1000, no correction", 1000, "none"),
        )
    ),
    targets=("imagenet21k", *TEN_SETS, *FOUR_DOMAINS),
    published=(NUMBER,),
)

# LOSS.CORRECTION of a margin, and its published name.
_MARGINS = {"none": "0", "0.5": "-0.5", "1.0": "-1", "1.5": "-1.5"}


def _margin(number: int, correction: str) -> Row:
    if correction not in _MARGINS:
        return _pomp(f"K = {number}, {correction}", number, correction)
    m = _MARGINS[correction]
    published = Published(MARGIN, f"K = {number}", column=f"Avg10, m = {m}", dataset="Avg10")
    return _pomp(f"K = {number}, m = {m.removeprefix('-')}", number, correction, published)


ABLATION_MARGIN = _table(
    "ablation_margin",
    title="Margin m on the logits of negatives",
    note="ViT-B/16, learned on ImageNet-21K; m is added to the logits of negatives (published with the other sign).",
    rows=tuple(_margin(number, correction) for number in (319, 1000) for correction in (*_MARGINS, "log10", "ln")),
    targets=TEN_SETS,
    published=(MARGIN,),
)

ALIGN_UNIFORM = _table(
    "align_uniform",
    title="Alignment and uniformity",
    note="ViT-B/16 on ImageNet-21K. Alignment of images with their class, uniformity of the classes; lower is better. "
    "No such table is among the published numbers at hand.",
    rows=tuple(
        replace(_large(name, "ViT-B/16"), published=())
        for name in ("zero-shot CLIP", "prompt ensemble", "CoOp", "POMP")
    ),
    targets=("imagenet21k",),
    metrics=("alignment", "uniformity"),
)

TABLES = (IMAGENET21K, CROSS_DATASET, CROSS_DOMAIN, COST, ABLATION_K, ABLATION_MARGIN, ALIGN_UNIFORM)
