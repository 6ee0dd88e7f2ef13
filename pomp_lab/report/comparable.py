"""Whether a number of ours is comparable with a published one, and if not, why.

It is where both have the same images, candidates and metric, the same architecture and weights, and where the run kept
the budget of its row. Whatever a run does not state counts as different.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import yaml

from pomp_lab.report.published import PublishedColumn, PublishedTable, load_published
from pomp_lab.report.results import Run
from pomp_lab.report.rows import Column
from prompt_core.config import default_config, flatten
from prompt_core.data.catalog.benchmark_splits import Benchmark
from prompt_core.data.catalog.entry import ClassificationEntry
from prompt_core.data.catalog.lookup import find_entry

# Published name of a backbone of OpenAI's CLIP → the architecture of its weights.
ARCHITECTURES = {"RN50": "RN50-quickgelu", "ViT-B/32": "ViT-B-32-quickgelu", "ViT-B/16": "ViT-B-16-quickgelu"}
# Number of images of the complete data set, for comparisons of detectors and segmenters.
IMAGES = {
    "lvis_v1_val": 19_809,
    "coco_generalized_zeroshot_val": 4_836,
    "objects365_v2_val": 80_000,
    "coco_2017_test_stuff_sem_seg": 5_000,
    "voc_sem_seg_test": 1_449,
    "ade20k_sem_seg_val": 2_000,
}
# Overrides of a command that do not make it a different run: where and how fast it ran, what the protocol states, the
# model, which is compared by itself, and the choice of the epoch, which is marked at each number.
_NO_BUDGET = ["OUTPUT", "DEVICE", "SEED", "LOG.", "EVAL.", "MODEL.", "SELECT.", "SELECT_ON_TEST"]
_NO_BUDGET += ["DATA.CACHE", "DATA.WORKERS", "DATA.ENCODE_BATCH", "LOSS.CHUNK"]


def why_not(
    published: PublishedTable, columns: Sequence[PublishedColumn], column: Column, runs: Sequence[Run]
) -> str | None:
    """Why numbers of runs cannot be compared with published ones; None where they can.

    Args:
        columns: of the published table; of several (one per backbone), matching one is enough.
        column: ours.
        runs: those whose mean is compared.
    """
    runs = [run for run in runs if column.scores(run) is not None]
    models = [other.model or published.model for other in columns]
    reasons = [_protocol_reason(published, columns, column, runs)]
    reasons += [_run_reason(published, models, run) for run in runs]
    return next(filter(None, reasons), None)


def _protocol_reason(
    published: PublishedTable, columns: Sequence[PublishedColumn], column: Column, runs: Sequence[Run]
) -> str | None:
    """Which entry of a protocol differs from the published one.

    Images and classes are counted: an official or generated division into splits has different test images from the
    published one, and a part of a data set is a different data set.
    """
    metric = column.protocol.get("metric")
    if metric not in published.metrics:
        return "its metric is not stated" if metric is None else f"its metric is {metric}, not {published.metrics[0]}"
    if "mean_of" in column.protocol:
        return _member_reason(column.dataset, runs)
    if published.task == "classification":
        names = (column.dataset, *(name for other in columns for name in other.datasets))
        return _images_and_classes(names, column.protocol)
    return _dense_reason(published.task, column)


def _member_reason(dataset: str, runs: Sequence[Run]) -> str | None:
    """For an average: only its members matter, whatever else a run was scored on."""
    members = [
        table.columns[place]
        for table in load_published()
        for column in table.columns
        if column.is_of(dataset)
        for place in column.means
    ]
    if not members:
        return "it is not a published average"
    for scores in (scores for run in runs for scores in run.scores):
        for member in members:
            if member.metric in scores.numbers and member.is_of(scores.dataset):
                reason = _images_and_classes((scores.dataset, *member.datasets), scores.protocol)
                if reason:
                    return f"a member is another ({scores.dataset}: {reason})"
    return None


def _images_and_classes(names: Sequence[str], protocol: Mapping[str, Any]) -> str | None:
    entry = next(filter(None, map(find_entry, names)), None)
    if entry is None:
        return "it is not a published data set"
    # Where the set has no val split, val means the test images.
    splits = ("test",) if "val" in entry.splits else ("test", "val")
    if protocol.get("split") not in splits:
        return f"its split is {protocol.get('split', 'not stated')}, published is test"
    for key in ("images_of", "half"):
        if protocol.get(key):
            return f"it is of a part of the images ({protocol[key]})"
    unreadable = protocol.get("unreadable")
    left_out = len(unreadable) if isinstance(unreadable, list) else 0
    reasons = [
        _division_reason(entry, str(protocol.get("source"))),
        _count_reason(protocol, "images", left_out, entry.test.number, "test images"),
        _count_reason(protocol, "candidates", 0, entry.classes.number, "classes"),
    ]
    # The ten sets of the transfer table have no two classes of one name.
    if protocol.get("namesakes") == "merged" and entry.name.startswith("imagenet"):
        reasons.append("classes of one name count as one, published are separate ones (EVAL.NAMESAKES separate)")
    return next(filter(None, reasons), None)


def _division_reason(entry: ClassificationEntry, source: str) -> str | None:
    # Where the published split keeps the official test images, all divisions have them.
    if not isinstance(entry.reader, Benchmark) or entry.reader.keeps_test:
        return None
    for division in ("generated", "official"):
        if f"{division} split" in source:
            return f"its {division} split has other test images than the published one"
    return None if "published split" in source else "which division into splits it is of is not stated"


def _count_reason(protocol: Mapping[str, Any], key: str, more: int, expected: int, things: str) -> str | None:
    number = protocol.get(key)
    if isinstance(number, bool) or not isinstance(number, int):
        return f"its number of {things} is not stated"
    return None if number + more == expected else f"{number + more:,} {things}, published are {expected:,}"


def _dense_reason(task: str, column: Column) -> str | None:
    """For detectors and segmenters."""
    protocol = column.protocol
    known = IMAGES.get(column.dataset)
    if known is not None and (reason := _count_reason(protocol, "images", 0, known, "images")):
        return reason
    if protocol.get("oracle"):
        return f"an oracle gives {protocol['oracle']}"
    detections = str(protocol.get("detections", "not stated"))
    if task == "detection" and column.dataset.startswith("lvis") and not detections.startswith("300 of an image"):
        return f"its detections are {detections}, published are 300 of an image"
    if "IoU" in column.metric and column.metric != "fwIoU" and protocol.get("miou_denominator") != "union":
        stated = str(protocol.get("miou_denominator", "not stated")).replace("_", " ")
        return f"mIoU divides by classes with {stated}, published with ground truth or predictions"
    return None


def _run_reason(published: PublishedTable, models: Sequence[str], run: Run) -> str | None:
    """Why a run's model is none of ``models``, or its budget is not that of its row."""
    if published.settings:
        return _architecture_reason(published.settings, run)
    if not any(model and model_of(run) == (ARCHITECTURES[model], "openai") for model in models):
        known = " and ".join(", ".join(models).rsplit(", ", 1))
        wanted = f"{'are' if len(models) > 1 else 'is'} {known} of OpenAI's" if known else "states no model"
        return f"{_model_text(run)}; published {wanted}"
    changed = budget_changes(run)
    return f"it was run with {changed}, the published one was not" if changed else None


