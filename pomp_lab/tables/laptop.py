"""The tables at laptop scale: the embedded model, Tiny-ImageNet from base to novel classes, drawn shapes.

Images, model and protocols differ from the paper's, so the numbers cannot be compared with it, only the order of the
rows. Learning rates on Tiny-ImageNet were chosen on the half of the validation photos that is not reported; on shapes
CoCoOp uses the rate of the others.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pomp_lab.shapes.variants import VARIANTS
from pomp_lab.tables.plan import Cost, Row, Settings, Table

_table = partial(
    Table,
    scale="laptop",
    seeds=(0, 1, 2),
    most_texts=2_000_000,  # a few minutes of a laptop's text tower
)
TINY, SHAPES = "mini_tiny_imagenet.yaml", "mini_shapes.yaml"
WORDS: Settings = (("PROMPT.N_CTX", "4"), ("PROMPT.INIT", "a photo of a"))
# 100 steps on Tiny-ImageNet: the full softmax over all names takes most of the time of these tables.
BATCH: dict[str, Settings] = {TINY: (("OPTIM.BATCH", "256"),), SHAPES: ()}
TRAIN = {TINY: "tiny_imagenet", SHAPES: "shapes"}


def _over_own_classes(name: str, config: str, method: str, more: Settings = (), budget: Settings = ()) -> Row:
    """A method that learns with the full softmax over the classes that have images."""
    settings = (("METHOD.NAME", method), ("LOSS.NUM_CLASSES", "0"), *more)
    return Row(name, config, TRAIN[config], settings=settings, budget=budget)


def _pomp(name: str, config: str, number: int, correction: str = "log10") -> Row:
    """POMP over the wide vocabulary; 0 for the full softmax over it."""
    settings = (("METHOD.NAME", "pomp"), ("LOSS.NUM_CLASSES", str(number)), ("LOSS.CORRECTION", correction))
    return Row(name, config, TRAIN[config], True, settings, BATCH[config])


def _methods(config: str, number: int) -> tuple[Row, ...]:
    """Hand prompts, methods over the classes that have images, and POMP with K = ``number``."""
    zero_shot = (("METHOD.NAME", "zero_shot"), ("METHOD.ZERO_SHOT.TEMPLATE", "data_set"))
    ensemble, templates = ("METHOD.NAME", "ensemble"), "METHOD.ENSEMBLE.TEMPLATES"
    return (
        Row("zero-shot CLIP", config, settings=zero_shot),
        Row("prompt ensemble", config, settings=(ensemble, (templates, "selected_own"))),
        Row("80 templates", config, settings=(ensemble, (templates, "imagenet"))),
        _over_own_classes("CoOp", config, "coop", budget=BATCH[config]),
        _over_own_classes("CoCoOp", config, "cocoop", WORDS, (("OPTIM.BATCH", "8"), ("OPTIM.EPOCHS", "2"))),
        # These learn inside the vision tower, which the embedded model does not support.
        _over_own_classes("LASP", config, "lasp", WORDS),
        _over_own_classes("MaPLe", config, "maple"),
        _over_own_classes("VPT", config, "vpt"),
        _pomp("POMP", config, number),
        _pomp("full softmax", config, 0, "none"),
    )


*_OTHERS, _POMP, _FULL = _methods(TINY, 1000)
_PROBE_BUDGET = (("OPTIM.LR", "0.2"), ("OPTIM.WARMUP_LR", "0.001"), ("OPTIM.EPOCHS", "20"))
_PROBE = _over_own_classes("linear probe", TINY, "linear_probe", budget=_PROBE_BUDGET)
_LEARNED = "learned on 160 base classes of Tiny-ImageNet, 16 photos of each, and negatives from all 21,843 names"
_SCORED = (
    "scored on the half of the validation photos that nothing was tuned on, and on photos of the 1,000 ImageNet classes"
)
_TARGETS = ("tiny_imagenet_base_novel", "imagenet_samples")
_TRANSFER = ("Cross-dataset and cross-domain transfer",)

IMAGENET21K = _table(
    "imagenet21k",
    title="Large vocabularies, from base to novel classes",
    note=f"Embedded model, {_LEARNED}; {_SCORED}. CoOp, CoCoOp and the linear probe learn over the base classes alone.",
    rows=(*_OTHERS, _PROBE, _POMP, _FULL),
    targets=_TARGETS,
    published=("ImageNet-21K",),
)

CROSS_DATASET = _table(
    "cross_dataset",
    title="From Tiny-ImageNet to other data sets",
    note=f"Embedded model, {_LEARNED} (the runs of table imagenet21k); no photo of these sets is learned from. "
    "The 1,000 ImageNet classes include those of Tiny-ImageNet.",
    rows=(*_OTHERS, _POMP, _FULL),
    targets=("imagenet_samples", "shapes_pictured"),
    published=_TRANSFER,
    whatever_is_there=True,
)

CROSS_DOMAIN = _table(
    "cross_domain",
    title="From plain shapes to other looks of them",
    note="Embedded model, learned on plain drawn shapes of the base classes; POMP and the full softmax take negatives "
    "from all names. Scored on the same validation shapes in four other looks, among base and among novel classes.",
    rows=_methods(SHAPES, 500),
    targets=tuple("shapes_base_novel" if name == "plain" else f"shapes_{name}_base_novel" for name in VARIANTS),
    published=_TRANSFER,
)

COST = _table(
    "cost",
    title="Cost of a training step",
    note="Embedded model, its towers alone; no images are read. A step is loss, gradient, update; memory is what it "
    "adds.",
    rows=(),
    published=("Cost of tuning on ImageNet-1K",),
    cost=Cost("mini", "imagenet1k", (100, 500, 1000), wide="imagenet21k"),
)

ABLATION_K = _table(
    "ablation_k",
    title="Number of classes K in a step",
    note=f"Embedded model, {_LEARNED}; {_SCORED}.",
    rows=(
        _pomp("K = 100", TINY, 100),
        _pomp("K = 500", TINY, 500),
        _pomp("K = 1000", TINY, 1000),
        _pomp("K = 1000, no correction", TINY, 1000, "none"),
        replace(_FULL, name="all classes"),
    ),
    targets=_TARGETS,
    published=("Number of classes K",),
)

# Of the margin table's rows: value of LOSS.CORRECTION, and its name.
MARGINS = {"none": "m = 0", "0.5": "m = 0.5", "1.0": "m = 1", "1.5": "m = 1.5", "log10": "log10", "ln": "ln"}
ABLATION_MARGIN = _table(
    "ablation_margin",
    title="Margin m on the logits of negatives",
    note=f"Embedded model, {_LEARNED}; {_SCORED}. m is added to the logits of negatives; log10 and ln follow from K "
    "and the number of names.",
    rows=tuple(
        _pomp(f"K = {number}, {name}", TINY, number, word) for number in (319, 1000) for word, name in MARGINS.items()
    ),
    targets=_TARGETS,
    published=("Margin m",),
)

ALIGN_UNIFORM = _table(
    "align_uniform",
    title="Alignment and uniformity",
    note=f"Embedded model, {_LEARNED}; {_SCORED}. Alignment of images with their class, uniformity of the candidates; "
    "lower is better. Methods whose class features differ from image to image, or are no unit vectors, have neither.",
    rows=tuple(row for row in IMAGENET21K.rows if row.name not in ("CoCoOp", "LASP", "MaPLe", "VPT", "linear probe")),
    targets=_TARGETS,
    metrics=("alignment", "uniformity"),
)

TABLES = (IMAGENET21K, CROSS_DATASET, CROSS_DOMAIN, COST, ABLATION_K, ABLATION_MARGIN, ALIGN_UNIFORM)
