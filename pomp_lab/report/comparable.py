"""Whether a number of ours is comparable with a published one, and if not, why.

It is where both have the same images, candidates and metric, the same architecture and weights, and where the run kept
the budget of its row. Whatever a run does not state counts as different.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pomp_lab.report.columns import Column
from pomp_lab.report.foreign import read_configuration
from pomp_lab.report.published import PublishedColumn, PublishedTable, load_published
from pomp_lab.report.results import Run
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
    runs = [run for run in runs if column in run.numbers]
    models = [other.model or published.model for other in columns]
    of_runs = (reason for run in runs for reason in _run_reasons(published, models, run))
    return next(itertools.chain(_protocol_reasons(published, columns, column, runs), of_runs), None)


def _protocol_reasons(
    published: PublishedTable, columns: Sequence[PublishedColumn], column: Column, runs: Sequence[Run]
) -> Iterator[str]:
    """Which entries of a protocol differ from the published ones."""
    metric = column.protocol.get("metric")
    if metric is None:
        yield "its metric is not stated"
    elif metric not in published.metrics:
        yield f"its metric is {metric}, not {published.metrics[0]}"
    elif "mean_of" in column.protocol:
        yield from _member_reasons(column.dataset, runs)
    elif published.task == "classification":
        yield from _image_reasons((column.dataset, *(name for other in columns for name in other.datasets)), column)
    else:
        yield from _dense_reasons(column)


def _member_reasons(average: str, runs: Sequence[Run]) -> Iterator[str]:
    """For an average: only its members matter, whatever else a run was scored on."""
    members = [
        table.columns[place]
        for table in load_published()
        for column in table.columns
        if column.is_of(average)
        for place in column.means
    ]
    if not members:
        yield "it is not a published average"
    for column in (column for run in runs for column in run.numbers):
        for member in (member for member in members if member.measures(column)):
            for reason in _image_reasons((column.dataset, *member.datasets), column):
                yield f"one of its data sets differs ({column.dataset}: {reason})"


def _image_reasons(names: Sequence[str], column: Column) -> Iterator[str]:
    """For photos: images and classes are counted.

    An official or generated division into splits has different test images from the published one, and a part of a data
    set is a different data set.

    Args:
        names: of the data set; one of them is catalogued.
    """
    protocol = column.protocol
    entry = next(filter(None, map(find_entry, names)), None)
    if entry is None:
        yield "it is not a published data set"
        return
    # Where the set has no val split, val means the test images.
    if protocol.get("split") not in (("test",) if "val" in entry.splits else ("test", "val")):
        yield f"its split is {protocol.get('split', 'not stated')}, the published one is test"
    for part in filter(None, (protocol.get("images_of"), protocol.get("half"))):
        yield f"it covers only part of the images ({part})"
    yield from _division_reasons(entry, str(protocol.get("source")))
    unreadable = protocol.get("unreadable")
    left_out = len(unreadable) if isinstance(unreadable, list) else 0
    yield from _count_reasons(protocol, "images", left_out, entry.test.number, "test images")
    yield from _count_reasons(protocol, "candidates", 0, entry.classes.number, "classes")
    # The ten sets of the transfer table have no two classes of one name.
    if protocol.get("namesakes") == "merged" and entry.name.startswith("imagenet"):
        yield "classes with the same name count as one, the published ones are separate (EVAL.NAMESAKES separate)"


def _division_reasons(entry: ClassificationEntry, source: str) -> Iterator[str]:
    # Where the published split keeps the official test images, all divisions have them.
    if isinstance(entry.reader, Benchmark) and not entry.reader.keeps_test:
        for division in ("generated", "official"):
            if f"{division} split" in source:
                yield f"its {division} split has other test images than the published one"
        if "published split" not in source:
            yield "its division into splits is not stated"


def _count_reasons(protocol: Mapping[str, Any], key: str, more: int, expected: int, things: str) -> Iterator[str]:
    number = protocol.get(key)
    if isinstance(number, bool) or not isinstance(number, int):
        yield f"its number of {things} is not stated"
    elif number + more != expected:
        yield f"{number + more:,} {things}, the published number has {expected:,}"


def _dense_reasons(column: Column) -> Iterator[str]:
    """For detectors and segmenters."""
    protocol = column.protocol
    if column.dataset in IMAGES:
        yield from _count_reasons(protocol, "images", 0, IMAGES[column.dataset], "images")
    if protocol.get("oracle"):
        yield f"an oracle gives {protocol['oracle']}"
    detections = str(protocol.get("detections", "not stated"))
    if column.dataset.startswith("lvis") and not detections.startswith("300 of an image"):
        yield f"its detections are {detections}, the published ones are 300 of an image"
    if "IoU" in column.metric and column.metric != "fwIoU" and protocol.get("miou_denominator") != "union":
        stated = str(protocol.get("miou_denominator", "not stated")).replace("_", " ")
        yield f"its mIoU averages over classes with {stated}, the published one with ground truth or predictions"


def _run_reasons(published: PublishedTable, models: Sequence[str], run: Run) -> Iterator[str]:
    """Why a run's model is none of ``models``, or its budget is not that of its row."""
    if published.settings:
        for key, expected in published.settings.items():
            if (stated := _setting(run, key)) != expected:
                yield f"its {key} is {'not stated' if stated is None else stated}, the published one is {expected}"
        return
    architecture, weights = model_of(run)
    if weights != "openai" or architecture not in [ARCHITECTURES[model] for model in models if model]:
        ours = architecture or "not stated"
        if architecture not in (None, "mini"):
            ours += f" with {'OpenAI' if weights == 'openai' else weights or 'unknown'} weights"
        known = " and ".join(", ".join(models).rsplit(", ", 1))
        published_ones = "the published ones are" if len(models) > 1 else "the published one is"
        wanted = f"{published_ones} OpenAI's {known}" if known else "the published table names none"
        yield f"its model is {ours}, {wanted}"
    if changed := budget_changes(run):
        yield f"it was run with {changed}, the published one was not"


def model_of(run: Run) -> tuple[str | None, str | None]:
    """Architecture and weights of a run's CLIP, None for what it does not state."""
    if "clip" in run.about:
        name, weights = run.about["clip"], run.about.get("pretrained")
    else:
        name, weights = _setting(run, "MODEL.NAME"), _setting(run, "MODEL.PRETRAINED")
    return None if name is None else str(name), str(weights) if weights else None


def _setting(run: Run, key: str) -> Any:
    """A value of the resolved configuration that the run wrote down, None without one."""
    value: Any = read_configuration(str(run.about.get("config") or ""))
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


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
