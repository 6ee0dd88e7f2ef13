"""The tables at laptop scale: the embedded model, Tiny-ImageNet from base to novel classes, drawn shapes.

Images, model and protocols differ from the paper's, so the numbers cannot be compared with it, only the order of the
rows. Learning rates on Tiny-ImageNet were chosen on the half of the validation photos that is not reported; on shapes
CoCoOp uses the rate of the others.
"""

from __future__ import annotations

from dataclasses import replace

from pomp_lab.shapes.variants import VARIANTS
from pomp_lab.tables.plan import Cost, Row, Settings, Table

TINY, SHAPES = "mini_tiny_imagenet.yaml", "mini_shapes.yaml"
SEEDS = (0, 1, 2)
# A few minutes of a laptop's text tower.
MOST_TEXTS = 2_000_000
WORDS: Settings = (("PROMPT.N_CTX", "4"), ("PROMPT.INIT", "a photo of a"))
# 100 steps on Tiny-ImageNet: the full softmax over all names takes most of the time of these tables.
BATCH: dict[str, Settings] = {TINY: (("OPTIM.BATCH", "256"),), SHAPES: ()}


def hand_rows(config: str) -> tuple[Row, ...]:
    """Zero-shot CLIP and ensembles."""
    return (
        Row(
            "zero-shot CLIP",
            config,
            settings=(("METHOD.NAME", "zero_shot"), ("METHOD.ZERO_SHOT.TEMPLATE", "data_set")),
        ),
        Row(
            "prompt ensemble",
            config,
            settings=(("METHOD.NAME", "ensemble"), ("METHOD.ENSEMBLE.TEMPLATES", "selected_own")),
        ),
        Row("80 templates", config, settings=(("METHOD.NAME", "ensemble"), ("METHOD.ENSEMBLE.TEMPLATES", "imagenet"))),
    )


def _full(method: str) -> Settings:
    return (("METHOD.NAME", method), ("LOSS.NUM_CLASSES", "0"))


def pomp_row(name: str, config: str, train: str, number: int, correction: str) -> Row:
    """POMP over the wide vocabulary; 0 for the full softmax over it."""
    settings = (("METHOD.NAME", "pomp"), ("LOSS.NUM_CLASSES", str(number)), ("LOSS.CORRECTION", correction))
    return Row(name, config, train, True, settings, BATCH[config])


def own_class_rows(config: str, train: str) -> tuple[Row, ...]:
    """CoOp and CoCoOp, learned over the classes that have images."""
    return (
        Row("CoOp", config, train, settings=_full("coop"), budget=BATCH[config]),
        Row(
            "CoCoOp",
            config,
            train,
            settings=(*_full("cocoop"), *WORDS),
            budget=(("OPTIM.BATCH", "8"), ("OPTIM.EPOCHS", "2")),
        ),
    )


def vision_rows(config: str, train: str) -> tuple[Row, ...]:
    """Methods that learn inside the vision tower, which the embedded model does not support."""
    return (
        Row("LASP", config, train, settings=(*_full("lasp"), *WORDS)),
        Row("MaPLe", config, train, settings=_full("maple")),
        Row("VPT", config, train, settings=_full("vpt")),
    )


_PROBE = Row(
    "linear probe",
    TINY,
    "tiny_imagenet",
    settings=_full("linear_probe"),
    budget=(("OPTIM.LR", "0.2"), ("OPTIM.WARMUP_LR", "0.001"), ("OPTIM.EPOCHS", "20")),
)


def _tiny(name: str, number: int, correction: str = "log10") -> Row:
    return pomp_row(name, TINY, "tiny_imagenet", number, correction)


_POMP, _FULL = _tiny("POMP", 1000), _tiny("full softmax", 0, "none")
_LEARNED = "learned on 160 base classes of Tiny-ImageNet, 16 photos of each, and negatives from all 21,843 names"
_SCORED = (
    "scored on the half of the validation photos that nothing was tuned on, and on photos of the 1,000 ImageNet classes"
)
_OWN = "CoOp, CoCoOp and the linear probe learn over the base classes alone"
_TARGETS = ("tiny_imagenet_base_novel", "imagenet_samples")

