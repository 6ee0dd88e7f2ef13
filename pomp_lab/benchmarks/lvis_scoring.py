"""LVIS scoring by hotcoco and by lvis-api: time and numbers on the same synthetic files, each in a fresh process."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from pomp_det.evaluation.prediction_files import write_results
from pomp_det.evaluation.protocol import LVIS_DETECTIONS
from pomp_det.evaluation.scoring import TASKS
from pomp_engine.data.derived_files import write_compact_json
from pomp_lab.benchmarks.harness import Measured, take_turns, target
from pomp_lab.benchmarks.synthetic_lvis import synthetic_annotations, synthetic_detections
from prompt_core.command_line import print_table
from prompt_core.errors import UserError, nearest
from prompt_core.visible import say

SIDES = ("hotcoco", "lvis-api")
WANTED = 10.0  # times as fast as lvis-api
TOLERANCE = 1e-9
STEPS = ("load", "evaluate")


def compare_scorers(
    images: int,
    classes: int,
    detections: int,
    task: str,
    seed: int = 0,
    repeats: int = 1,
) -> dict[str, Any]:
    """Score one synthetic data set by both.

    Args:
        detections: of each image; the scorers look at the best 300.
        task: ``bbox`` or ``segm``.
        repeats: measurements of each scorer, in turns.

    Returns:
        what was scored (``images``, ``classes``, ``annotations``, ``detections`` of all images); for each scorer
        ``numbers`` (13, None where undefined) and the :func:`spread` of ``seconds`` from files to numbers, of its steps
        ``load`` and ``evaluate`` and of the ``processor_seconds`` of all threads; ``ratio`` and ``evaluate_ratio``,
        how many times as long lvis-api takes; ``largest_difference`` of the numbers and whether they ``agree``.

    Raises:
        UserError: an unknown task, too few classes, or a scorer that is not installed or fails.
    """
    if task not in TASKS:
        raise UserError(f"task {task!r} is unknown{nearest(task, TASKS)}; expected {', '.join(TASKS)}")
    with tempfile.TemporaryDirectory(prefix="scoring_benchmark.") as folder:
        annotations, results = Path(folder) / "annotations.json", Path(folder) / "results.json"
        document = synthetic_annotations(images, classes, seed)
        write_compact_json(annotations, document)
        total = write_results(results, synthetic_detections(document, detections, task == "segm", seed))
        jobs = {side: (side, str(annotations), str(results), task) for side in SIDES}
        sides = take_turns(score_once, jobs, repeats, ("seconds", *STEPS, "processor_seconds"))
    fast, reference = (sides[side] for side in SIDES)
    difference = largest_difference(fast["numbers"], reference["numbers"])
    return {
        "images": images,
        "classes": classes,
        "annotations": len(document["annotations"]),
        "detections": total,
        "ratio": reference["seconds"]["median"] / fast["seconds"]["median"],
        "evaluate_ratio": reference["evaluate"]["median"] / fast["evaluate"]["median"],
        "largest_difference": difference if math.isfinite(difference) else None,
        "agree": difference <= TOLERANCE,
        **sides,
    }


def largest_difference(first: dict[str, float | None], second: dict[str, float | None]) -> float:
    """Between numbers of the same names; infinite where a number is missing or defined only for one scorer."""
    if first.keys() != second.keys():
        return math.inf
    pairs = [(first[name], second[name]) for name in first]
    if any((left is None) != (right is None) for left, right in pairs):
        return math.inf
    return max((abs(left - right) for left, right in pairs if left is not None and right is not None), default=0.0)


def score_once(side: str, annotations: str, results: str, task: str) -> Measured:
    """Time from files to the 13 numbers in this process; importing the scorer does not count.

    Raises:
        UserError: when the scorer is not installed.
    """
    try:
        truth, detections, evaluator = _scorer(side)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; run: pip install {error.name}") from error
    started, processor = time.perf_counter(), time.process_time()
    labels = truth(annotations)
    evaluation = evaluator(labels, detections(labels, results, max_dets=LVIS_DETECTIONS), task)
    loaded = time.perf_counter()
    evaluation.run()
    numbers = evaluation.get_results()
    ended = time.perf_counter()
    return {
        "seconds": ended - started,
        "load": loaded - started,
        "evaluate": ended - loaded,
        "processor_seconds": time.process_time() - processor,
        "numbers": {name: float(value) if value > -1 else None for name, value in numbers.items()},
    }


def _scorer(side: str) -> tuple[Any, Any, Any]:
    """Classes of the truth, of results, and of the evaluation."""
    if side == "hotcoco":
        from hotcoco import COCO, LVISEval, LVISResults

        return COCO, LVISResults, LVISEval
    # lvis 0.5.3, the newest on the package index, uses an alias that NumPy 1.24 removed. It is restored only here, in
    # lvis-api's own process, to measure it as published; scoring refuses such a pair of versions.
    if not hasattr(np, "float"):
        np.float = float  # type: ignore[attr-defined]  # noqa: NPY001
    import lvis

    logging.getLogger("lvis").setLevel(logging.ERROR)
    return lvis.LVIS, lvis.LVISResults, lvis.LVISEval


def scoring_report(tasks: Mapping[str, Mapping[str, Any]], set_up: Mapping[str, Any]) -> dict[str, Any]:
    """The document of :func:`compare_scorers`' results of each task."""
    targets = [
        {"task": task, "meaning": "times as fast as lvis-api", **target(result["ratio"], low=WANTED)}
        for task, result in tasks.items()
    ]
    return {"set_up": dict(set_up), "targets": targets, "tasks": dict(tasks)}


def print_report(report: dict[str, Any]) -> None:
    """Times of both scorers, their ratio, and whether their numbers agree."""
    table = Table("task", "scorer", "seconds", "loading", "evaluation", "processor seconds")
    for task, result in report["tasks"].items():
        for side in SIDES:
            times = (result[side][name]["median"] for name in ("seconds", "load", "evaluate", "processor_seconds"))
            table.add_row(task, side, *(f"{seconds:.3g}" for seconds in times))
    print_table(table)
    for row in report["targets"]:
        result = report["tasks"][row["task"]]
        numbers = f"{result['images']:,} images, {result['classes']:,} classes, {result['detections']:,} detections"
        say(
            f"{row['task']}: {row['measured']:.1f} {row['meaning']} ({result['evaluate_ratio']:.1f} without "
            f"loading) on {numbers}; wanted: {row['wanted']}; {'met' if row['met'] else 'missed'}"
        )
        if result["agree"]:
            say(f"{row['task']}: all {len(result['hotcoco']['numbers'])} numbers agree to 1e-9")
        else:
            say(f"{row['task']}: THE NUMBERS DIFFER, by up to {result['largest_difference']}")
