"""Inference time of a detector by its number of classes, in total and part by part."""

from __future__ import annotations

import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from rich.table import Table
from torch import nn

from pomp_det.class_matrix import source_of
from pomp_det.classifier import set_classifier, zero_shot_predictors
from pomp_det.heads.inference import best_pairs
from pomp_lab.benchmarks.harness import spread, target
from prompt_core.classifier import TextClassifier
from prompt_core.command_line import print_table
from prompt_core.visible import say

GROWTH = (1203, 21843, 1.5)  # bound on the growth of the time per image from the first to the second number of classes
# Class scores are projection, product with the class matrix, selection and suppression; pasting resizes boxes and masks
# to the photo. The rest is what belongs to no other part.
PARTS = ("backbone", "proposals", "box heads", "class scores", "masks", "pasting", "rest")


class PartTimer:
    """Seconds that a detector spends in each of :data:`PARTS`; a nested part is subtracted from the outer one.

    Args:
        device: a GPU is synchronised whenever a part starts or ends.
        now: seconds; those of the wall clock where left out.
    """

    def __init__(self, device: torch.device, now: Callable[[], float] | None = None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._now = now or functools.partial(clock, device)
        self._inside: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what happens inside as part ``name``."""
        self._settle()
        self._inside.append(name)
        try:
            yield
        finally:
            self._settle()
            self._inside.pop()

    def _settle(self) -> None:
        now = self._now()
        if self._inside:
            self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """``function``, whose calls are timed as part ``name``."""

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*arguments, **options)

        return call

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Time the parts of ``model`` inside the context manager."""
        heads: Any = model.roi_heads
        calls: list[tuple[Any, str, str]] = [
            (model.backbone, "forward", "backbone"),
            (model.proposal_generator, "forward", "proposals"),
            (heads, "forward", "box heads"),
            (heads, "forward_with_given_boxes", "masks"),
            (model, "_postprocess", "pasting"),
        ]
        for predictor in zero_shot_predictors(model):
            calls += [(predictor, "detect", "class scores")]
            calls += [(predictor.cls_score, name, "class scores") for name in ("forward", "project")]
        with ExitStack() as stack:
            for owner, name, part in calls:
                stack.enter_context(patch.object(owner, name, self.timed(getattr(owner, name), part)))
            yield


def clock(device: torch.device) -> float:
    """Seconds, after waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure_classes(
    model: nn.Module,
    inputs: Sequence[Mapping[str, Any]],
    matrices: Sequence[TextClassifier],
    repeats: int,
) -> list[dict[str, Any]]:
    """Time per image with each class matrix.

    The matrices take turns, so that a slow phase of the machine affects all of them. Totals are measured without
    instrumentation, parts in separate calls. The detector keeps the last matrix.

    Args:
        model: a detector with zero-shot classifiers.
        inputs: images as the detector takes them, run one by one.
        repeats: turns of each matrix; one more warms up.

    Returns:
        for each matrix ``classes``, ``source``, ``seconds`` per image and ``parts`` (:func:`spread` over the turns of
        the mean over the images), and the means over the images of ``detections``, ``proposals`` and
        ``passing_pairs``: pairs of proposal and class above the score threshold; None for both where a table of all
        scores is made.

    Raises:
        UserError: a matrix that does not fit the detector.
    """
    model.eval()
    device = next(model.parameters()).device
    totals: list[list[float]] = [[] for _ in matrices]
    parts: list[list[dict[str, float]]] = [[] for _ in matrices]
    facts: list[dict[str, Any]] = []
    with torch.inference_mode():
        for matrix in matrices:
            set_classifier(model, matrix)
            facts.append(_observe(model, inputs))
        for turn in range(repeats):
            for number, matrix in enumerate(matrices):
                set_classifier(model, matrix)
                started = clock(device)
                for example in inputs:
                    model([example])
                totals[number].append((clock(device) - started) / len(inputs))
                timer = PartTimer(device)
                with timer.watching(model):
                    for example in inputs:
                        with timer.part("rest"):
                            model([example])
                parts[number].append({name: timer.seconds[name] / len(inputs) for name in PARTS})
                spent = f"{totals[number][-1]:.3g} s per image"
                say(f"  {len(matrix)} classes, {turn + 1} of {repeats}: {spent}", error=True)
    return [
        {
            "classes": len(matrix),
            "source": source_of(matrix),
            **facts[number],
            "seconds": spread(totals[number]),
            "parts": {name: spread([turn_parts[name] for turn_parts in parts[number]]) for name in PARTS},
        }
        for number, matrix in enumerate(matrices)
    ]


def _observe(model: nn.Module, inputs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """One untimed run: numbers of proposals, scored pairs and detections, means over the images."""
    from pomp_det.heads import box_predictor

    original = box_predictor.fast_detections
    counts: dict[str, list[int]] = {"detections": [], "proposals": [], "passing_pairs": []}

    def counting(stages: Any, proposal_scores: Any, boxes: Any, size: Any, threshold: float, *options: Any) -> Any:
        every = best_pairs(stages, proposal_scores, boxes, threshold, limit=-1)
        counts["passing_pairs"].append(len(every.scores))
        counts["proposals"].append(len(boxes))
        return original(stages, proposal_scores, boxes, size, threshold, *options)

    with patch.object(box_predictor, "fast_detections", counting):
        for example in inputs:
            (output,) = model([example])
            counts["detections"].append(len(output["instances"]))
    return {name: statistics.fmean(values) if values else None for name, values in counts.items()}


def growth(rows: Sequence[Mapping[str, Any]], low: int, high: int) -> float | None:
    """Ratio of the times per image of ``high`` and ``low`` classes; None unless both were measured.

    The median over the turns: the two times of a turn are measured close together, so a slow phase affects both.
    """
    seconds = {row["classes"]: row["seconds"]["all"] for row in rows}
    if low not in seconds or high not in seconds:
        return None
    return statistics.median(after / before for before, after in zip(seconds[low], seconds[high], strict=True))


def classes_report(rows: Sequence[Mapping[str, Any]], set_up: Mapping[str, Any]) -> dict[str, Any]:
    """The document of :func:`measure_classes`' rows, with the bounded growth where it was measured."""
    low, high, most = GROWTH
    ratio = growth(rows, low, high)
    bounded = None if ratio is None else {"from": low, "to": high, **target(ratio, high=most)}
    return {"set_up": dict(set_up), "classes": list(rows), "growth": bounded}


def print_report(report: dict[str, Any]) -> None:
    """A column for each number of classes, with milliseconds in total and of each part."""
    rows = report["classes"]
    table = Table("per image", *(f"{row['classes']:,} classes" for row in rows))
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("all", *(_milliseconds(row["seconds"]) for row in rows))
    for part in rows[0]["parts"]:
        table.add_row(part, *(_milliseconds(row["parts"][part]) for row in rows))
    for fact in ("proposals", "passing_pairs", "detections"):
        table.add_row(fact.replace("_", " "), *("-" if row[fact] is None else f"{row[fact]:,.0f}" for row in rows))
    print_table(table)
    for row in rows:
        say(f"{row['classes']:,} classes: {row['source']}")
    if report["growth"]:
        growth = report["growth"]
        say(
            f"{growth['to']:,} classes take {growth['measured']:.3f} times the time of {growth['from']:,}; wanted: "
            f"{growth['wanted']}; {'met' if growth['met'] else 'missed'}"
        )


def _milliseconds(seconds: dict[str, Any]) -> str:
    return "{:.1f} ms ({:.1f} to {:.1f})".format(*(1000 * seconds[key] for key in ("median", "min", "max")))