IMAGENET21K = Table(
    "imagenet21k",
    "laptop",
    "Large vocabularies, from base to novel classes",
    f"Embedded model, {_LEARNED}; {_SCORED}. {_OWN}.",
    (
        *hand_rows(TINY),
        *own_class_rows(TINY, "tiny_imagenet"),
        *vision_rows(TINY, "tiny_imagenet"),
        _PROBE,
        _POMP,
        _FULL,
    ),
    _TARGETS,
    SEEDS,
    published=("ImageNet-21K",),
    most_texts=MOST_TEXTS,
)

CROSS_DATASET = Table(
    "cross_dataset",
    "laptop",
    "From Tiny-ImageNet to other data sets",
    f"Embedded model, {_LEARNED} (the runs of table imagenet21k); no photo of these sets is learned from. "
    "The 1,000 ImageNet classes include those of Tiny-ImageNet.",
    (
        *hand_rows(TINY),
        *own_class_rows(TINY, "tiny_imagenet"),
        *vision_rows(TINY, "tiny_imagenet"),
        _POMP,
        _FULL,
    ),
    ("imagenet_samples", "shapes_pictured"),
    SEEDS,
    published=("Cross-dataset and cross-domain transfer",),
    whatever_is_there=True,
    most_texts=MOST_TEXTS,
)

CROSS_DOMAIN = Table(
    "cross_domain",
    "laptop",
    "From plain shapes to other looks of them",
    "Embedded model, learned on plain drawn shapes of the base classes; POMP and the full softmax take negatives from "
    "all names. Scored on the same validation shapes in four other looks, among base and among novel classes.",
    (
        *hand_rows(SHAPES),
        *own_class_rows(SHAPES, "shapes"),
        *vision_rows(SHAPES, "shapes"),
        pomp_row("POMP", SHAPES, "shapes", 500, "log10"),
        pomp_row("full softmax", SHAPES, "shapes", 0, "none"),
    ),
    tuple("shapes_base_novel" if name == "plain" else f"shapes_{name}_base_novel" for name in VARIANTS),
    SEEDS,
    published=("Cross-dataset and cross-domain transfer",),
    most_texts=MOST_TEXTS,
)

COST = Table(
    "cost",
    "laptop",
    "Cost of a training step",
    "Embedded model, its towers alone; no images are read. A step is loss, gradient, update; memory is what it adds.",
    (),
    published=("Cost of tuning on ImageNet-1K",),
    cost=Cost("mini", "imagenet1k", (100, 500, 1000), wide="imagenet21k"),
)

ABLATION_K = Table(
    "ablation_k",
    "laptop",
    "Number of classes K in a step",
    f"Embedded model, {_LEARNED}; {_SCORED}.",
    (
        _tiny("K = 100", 100),
        _tiny("K = 500", 500),
        _tiny("K = 1000", 1000),
        _tiny("K = 1000, no correction", 1000, "none"),
        replace(_FULL, name="all classes"),
    ),
    _TARGETS,
    SEEDS,
    published=("Number of classes K",),
)

MARGINS = ("none", "0.5", "1.0", "1.5", "log10", "ln")


def margin_name(number: int, correction: str) -> str:
    """Names of rows of the margin table."""
    if correction in ("log10", "ln"):
        return f"K = {number}, {correction}"
    return f"K = {number}, m = {0.0 if correction == 'none' else float(correction):g}"


ABLATION_MARGIN = Table(
    "ablation_margin",
    "laptop",
    "Margin m on the logits of negatives",
    f"Embedded model, {_LEARNED}; {_SCORED}. m is added to the logits of negatives; log10 and ln follow from K and the "
    "number of names.",
    tuple(_tiny(margin_name(number, word), number, word) for number in (319, 1000) for word in MARGINS),
    _TARGETS,
    SEEDS,
    published=("Margin m",),
)

ALIGN_UNIFORM = Table(
    "align_uniform",
    "laptop",
    "Alignment and uniformity",
    f"Embedded model, {_LEARNED}; {_SCORED}. Alignment of images with their class, uniformity of the candidates; lower "
    "is better. Methods whose class features differ from image to image, or are no unit vectors, have neither.",
    tuple(row for row in IMAGENET21K.rows if row.name not in ("CoCoOp", "LASP", "MaPLe", "VPT", "linear probe")),
    _TARGETS,
    SEEDS,
    ("alignment", "uniformity"),
)

TABLES = (IMAGENET21K, CROSS_DATASET, CROSS_DOMAIN, COST, ABLATION_K, ABLATION_MARGIN, ALIGN_UNIFORM)
