"""LVIS scoring by hotcoco and by lvis-api: time and numbers on the same synthetic files, each in a fresh process."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pomp_det.evaluation.prediction_files import write_results
from pomp_det.evaluation.scoring import TASKS
from pomp_det.evaluation.selection import LVIS_DETECTIONS
from pomp_engine.data.derived_files import write_compact_json
from pomp_lab.benchmarks.synthetic_lvis import synthetic_annotations, synthetic_detections
from pomp_lab.benchmarks.text import spread
from prompt_core.errors import UserError, nearest, run_command

SIDES = ("hotcoco", "lvis-api")
TOLERANCE = 1e-9
STEPS = ("load", "evaluate")


def compare_scorers(
    images: int,
    classes: int,
    detections: int,
    task: str,
    seed: int = 0,
    repeats: int = 1,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Score one synthetic data set by both.

    Args:
        detections: of each image; the scorers look at the best 300.
        task: ``bbox`` or ``segm``.
        repeats: measurements of each side, in turns.

    Returns:
        what was scored (``images``, ``classes``, ``annotations``, ``detections`` of all images); of each side
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
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for turn in range(repeats):
            for side in SIDES:
                found[side].append(_in_fresh_process(side, annotations, results, task))
                seconds = found[side][-1]["seconds"]
                progress(f"{task}, {side}, {turn + 1} of {repeats}: {seconds:.3g} s")
    quantities = ("seconds", *STEPS, "processor_seconds")
    sides = {
        side: {"numbers": each[-1]["numbers"], **{name: spread([one[name] for one in each]) for name in quantities}}
        for side, each in found.items()
    }
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
    """Between numbers of the same names; infinite where a number is missing or defined on one side only."""
    if first.keys() != second.keys():
        return math.inf
    pairs = [(first[name], second[name]) for name in first]
    if any((one is None) != (other is None) for one, other in pairs):
        return math.inf
    return max((abs(one - other) for one, other in pairs if one is not None and other is not None), default=0.0)


def _in_fresh_process(side: str, annotations: Path, results: Path, task: str) -> dict[str, Any]:
    module = "pomp_lab.benchmarks.lvis_scoring"
    command = [sys.executable, "-W", "ignore", "-m", module, side, str(annotations), str(results), task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"its process ended with code {done.returncode}"])[-1]
        raise UserError(f"{side} could not be measured: {last.removeprefix('error: ')}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def score_once(side: str, annotations: str, results: str, task: str) -> dict[str, Any]:
    """Time from files to the 13 numbers in this process; importing the scorer does not count.

    Raises:
        UserError: when the scorer is not installed.
    """
    try:
        load, evaluate = (_hotcoco if side == "hotcoco" else _lvis_api)(annotations, results, task)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; run: pip install {error.name}") from error
    started, processor = time.perf_counter(), time.process_time()
    evaluator = load()
    loaded = time.perf_counter()
    numbers = evaluate(evaluator)
    ended = time.perf_counter()
    return {
        "seconds": ended - started,
        "load": loaded - started,
        "evaluate": ended - loaded,
        "processor_seconds": time.process_time() - processor,
        "numbers": {name: float(value) if value > -1 else None for name, value in numbers.items()},
    }


Scorer = tuple[Callable[[], Any], Callable[[Any], dict[str, float]]]


def _hotcoco(annotations: str, results: str, task: str) -> Scorer:
    from hotcoco import COCO, LVISEval, LVISResults

    def load() -> Any:
        truth = COCO(annotations)
        return LVISEval(truth, LVISResults(truth, results, max_dets=LVIS_DETECTIONS), task)

    return load, _run


def _lvis_api(annotations: str, results: str, task: str) -> Scorer:
    # lvis 0.5.3, the newest on the package index, uses an alias that NumPy 1.24 removed. It is put back only here, in
    # a process of lvis-api's own that measures it as published; scoring refuses such a pair of versions.
    if not hasattr(np, "float"):
        np.float = float  # type: ignore[attr-defined]  # noqa: NPY001
    from lvis import LVIS, LVISEval, LVISResults

    logging.getLogger("lvis").setLevel(logging.ERROR)

    def load() -> Any:
        truth = LVIS(annotations)
        return LVISEval(truth, LVISResults(truth, results, max_dets=LVIS_DETECTIONS), task)

    return load, _run


def _run(evaluator: Any) -> dict[str, float]:
    evaluator.run()
    numbers: dict[str, float] = evaluator.get_results()
    return numbers


if __name__ == "__main__":
    run_command(lambda: print(json.dumps(score_once(*sys.argv[1:]))))