def model_of(run: Run) -> tuple[str | None, str | None]:
    """Architecture and weights of a run's CLIP, None for what it does not state."""
    about = run.about
    if "clip" not in about:
        node = _configuration(str(about.get("config") or "")).get("MODEL")
        about = {"clip": node.get("NAME"), "pretrained": node.get("PRETRAINED")} if isinstance(node, dict) else {}
    name, weights = about.get("clip"), about.get("pretrained")
    return None if name is None else str(name), str(weights) if weights else None


def _model_text(run: Run) -> str:
    name, weights = model_of(run)
    if name is None or name == "mini":
        return f"its model is {name or 'not stated'}"
    return f"its model is {name} with {'OpenAI' if weights == 'openai' else weights or 'unknown'} weights"


def budget_changes(run: Run) -> str:
    """The ``KEY VALUE`` overrides of a ``reproduce.py`` command that make a run differ from its row; else empty."""
    words = str(run.about.get("command") or "").split()
    if not words or not words[0].endswith("reproduce.py"):
        return ""
    options = f"METHOD.{str(run.settings.get('method')).upper()}."
    changes = []
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key not in _known_keys() or key.startswith(tuple(_NO_BUDGET)):
            continue
        of_method = key.startswith("METHOD.") and key != "METHOD.NAME"
        # Hand prompts learn nothing, and methods read no keys of others.
        if (run.hand and not of_method) or (of_method and not key.startswith(options)):
            continue
        changes.append(f"{key} {value if equals else ' '.join(words[place + 1 : place + 2])}".strip())
    return " ".join(changes)


@cache
def _known_keys() -> frozenset[str]:
    return frozenset(dict(flatten(default_config())))


def _architecture_reason(settings: Mapping[str, Any], run: Run) -> str | None:
    """For a detector or segmenter, from its configuration."""
    stated = dict(flatten(_configuration(str(run.about.get("config") or ""))))
    for key, expected in settings.items():
        if stated.get(key) != expected:
            value = "not stated" if stated.get(key) is None else stated[key]
            return f"its {key} is {value}, published is {expected}"
    return None


@lru_cache(maxsize=256)
def _configuration(dump: str) -> dict[str, Any]:
    """A resolved configuration; empty for a file's name or anything else."""
    if ":" not in dump or not re.search(r"^\s*MODEL:", dump, re.MULTILINE):
        return {}
    try:
        configuration = yaml.safe_load(dump)
    except yaml.YAMLError:
        return {}
    return configuration if isinstance(configuration, dict) else {}
