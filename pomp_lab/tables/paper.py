"""The tables as published (arXiv 2304.04704): OpenAI's CLIP, ImageNet-21K and ImageNet, the catalogued data sets.

One seed, 42, as the released prompts. The slides do not say what CoOp and MaPLe of the ImageNet-21K table were learned
on; here it is ImageNet with their published settings, as in the transfer table, since their loss over all names of
ImageNet-21K did not fit into memory then. VPT and the linear probe learn on ImageNet-21K.
"""

from __future__ import annotations

from dataclasses import replace

from pomp_lab.report.comparable import ARCHITECTURES
from pomp_lab.tables.plan import Cost, Published, Row, Settings, Table
from prompt_core.data.catalog.lookup import CROSS_DATASET as TEN_SETS
from prompt_core.data.catalog.lookup import CROSS_DOMAIN as FOUR_DOMAINS

# Namesakes are classes of their own in the published evaluation.
AS_PUBLISHED: Settings = (("EVAL.NAMESAKES", "separate"),)


def backbone(name: str) -> Settings:
    """OpenAI's weights of an architecture, by its name in the published tables."""
    return (("MODEL.NAME", ARCHITECTURES[name]), ("MODEL.PRETRAINED", "openai"))


# Of all tables but ImageNet-21K's, which has three.
VIT_B16 = (*AS_PUBLISHED, *backbone("ViT-B/16"))
TRANSFER, LARGE, NUMBER, MARGIN = (
    "Cross-dataset and cross-domain transfer",
    "ImageNet-21K",
    "Number of classes K",
    "Margin m",
)
POMP_FILE = "imagenet21k_vitb16.yaml"
# MaPLe and VPT need a vision transformer.
_LARGE = (
    ("zero-shot CLIP", "methods/zero_shot.yaml", ""),
    ("prompt ensemble", "methods/ensemble.yaml", ""),
    ("CoOp", "methods/coop.yaml", "imagenet"),
    ("MaPLe", "methods/maple.yaml", "imagenet"),
    ("linear probe", "methods/linear_probe.yaml", "imagenet21k"),
    ("VPT", "methods/vpt.yaml", "imagenet21k"),
    ("POMP", POMP_FILE, "imagenet21k"),
)


def _large(model: str) -> tuple[Row, ...]:
    rows = []
    for name, config, train in _LARGE:
        if model == "RN50" and name in ("MaPLe", "VPT"):
            continue
        settings = (*AS_PUBLISHED, *backbone(model))
        rows.append(
            Row(f"{name}, {model}", config, train, settings=settings, published=(Published(LARGE, name, model),))
        )
    return tuple(rows)


IMAGENET21K = Table(
    "imagenet21k",
    "paper",
    "ImageNet-21K",
    "OpenAI's CLIP, 16 images of a class; top-1 over all images of the validation split. CoOp and MaPLe are learned on "
    "ImageNet (the slides do not say on what), VPT, the linear probe and POMP on ImageNet-21K.",
    tuple(row for model in ARCHITECTURES for row in _large(model)),
    ("imagenet21k",),
    published=(LARGE,),
)


def _transfer(name: str, config: str, train: str) -> Row:
    known = name not in ("zero-shot CLIP", "prompt ensemble")
    return Row(name, config, train, settings=VIT_B16, published=(Published(TRANSFER, name),) if known else ())


_TRANSFER_ROWS = (
    _transfer("zero-shot CLIP", "methods/zero_shot.yaml", ""),
    _transfer("prompt ensemble", "methods/ensemble.yaml", ""),
    _transfer("CoOp", "methods/coop.yaml", "imagenet"),
    _transfer("CoCoOp", "methods/cocoop.yaml", "imagenet"),
    _transfer("LASP", "methods/lasp.yaml", "imagenet"),
    _transfer("VPT", "methods/vpt.yaml", "imagenet"),
    _transfer("MaPLe", "methods/maple.yaml", "imagenet"),
    _transfer("POMP", POMP_FILE, "imagenet21k"),
)
_LEARNED = "ViT-B/16; POMP is learned on ImageNet-21K, the others on ImageNet"

CROSS_DATASET = Table(
    "cross_dataset",
    "paper",
    "Ten other data sets",
    f"{_LEARNED}. Hand prompts are each data set's own, learned prompts the same for all.",
    _TRANSFER_ROWS,
    TEN_SETS,
    published=(TRANSFER,),
)

CROSS_DOMAIN = Table(
    "cross_domain",
    "paper",
    "Four other domains of ImageNet",
    f"{_LEARNED}.",
    _TRANSFER_ROWS,
    FOUR_DOMAINS,
    published=(TRANSFER,),
)

COST = Table(
    "cost",
    "paper",
    "Cost of a training step",
    "ViT-B/16 with random weights, the 1,000 names of ImageNet. The published numbers are of runs of 50 epochs on "
    "GPUs in half precision, with the image tower; these are of one step on cached features, in single precision.",
    (),
    published=("Cost of tuning on ImageNet-1K",),
    cost=Cost("ViT-B-16-quickgelu", "imagenet1k", (128, 256, 512)),
)


def _pomp(name: str, number: int, correction: str, published: Published | None) -> Row:
    settings = (*VIT_B16, ("LOSS.NUM_CLASSES", str(number)), ("LOSS.CORRECTION", correction))
    return Row(name, POMP_FILE, "imagenet21k", settings=settings, published=() if published is None else (published,))


ABLATION_K = Table(
    "ablation_k",
    "paper",
    "Number of classes K in a step",
    "ViT-B/16, learned on ImageNet-21K.",
    tuple(
        _pomp(name, number, correction, Published(NUMBER, name))
        for name, number, correction in (
            ("K = 100", 100, "log10"),
            ("K = 500", 500, "log10"),
            ("K = 1000", 1000, "log10"),
            ("K = 1000, no correction", 1000, "none"),
        )
    ),
    ("imagenet21k", *TEN_SETS, *FOUR_DOMAINS),
    published=(NUMBER,),
)

_MARGINS = (("none", "0"), ("0.5", "-0.5"), ("1.0", "-1"), ("1.5", "-1.5"), ("log10", ""), ("ln", ""))


def _margin(number: int, correction: str, column: str) -> Row:
    published = Published(MARGIN, f"K = {number}", column=f"Avg10, m = {column}", dataset="Avg10") if column else None
    shown = f"m = {column.removeprefix('-')}" if column else correction
    return _pomp(f"K = {number}, {shown}", number, correction, published)


ABLATION_MARGIN = Table(
    "ablation_margin",
    "paper",
    "Margin m on the logits of negatives",
    "ViT-B/16, learned on ImageNet-21K; m is added to the logits of negatives (published with the other sign).",
    tuple(_margin(number, *margin) for number in (319, 1000) for margin in _MARGINS),
    TEN_SETS,
    published=(MARGIN,),
)

ALIGN_UNIFORM = Table(
    "align_uniform",
    "paper",
    "Alignment and uniformity",
    "ViT-B/16 on ImageNet-21K. Alignment of images with their class, uniformity of the classes; lower is better. No "
    "such table is among the published numbers at hand.",
    tuple(
        replace(row, published=())
        for row in _large("ViT-B/16")
        if row.name.partition(",")[0] in ("zero-shot CLIP", "prompt ensemble", "CoOp", "POMP")
    ),
    ("imagenet21k",),
    metrics=("alignment", "uniformity"),
)

TABLES = (IMAGENET21K, CROSS_DATASET, CROSS_DOMAIN, COST, ABLATION_K, ABLATION_MARGIN, ALIGN_UNIFORM)
