"""Runs of every command that end well, on tiny files: what hostile runs are made of.

A run is a command line with the folder that it runs in. Its parts that come from outside are marked: arguments by their
kind, files by their patterns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Given:
    """An argument that comes from outside: ``number``, ``words``, ``path``, ``source``, ``output`` or ``setting``."""

    kind: str
    text: str


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
        refused: it ends with exit code 2 as it is: otherwise it would take minutes, a network, or whole data sets.
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


_PARTS = re.compile(r"<(\w+):([^>]*)>|(\S+)")


def plain_run(tool: str, tree: str, line: str, reads: str = "", leaves: str = "", **more: Any) -> PlainRun:
    """A run by its command line, in which ``<kind:text>`` comes from outside, and patterns between spaces."""
    arguments = tuple(plain or Given(kind, text) for kind, text, plain in _PARTS.findall(line))
    return PlainRun(tool, tree, arguments, tuple(reads.split()), leaves=tuple(leaves.split()), **more)


RUNS: tuple[PlainRun, ...] = (
    plain_run(
        "tools/pretrain_prompt",
        "prompt",
        "--config <path:config.yaml> --output <output:out>",
        reads="config.yaml photos/train/*/*.png",
        settings="pairs",
        slow=True,
    ),
    plain_run(
        "tools/pretrain_prompt",
        "prompt",
        "--config <path:config.yaml> --resume --output <output:run>",
        reads="run/state.pt run/log.jsonl cache/* run/*.json",
        settings="pairs",
    ),
    plain_run(
        "tools/pretrain_prompt",
        "prompt",
        "--config <path:config.yaml> --output <output:out> DATA.TRAIN <source:csv:photos.csv>",
        reads="photos.csv",
        settings="pairs",
        slow=True,
    ),
    plain_run(
        "tools/evaluate_prompt",
        "prompt",
        "--config <path:config.yaml> --prompt <path:run/prompt.safetensors> --datasets "
        "<source:folder:photos> --output <output:scores>",
        reads="run/prompt.safetensors photos/val/*/*.png config.yaml",
        settings="pairs",
    ),
    plain_run(
        "tools/evaluate_prompt",
        "prompt",
        "--config <path:config.yaml> --prompt <path:run/method.safetensors> --datasets folder:photos "
        "--vocabulary <path:words.json> --classes <words:base,novel> --output <output:scores>",
        reads="run/method.safetensors words.json",
        settings="pairs",
    ),
    plain_run(
        "tools/evaluate_prompt",
        "prompt",
        "--config <path:config.yaml> --prompt <path:published.pth.tar> --datasets <source:csv:photos.csv>",
        reads="published.pth.tar photos.csv",
        settings="pairs",
    ),
    plain_run(
        "tools/evaluate_prompt",
        "prompt",
        "--config <path:config.yaml> --template <words:a photo of a {}.> --datasets "
        "<source:webdataset:shards/{0..0}.tar> --split <words:val> --output <output:scores>",
        reads="shards/0.tar shards/classes.txt",
        settings="pairs",
    ),
    plain_run(
        "tools/evaluate_prompt",
        "prompt",
        "--config <path:config.yaml> --template <words:{}> --datasets <source:coop:coop#split.json> "
        "--pretrained <path:tiny.safetensors> --clip <path:tiny.json>",
        reads="coop/split.json tiny.safetensors tiny.json",
        settings="pairs",
    ),
    plain_run(
        "tools/build_classifier",
        "prompt",
        "--config <path:config.yaml> --prompt <path:run/prompt.safetensors> --vocabulary <path:words.json> "
        "--output <output:made.npy>",
        reads="words.json run/prompt.safetensors",
        settings="pairs",
    ),
    plain_run(
        "tools/build_classifier",
        "prompt",
        "--config <path:config.yaml> --prompt <path:run/prompt.safetensors> --vocabulary <path:words.csv> "
        "--output <output:made.safetensors>",
        reads="words.csv run/prompt.safetensors",
        settings="pairs",
    ),
    plain_run(
        "tools/build_classifier",
        "prompt",
        "--config <path:config.yaml> --prompt <path:run/prompt.safetensors> --vocabulary <path:words.txt> "
        "--output <output:made.npy>",
        reads="words.txt run/prompt.safetensors",
        settings="pairs",
    ),
    plain_run(
        "tools/build_classifier",
        "prompt",
        "--config <path:config.yaml> --template <words:a {}> --vocabulary <words:cat,hot dog> --synonyms "
        "--output <output:made.safetensors> --pretrained <path:tiny.safetensors>",
        reads="tiny.safetensors config.yaml",
        settings="pairs",
    ),
    plain_run(
        "tools/train_net",
        "detector",
        "--config <path:tiny.yaml> --output <output:out> --num-processes <number:1>",
        reads="tiny.yaml boxes.json 1.png",
        settings="pairs",
        leaves="*/model_final.pth */last_checkpoint */inference*/predictions/* */inference*/*_results.json",
        slow=True,
    ),
    plain_run(
        "tools/train_net",
        "detector",
        "--config <path:tiny.yaml> --resume --output <output:run>",
        reads="run/*.pth run/last_checkpoint run/config.yaml run/metrics.json",
        settings="pairs",
        leaves="*/model_final.pth */last_checkpoint */inference*/predictions/* */inference*/*_results.json",
        slow=True,
    ),
    plain_run(
        "tools/train_net",
        "detector",
        "--config <path:tiny.yaml> --eval-only --output <output:out> MODEL.WEIGHTS <path:tiny.pth>",
        reads="tiny.pth tiny.yaml boxes.json 1.png",
        settings="pairs",
        leaves="*/model_final.pth */last_checkpoint */inference*/predictions/* */inference*/*_results.json",
    ),
    plain_run(
        "tools/train_net",
        "detector",
        "--config <path:tiny.yaml> --score-only --output <output:run>",
        reads="run/inference*/* run/inference*/*/* boxes.json",
        settings="pairs",
        leaves="*/model_final.pth */last_checkpoint */inference*/predictions/* */inference*/*_results.json",
    ),
    plain_run(
        "tools/predict",
        "detector",
        "--model <path:tiny.yaml> --weights <path:tiny.pth> --vocabulary <path:classes.npy> --output "
        "<output:out> <path:1.png>",
        reads="tiny.pth tiny.yaml 1.png classes.npy",
        settings="--set",
        codes=(1,),
    ),
    plain_run(
        "tools/predict",
        "detector",
        "--model <path:tiny.yaml> --weights <path:tiny.pth> --threshold <number:0.1> --strict --output "
        "<output:out> <path:1.png>",
        reads="tiny.pth tiny.yaml 1.png",
        settings="--set",
        codes=(1,),
    ),
    plain_run(
        "tools/predict",
        "segmenter",
        "--model <path:stage2.yaml> --weights <path:tiny.pth> --vocabulary <words:cat,sky> --background "
        "<words:wall> --output <output:out> <path:shapes/scenes/val/0.png>",
        reads="tiny.pth stage2.yaml shapes/scenes/val/0.png",
        settings="--set",
        codes=(1,),
    ),
    plain_run(
        "tools/benchmark_detector",
        "detector",
        "--config <path:tiny.yaml> --weights <path:tiny.pth> --images <number:1> --repeats <number:1> "
        "--classes <number:2,3> --threads <number:1> --output <output:numbers.json>",
        reads="tiny.pth tiny.yaml",
        settings="pairs",
    ),
    plain_run(
        "tools/train_net",
        "segmenter",
        "--config <path:stage2.yaml> --output <output:out>",
        reads="stage2.yaml *.txt shapes/scenes/*/0.png shapes/semantic/*/0.png shapes/semantic/*.json",
        settings="pairs",
        leaves="*/model_final.pth */last_checkpoint */inference*/predictions/* */inference*/*_results.json",
        slow=True,
    ),
    plain_run(
        "tools/train_net",
        "segmenter",
        "--config <path:stage2.yaml> --eval-only --output <output:out> MODEL.WEIGHTS <path:tiny.pth>",
        reads="tiny.pth stage2.yaml *.txt shapes/scenes/*/0.png shapes/semantic/*/0.png shapes/semantic/*.json",
        settings="pairs",
        leaves="*/model_final.pth */last_checkpoint */inference*/predictions/* */inference*/*_results.json",
        slow=True,
    ),
    plain_run(
        "tools/segmentation_grid",
        "segmenter",
        "--config <path:stage2.yaml> --weights <path:one=tiny.pth> --dataset <words:tiny> --images "
        "<number:1> --output <output:grid.png>",
        reads="tiny.pth stage2.yaml shapes/scenes/val/0.png shapes/semantic/val/0.png",
        settings="--set",
        slow=True,
    ),
    plain_run(
        "tools/benchmark_regions",
        "segmenter",
        "--config <path:stage2.yaml> --weights <path:tiny.pth> --dataset <words:tiny> --images <number:1> "
        "--repeats <number:1> --batch <number:4> --output <output:numbers.json>",
        reads="tiny.pth stage2.yaml",
        settings="pairs",
        slow=True,
    ),
    plain_run(
        "tools/report",
        "results",
        "<path:one> <path:mine=two.json> <path:folder> --output <output:out> --baseline <words:one>",
        reads="one/metrics.json two.json folder/*.json",
    ),
    plain_run("tools/model_zoo", "results", "--output <output:zoo.md>"),
    plain_run("tools/margins", "results", "--classes <number:50> --sampled <number:5,10>"),
    plain_run(
        "tools/reproduce",
        "tables",
        "cross_domain --scale laptop --root <path:data> --seeds <number:0> --output <output:out> --dry-run "
        "--rows <words:zero-shot CLIP;POMP> --datasets <words:shapes_base_novel,shapes_sketch_base_novel>",
        reads="data/shapes/*.json data/shapes_sketch/*.json",
        settings="pairs",
    ),
    plain_run(
        "tools/reproduce",
        "tables",
        "<words:imagenet21k> --scale laptop --root <path:data> --seeds <number:0> --output <output:out> --dry-run",
        reads="data/tiny-imagenet-200/*.txt data/tiny-imagenet-200/val/*.txt data/imagenet_samples/labels.csv",
        settings="pairs",
    ),
    plain_run(
        "tools/compare_prompts",
        "tables",
        "--config <path:config.yaml> --tiny-imagenet <path:data/tiny-imagenet-200> --output <output:out> "
        "--shots <number:1> --seeds <number:0> --updates <number:1> --methods <words:POMP K=100> --name "
        "<words:table>",
        reads="data/tiny-imagenet-200/*.txt data/tiny-imagenet-200/val/*.txt config.yaml",
        settings="pairs",
        leaves="out/runs/locks/* out/lists/* out/learned/*",
        slow=True,
    ),
    plain_run(
        "tools/compare_detectors",
        "tables",
        "--shapes <path:data/shapes> --output <output:out> --table-only --seeds <number:0> --rows <words:boxes, POMP>",
        settings="pairs",
    ),
    plain_run(
        "tools/compare_segmenters",
        "tables",
        "--data <words:scenes> --output <output:out> --table-only --seeds <number:0>",
        settings="pairs",
        environment={"POMP_DATA": "data"},
    ),
    plain_run(
        "tools/demo",
        "tables",
        "--output <output:done> LOG.TENSORBOARD <setting:nan> PROMPT.N_CTX 0",
        settings="pairs",
        refused=True,
    ),
    plain_run(
        "datasets/prepare", "data", "coco --root <path:.> --overwrite", reads="coco/annotations/*.json", leaves="*"
    ),
    plain_run("datasets/prepare", "data", "lvis --root <path:.> --overwrite", reads="lvis/*.json", leaves="*"),
    plain_run(
        "datasets/prepare",
        "data",
        "lvis_coco --root <path:.> --overwrite",
        reads="lvis/lvis_v1_train.json coco/annotations/instances_train2017.json",
        leaves="*",
    ),
    plain_run(
        "datasets/prepare",
        "data",
        "objects365 --root <path:.> --overwrite",
        reads="objects365/annotations/*.json",
        leaves="*",
    ),
    plain_run(
        "datasets/prepare",
        "data",
        "coco_stuff --root <path:.> --overwrite",
        reads="coco/stuffthingmaps/*/*.png",
        leaves="*",
    ),
    plain_run(
        "datasets/prepare",
        "data",
        "voc_seg --root <path:.> --overwrite",
        reads="VOC2012/*.txt VOC2012/*/*.png",
        leaves="*",
    ),
    plain_run("datasets/prepare", "data", "pcontext --root <path:.> --overwrite", reads="VOC2010/*.json", leaves="*"),
    plain_run(
        "datasets/prepare",
        "data",
        "ade20k --root <path:.> --overwrite",
        reads="ADEChallengeData2016/annotations/*/*.png",
        leaves="*",
    ),
    plain_run(
        "datasets/prepare",
        "data",
        "shapes_seg --root <path:.> --overwrite",
        reads="shapes/*.json shapes/annotations/*.json",
        leaves="*",
    ),
    plain_run("datasets/prepare", "data", "cc3m --root <path:.> --overwrite", reads="cc3m/*", leaves="*"),
    plain_run(
        "datasets/prepare",
        "data",
        "imagenet_lvis --root <path:.> --workers <number:1> --wnids <path:wnids.txt> --mapping "
        "<path:mapping.txt> --photos <path:imagenet/ImageNet-LVIS>",
        reads="wnids.txt mapping.txt imagenet/ImageNet-LVIS/*.tar imagenet/ImageNet-LVIS/*/*.png",
        leaves="*",
    ),
    plain_run(
        "datasets/prepare",
        "data",
        "imagenet21k --from <path:imagenet/ImageNet-LVIS> --output <output:shards> --split val --shots <number:-1> "
        "--seed <number:1> --shard-bytes <number:30000> --workers <number:1>",
        reads="imagenet/ImageNet-LVIS/*.tar",
        leaves="*",
    ),
    plain_run(
        "datasets/prepare",
        "data",
        "ade20k_full --root <path:.> --classes <path:classes.json>",
        reads="classes.json ADE20K_2021_17_01/images/*/*/*/*",
        leaves="*",
    ),
    plain_run(
        "datasets/check",
        "data",
        "<words:coco> --root <path:.> --models <path:models>",
        reads="coco/annotations/*.json",
        codes=(1,),
    ),
    plain_run(
        "datasets/check",
        "data",
        "<source:all> --root <path:.>",
        reads="coco/annotations/*.json lvis/*.json objects365/annotations/*.json VOC2012/*.txt",
        codes=(1,),
        refused=True,
    ),
    plain_run(
        "datasets/check", "data", "<source:oxford_pets> --root <path:.>", reads="oxford_pets/*/*.txt", codes=(1,)
    ),
    plain_run(
        "datasets/check",
        "data",
        "<source:stanford_cars> --root <path:.>",
        reads="stanford_cars/*.mat stanford_cars/*/*.mat",
        codes=(1,),
    ),
    plain_run(
        "datasets/check", "data", "<source:./eurosat> --root <path:.>", reads="eurosat/2750/*/x_1.jpg", codes=(1,)
    ),
    plain_run("datasets/check", "data", "<source:ucf101> --root <path:.>", reads="ucf101/*/*.txt", codes=(1,)),
    plain_run("datasets/check", "data", "<source:sun397> --root <path:.>", reads="sun397/*.txt", codes=(1,)),
    plain_run("datasets/check", "data", "<source:food101> --root <path:.>", reads="food-101/meta/*", codes=(1,)),
    plain_run(
        "datasets/make_shapes",
        "results",
        "--output <output:shapes> --classes <number:12> --classification-classes <number:4> --scenes "
        "<number:1> --val-scenes <number:1> --scene-size <number:64> --seed <number:1> --workers <number:1> "
        "--classification-size <number:32> --train-images-per-class <number:1> --val-images-per-class "
        "<number:1> --parts <words:classification,scenes> --masks <words:rle>",
    ),
    plain_run(
        "tools/fetch",
        "data",
        "<words:lvis_v1_train_cat_info.json> --list --root <path:.> --models <path:models>",
        reads="models/*",
    ),
    plain_run("tools/fetch", "data", "--write-page <output:page.md>"),
    plain_run(
        "tools/fetch",
        "data",
        "<words:no_such_file.npy> <words:lvis> --root <path:.>",
        reads="lvis/*.json",
        refused=True,
    ),
    plain_run(
        "tools/build_vocabularies",
        "packages",
        "--packages <path:packages> --output <output:out>",
        reads="packages/*/*/*/*.py packages/*/*/*.py",
    ),
    plain_run(
        "tools/compare_hierarchy",
        "tables",
        "--config <path:config.yaml> --tiny-imagenet <path:data/tiny-imagenet-200> --photos <path:data/absent> "
        "--output <output:out>",
        reads="data/tiny-imagenet-200/*.txt config.yaml",
        settings="pairs",
        refused=True,
    ),
    plain_run(
        "tools/embed_regions",
        "detector",
        "--config <path:tiny.yaml> --dataset <words:absent> --proposals <path:boxes.json> --output <output:out>",
        reads="tiny.yaml boxes.json",
        settings="pairs",
        refused=True,
    ),
    plain_run(
        "tools/learn_region_prompt",
        "detector",
        "--config <path:tiny.yaml> --dataset <words:absent> --regions <path:run> --output <output:out>",
        reads="tiny.yaml boxes.json",
        settings="pairs",
        refused=True,
    ),
    plain_run(
        "tools/list_photo_folders",
        "detector",
        "--photos <path:absent> --categories <path:boxes.json> --output <output:list.json>",
        reads="boxes.json",
        refused=True,
    ),
    plain_run(
        "tools/write_proposals",
        "detector",
        "<path:1.png> --model <words:vit_b> --weights <path:tiny.pth> --output <output:out>",
        reads="tiny.pth",
        refused=True,
    ),
    plain_run("tools/build_mini_clip", "results", "--evaluate <path:one> --tiny-imagenet <path:folder>", refused=True),
    plain_run("tools/build_mini_detector", "results", "--finish <path:one> --output <output:out>", refused=True),
    plain_run(
        "tools/benchmark_mini_detector",
        "results",
        "--voc <path:one> --cost <path:absent> --photos <number:2> --output <output:numbers.json>",
        settings="pairs",
        refused=True,
    ),
    plain_run(
        "tools/benchmark_mini_segmenter",
        "results",
        "--voc <path:one> --cost <path:absent> --photos <number:2> --output <output:numbers.json>",
        settings="pairs",
        refused=True,
    ),
    plain_run("tools/build_mini_segmenter", "results", "--finish <path:one> --output <output:out>", refused=True),
    plain_run("tools/measure_own_share", "results", "--photos <path:one> --output <output:numbers.json>", refused=True),
    plain_run("prompt_core/doctor", "results", "--json", environment={"POMP_DATA": "one"}),
    plain_run("prompt_core/doctor", "results", "--towers <words:ViT-B-16>"),
    plain_run(
        "tools/benchmark_scoring",
        "results",
        "--images <number:2> --classes <number:30> --detections <number:2> --repeats <number:1> --tasks "
        "<words:bbox> --seed <number:0> --output <output:numbers.json>",
        codes=(1,),
    ),
    plain_run(
        "tools/benchmark_text",
        "prompt",
        "--parts <words:classifier> --clip <path:tiny.json> --vocabulary <path:words.json> --repeats "
        "<number:1> --threads <number:1> --classifier-names <number:2> --output <output:numbers.json>",
        reads="words.json tiny.json",
        slow=True,
    ),
    plain_run(
        "tools/benchmark_methods",
        "prompt",
        "--rows <words:coop,pomp> --clip <path:tiny.json> --vocabularies <path:words.json> --names "
        "<number:2> --repeats <number:1> --reference-names <number:2> --output <output:numbers.json>",
        reads="words.json tiny.json",
        slow=True,
    ),
)
