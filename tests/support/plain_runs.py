"""Runs of every command that end well, on tiny files: what hostile runs are made of.

A run is a command line with the folder that it runs in. Its parts that come from outside are marked: arguments by their
kind, files by their patterns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial


@dataclass(frozen=True)
class Given:
    """An argument that comes from outside: ``number``, ``words``, ``path``, ``source``, ``output`` or ``setting``."""

    kind: str
    text: str


number, words, path, source, output, setting = (
    partial(Given, kind) for kind in ("number", "words", "path", "source", "output", "setting")
)


@dataclass(frozen=True)
class PlainRun:
    """A command that ends well.

    Attributes:
        tool: its file, without the suffix; ``prompt_core/doctor`` is one too.
        tree: the folder of :class:`tests.support.plain_trees.Trees` that it runs in a copy of.
        arguments: its command line.
        reads: patterns of the files that it reads, one of which may be replaced.
        settings: how its settings are given: ``pairs`` (KEY VALUE) or ``--set``; empty where it takes none.
        codes: exit codes that say something about the input, besides 0 and 2.
        refused: it ends with exit code 2 as it is, since it would take minutes otherwise.
        leaves: patterns of files that it may leave where it fails: each is whole, and says what it was made of.
        slow: it takes more than half a second, or its folder takes seconds to make.
    """

    tool: str
    tree: str
    arguments: tuple[str | Given, ...]
    reads: tuple[str, ...] = ()
    settings: str = ""
    codes: tuple[int, ...] = ()
    refused: bool = False
    leaves: tuple[str, ...] = ()
    slow: bool = False
    environment: dict[str, str] = field(default_factory=dict)


PROMPT = "run/prompt.safetensors"
_TRAINED = ("out/model_final.pth", "out/last_checkpoint", "out/inference*/predictions/*")
_DETECTOR = ("tiny.yaml", "boxes.json", "1.png")
_SEGMENTER = ("stage2.yaml", "*.txt", "shapes/scenes/*/0.png", "shapes/semantic/*/0.png", "shapes/semantic/*.json")
_EVALUATE = ("--output", output("scores"))
_TABLE = ("--scale", "laptop", "--root", path("data"), "--seeds", number("0"))

RUNS: tuple[PlainRun, ...] = (
    # prompts
    PlainRun(
        "tools/pretrain_prompt",
        "prompt",
        ("--config", path("config.yaml"), "--output", output("out")),
        ("config.yaml", "photos/train/*/*.png"),
        "pairs",
        slow=True,
    ),
    PlainRun(
        "tools/pretrain_prompt",
        "prompt",
        ("--config", path("config.yaml"), "--resume", "--output", output("run")),
        ("run/state.pt", "run/log.jsonl", "cache/*", "run/*.json"),
        "pairs",
    ),
    PlainRun(
        "tools/pretrain_prompt",
        "prompt",
        ("--config", path("config.yaml"), "--output", output("out"), "DATA.TRAIN", source("csv:photos.csv")),
        ("photos.csv",),
        "pairs",
        slow=True,
    ),
    PlainRun(
        "tools/evaluate_prompt",
        "prompt",
        ("--config", path("config.yaml"), "--prompt", path(PROMPT), "--datasets", source("folder:photos"), *_EVALUATE),
        (PROMPT, "photos/val/*/*.png", "config.yaml"),
        "pairs",
    ),
    PlainRun(
        "tools/evaluate_prompt",
        "prompt",
        ("--config", path("config.yaml"), "--prompt", path("run/method.safetensors"), "--datasets", "folder:photos")
        + ("--vocabulary", path("words.json"), "--classes", words("base,novel"), *_EVALUATE),
        ("run/method.safetensors", "words.json"),
        "pairs",
    ),
    PlainRun(
        "tools/evaluate_prompt",
        "prompt",
        ("--config", path("config.yaml"), "--prompt", path("published.pth.tar"), "--datasets", source("csv:photos.csv")),
        ("published.pth.tar", "photos.csv"),
        "pairs",
    ),
    PlainRun(
        "tools/evaluate_prompt",
        "prompt",
        ("--config", path("config.yaml"), "--template", words("a photo of a {}."))
        + ("--datasets", source("webdataset:shards/{0..0}.tar"), "--split", words("val"), *_EVALUATE),
        ("shards/0.tar", "shards/classes.txt"),
        "pairs",
    ),
    PlainRun(
        "tools/evaluate_prompt",
        "prompt",
        ("--config", path("config.yaml"), "--template", words("{}"), "--datasets", source("coop:coop#split.json"))
        + ("--pretrained", path("tiny.safetensors"), "--clip", path("tiny.json")),
        ("coop/split.json", "tiny.safetensors", "tiny.json"),
        "pairs",
    ),
    *(
        PlainRun(
            "tools/build_classifier",
            "prompt",
            ("--config", path("config.yaml"), "--prompt", path(PROMPT), "--vocabulary", path(vocabulary))
            + ("--output", output(f"made{suffix}")),
            (vocabulary, PROMPT),
            "pairs",
        )
        for vocabulary, suffix in (("words.json", ".npy"), ("words.csv", ".safetensors"), ("words.txt", ".npy"))
    ),
    PlainRun(
        "tools/build_classifier",
        "prompt",
        ("--config", path("config.yaml"), "--template", words("a {}"), "--vocabulary", words("cat,hot dog"))
        + ("--synonyms", "--output", output("made.safetensors"), "--pretrained", path("tiny.safetensors")),
        ("tiny.safetensors", "config.yaml"),
        "pairs",
    ),
    # detectors
    PlainRun(
        "tools/train_net",
        "detector",
        ("--config", path("tiny.yaml"), "--output", output("out"), "--num-processes", number("1")),
        _DETECTOR,
        "pairs",
        leaves=_TRAINED,
        slow=True,
    ),
    PlainRun(
        "tools/train_net",
        "detector",
        ("--config", path("tiny.yaml"), "--resume", "--output", output("run")),
        ("run/*.pth", "run/last_checkpoint", "run/config.yaml", "run/metrics.json"),
        "pairs",
        leaves=_TRAINED,
        slow=True,
    ),
    PlainRun(
        "tools/train_net",
        "detector",
        ("--config", path("tiny.yaml"), "--eval-only", "--output", output("out"), "MODEL.WEIGHTS", path("tiny.pth")),
        ("tiny.pth", *_DETECTOR),
        "pairs",
        leaves=_TRAINED,
    ),
    PlainRun(
        "tools/train_net",
        "detector",
        ("--config", path("tiny.yaml"), "--score-only", "--output", output("run")),
        ("run/inference*/*", "run/inference*/*/*", "boxes.json"),
        "pairs",
        leaves=_TRAINED,
    ),
    *(
        PlainRun(
            "tools/predict",
            tree,
            ("--model", path(config), "--weights", path("tiny.pth"), *options, "--output", output("out"), path(photo)),
            ("tiny.pth", config, photo, *reads),
            "--set",
            (1,),
        )
        for tree, config, photo, options, reads in (
            ("detector", "tiny.yaml", "1.png", ("--vocabulary", path("classes.npy")), ("classes.npy",)),
            ("detector", "tiny.yaml", "1.png", ("--threshold", number("0.1"), "--strict"), ()),
            (
                "segmenter",
                "stage2.yaml",
                "shapes/scenes/val/0.png",
                ("--vocabulary", words("cat,sky"), "--background", words("wall")),
                (),
            ),
        )
    ),
    PlainRun(
        "tools/benchmark_detector",
        "detector",
        ("--config", path("tiny.yaml"), "--weights", path("tiny.pth"), "--images", number("1"), "--repeats")
        + (number("1"), "--classes", number("2,3"), "--threads", number("1"), "--output", output("numbers.json")),
        ("tiny.pth", "tiny.yaml"),
        "pairs",
    ),
    # segmenters
    PlainRun(
        "tools/train_net",
        "segmenter",
        ("--config", path("stage2.yaml"), "--output", output("out")),
        _SEGMENTER,
        "pairs",
        leaves=_TRAINED,
        slow=True,
    ),
    PlainRun(
        "tools/train_net",
        "segmenter",
        ("--config", path("stage2.yaml"), "--eval-only", "--output", output("out"), "MODEL.WEIGHTS", path("tiny.pth")),
        ("tiny.pth", *_SEGMENTER),
        "pairs",
        leaves=_TRAINED,
        slow=True,
    ),
    PlainRun(
        "tools/segmentation_grid",
        "segmenter",
        ("--config", path("stage2.yaml"), "--weights", path("one=tiny.pth"), "--dataset", words("tiny"), "--images")
        + (number("1"), "--output", output("grid.png")),
        ("tiny.pth", "stage2.yaml", "shapes/scenes/val/0.png", "shapes/semantic/val/0.png"),
        "--set",
        slow=True,
    ),
    PlainRun(
        "tools/benchmark_regions",
        "segmenter",
        ("--config", path("stage2.yaml"), "--weights", path("tiny.pth"), "--dataset", words("tiny"), "--images")
        + (number("1"), "--repeats", number("1"), "--batch", number("4"), "--output", output("numbers.json")),
        ("tiny.pth", "stage2.yaml"),
        "pairs",
        slow=True,
    ),
    # results
    PlainRun(
        "tools/report",
        "results",
        (path("one"), path("mine=two.json"), path("folder"), "--output", output("out"), "--baseline", words("one")),
        ("one/metrics.json", "two.json", "folder/*.json"),
    ),
    PlainRun("tools/model_zoo", "results", ("--output", output("zoo.md"))),
    PlainRun("tools/margins", "results", ("--classes", number("50"), "--sampled", number("5,10"))),
    PlainRun(
        "tools/reproduce",
        "tables",
        ("cross_domain", *_TABLE, "--output", output("out"), "--dry-run")
        + ("--rows", words("zero-shot CLIP;POMP"), "--datasets", words("shapes_base_novel,shapes_sketch_base_novel")),
        ("data/shapes/*.json", "data/shapes_sketch/*.json"),
        "pairs",
    ),
    PlainRun(
        "tools/reproduce",
        "tables",
        (words("imagenet21k"), *_TABLE, "--output", output("out"), "--dry-run"),
        ("data/tiny-imagenet-200/*.txt", "data/tiny-imagenet-200/val/*.txt", "data/imagenet_samples/labels.csv"),
        "pairs",
    ),
    PlainRun(
        "tools/compare_prompts",
        "tables",
        ("--config", path("config.yaml"), "--tiny-imagenet", path("data/tiny-imagenet-200"), "--output", output("out"))
        + ("--shots", number("1"), "--seeds", number("0"), "--updates", number("1"), "--methods", words("POMP K=100"))
        + ("--name", words("table")),
        ("data/tiny-imagenet-200/*.txt", "data/tiny-imagenet-200/val/*.txt", "config.yaml"),
        "pairs",
        slow=True,
        leaves=("out/runs/locks/*", "out/lists/*", "out/learned/*"),
    ),
    PlainRun(
        "tools/compare_detectors",
        "tables",
        ("--shapes", path("data/shapes"), "--output", output("out"), "--table-only", "--seeds", number("0"))
        + ("--rows", words("boxes, POMP")),
        (),
        "pairs",
    ),
    PlainRun(
        "tools/compare_segmenters",
        "tables",
        ("--data", words("scenes"), "--output", output("out"), "--table-only", "--seeds", number("0")),
        (),
        "pairs",
        environment={"POMP_DATA": "data"},
    ),
    PlainRun(
        "tools/demo",
        "tables",
        ("--output", output("done"), "LOG.TENSORBOARD", setting("nan"), "PROMPT.N_CTX", "0"),
        settings="pairs",
        refused=True,
    ),
    # data
    *(
        PlainRun("datasets/prepare", "data", (name, "--root", path("."), "--overwrite"), reads, leaves=("*",))
        for name, reads in (
            ("coco", ("coco/annotations/*.json",)),
            ("lvis", ("lvis/*.json",)),
            ("lvis_coco", ("lvis/lvis_v1_train.json", "coco/annotations/instances_train2017.json")),
            ("objects365", ("objects365/annotations/*.json",)),
            ("coco_stuff", ("coco/stuffthingmaps/*/*.png",)),
            ("voc_seg", ("VOC2012/*.txt", "VOC2012/*/*.png")),
            ("pcontext", ("VOC2010/*.json",)),
            ("ade20k", ("ADEChallengeData2016/annotations/*/*.png",)),
            ("shapes_seg", ("shapes/*.json", "shapes/annotations/*.json")),
            ("cc3m", ("cc3m/*",)),
        )
    ),
    PlainRun(
        "datasets/prepare",
        "data",
        ("imagenet_lvis", "--root", path("."), "--workers", number("1"), "--wnids", path("wnids.txt"))
        + ("--mapping", path("mapping.txt"), "--photos", path("imagenet/ImageNet-LVIS")),
        ("wnids.txt", "mapping.txt", "imagenet/ImageNet-LVIS/*.tar", "imagenet/ImageNet-LVIS/*/*.png"),
        leaves=("*",),
    ),
    PlainRun(
        "datasets/prepare",
        "data",
        ("ade20k_full", "--root", path("."), "--classes", path("classes.json")),
        ("classes.json", "ADE20K_2021_17_01/images/*/*/*/*"),
        leaves=("*",),
    ),
    PlainRun(
        "datasets/check", "data", (words("coco"), "--root", path("."), "--models", path("models")),
        ("coco/annotations/*.json",), codes=(1,),
    ),
    *(
        PlainRun("datasets/check", "data", (source(given), "--root", path(".")), reads, codes=(1,))
        for given, reads in (
            ("all", ("coco/annotations/*.json", "lvis/*.json", "objects365/annotations/*.json", "VOC2012/*.txt")),
            ("oxford_pets", ("oxford_pets/*/*.txt",)),
            ("stanford_cars", ("stanford_cars/*.mat", "stanford_cars/*/*.mat")),
            ("./eurosat", ("eurosat/2750/*/x_1.jpg",)),
            ("ucf101", ("ucf101/*/*.txt",)),
            ("sun397", ("sun397/*.txt",)),
            ("food101", ("food-101/meta/*",)),
        )
    ),
    PlainRun(
        "datasets/make_shapes",
        "results",
        ("--output", output("shapes"), "--classes", number("12"), "--classification-classes", number("4"), "--scenes")
        + (number("1"), "--val-scenes", number("1"), "--scene-size", number("64"), "--seed", number("1"), "--workers")
        + (number("1"), "--classification-size", number("32"), "--train-images-per-class", number("1"))
        + ("--val-images-per-class", number("1"), "--parts", words("classification,scenes"), "--masks", words("rle")),
    ),
    # the rest
    PlainRun(
        "tools/fetch",
        "data",
        (words("lvis_v1_train_cat_info.json"), "--list", "--root", path("."), "--models", path("models")),
        ("models/*",),
    ),
    PlainRun("tools/fetch", "data", ("--write-page", output("page.md"))),
    PlainRun("tools/fetch", "data", (words("no_such_file.npy"), words("lvis"), "--root", path(".")), ("lvis/*.json",)),
    PlainRun(
        "tools/build_vocabularies",
        "packages",
        ("--packages", path("packages"), "--output", output("out")),
        ("packages/*/*/*/*.py", "packages/*/*/*.py"),
    ),
    PlainRun("tools/build_mini_clip", "results", ("--evaluate", path("one"), "--tiny-imagenet", path("folder"))),
    PlainRun("prompt_core/doctor", "results", ("--json",), environment={"POMP_DATA": "one"}),
    PlainRun("prompt_core/doctor", "results", ("--towers", words("ViT-B-16"))),
    PlainRun(
        "tools/benchmark_scoring",
        "results",
        ("--images", number("2"), "--classes", number("30"), "--detections", number("2"), "--repeats", number("1"))
        + ("--tasks", words("bbox"), "--seed", number("0"), "--output", output("numbers.json")),
        codes=(1,),
    ),
    PlainRun(
        "tools/benchmark_text",
        "prompt",
        ("--parts", words("classifier"), "--clip", path("tiny.json"), "--vocabulary", path("words.json"), "--repeats")
        + (number("1"), "--threads", number("1"), "--classifier-names", number("2"), "--output", output("numbers.json")),
        ("words.json", "tiny.json"),
        slow=True,
    ),
    PlainRun(
        "tools/benchmark_methods",
        "prompt",
        ("--rows", words("coop,pomp"), "--clip", path("tiny.json"), "--vocabularies", path("words.json"), "--names")
        + (number("2"), "--repeats", number("1"), "--reference-names", number("2"), "--output", output("numbers.json")),
        ("words.json", "tiny.json"),
        slow=True,
    ),
)  # fmt: skip
