"""What a photo costs the embedded detector, beside its frozen networks alone: time, loading and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pomp_lab.benchmarks.harness import measure_memory, spread, target, timed

DETECTION, BOTH = "detection network alone", "both networks alone"
THRESHOLD = 0.3  # of tools/predict.py
# Bounds: of a photo by the networks alone, of the most words by fewer, of loading by a photo, of the process.
WHOLE, MORE_WORDS, LOADING, MEMORY = 2.5, 1.2, 10.0, 10**9


def measure_cost(
    config: str,
    settings: Mapping[str, Any],
    photos: Sequence[str],
    vocabularies: Sequence[str],
    repeats: int,
    loading: Sequence[float] = (),
) -> dict[str, Any]:
    """Seconds of a photo with one thread, from its pixels to boxes, words and masks in run lengths.

    They are those of the processor (:func:`now`), so that others on the machine count less. Everything takes turns on
    the same photos, so that a slow phase affects all of it. To be called in a process of its own: memory is the
    process's peak.

    Args:
        vocabularies: from few to many words.
        repeats: turns; each begins with a photo that is not counted.
        loading: of :func:`measure_loading` in other processes.

    Raises:
        UserError: photos or weights that cannot be read; no Linux.
    """
    torch.set_num_threads(1)
    import pomp_det
    from pomp_det.class_matrix import classifier_of_names
    from pomp_det.classifier import set_classifier
    from pomp_det.photo_detections import PhotoDetections, coco_rows
    from pomp_lab.benchmarks.detector_inputs import read_inputs
    from prompt_core.data.open_photo import read_photo

    cfg = pomp_det.load_config(config, {**settings, "MODEL.DEVICE": "cpu"})
    pixels = [read_photo(photo) for photo in photos]

    def load() -> Any:
        predictor, seconds = _loaded(cfg)
        task = PhotoDetections(predictor, THRESHOLD)
        return task, seconds, coco_rows(task.predict(pixels[0]))

    first = measure_memory(load)
    task, loaded, _ = first["result"]
    model = task._predictor.model
    inputs = [model.preprocess_image([example]).tensor for example in read_inputs(cfg, photos)]
    matrices, encoding = {}, {}
    for vocabulary in vocabularies:
        made, encoding[vocabulary] = timed(lambda: classifier_of_names(cfg, vocabulary, cfg.MODEL.PROMPT))  # noqa: B023
        matrices[f"{len(made):,} words"] = made

    def whole(number: int) -> None:
        coco_rows(task.predict(pixels[number]))

    work: dict[str, Callable[[int], Any]] = {
        DETECTION: lambda number: model.backbone.detection(inputs[number]),
        BOTH: lambda number: model.backbone(inputs[number]),
        **dict.fromkeys(matrices, whole),
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in work}
    with torch.inference_mode():
        for _ in range(repeats):
            for name, measured in work.items():
                if name in matrices:
                    set_classifier(model, matrices[name])
                measured(0)
                marks = [now()]
                for number in range(len(photos)):
                    measured(number)
                    marks.append(now())
                seconds[name].append(np.diff(marks).tolist())
        parts = {name: _parts(task, model, made, pixels) for name, made in matrices.items()}
    every = measure_memory(lambda: whole(0))
    memory = {"one vocabulary": first["peak_bytes"], "all vocabularies": every["peak_bytes"]}
    fastest = {name: float(np.min(turns, axis=0).mean()) for name, turns in seconds.items()}
    loading = [*loading, loaded]
    return {
        "photos": len(photos),
        "sizes": sorted({f"{photo.shape[1]} x {photo.shape[0]}" for photo in pixels}),
        "seconds": {
            name: {"fastest": fastest[name], **spread([float(np.mean(turn)) for turn in turns])}
            for name, turns in seconds.items()
        },
        "parts": parts,
        "loading_seconds": spread(loading),
        "encoding_seconds": encoding,
        "peak_bytes": memory,
        "bounds": bounds(fastest, min(loading), first["peak_bytes"]),
    }


def now() -> float:
    """Seconds that the processor spent on this process: with one thread, those of the clock on a machine of its own."""
    return time.process_time()


def measure_loading(config: str, settings: Mapping[str, Any]) -> float:
    """Seconds of building the model with its weights and the configured words, in a fresh process."""
    torch.set_num_threads(1)
    import pomp_det

    return _loaded(pomp_det.load_config(config, {**settings, "MODEL.DEVICE": "cpu"}))[1]


def _loaded(cfg: Any) -> tuple[Any, float]:
    from pomp_det.predictor import OpenVocabularyPredictor

    started = now()
    return OpenVocabularyPredictor.load(cfg, cfg.MODEL.VOCABULARY), now() - started


def bounds(seconds: Mapping[str, float], loading: float, peak: int) -> dict[str, Any]:
    """What was asked of a photo's cost.

    Args:
        seconds: of a photo; first by the two networks alone, then by the whole with more and more words. Of each photo
            that is the fastest turn, for what else the machine does only adds.
        loading: seconds of building the model, its weights and the configured words.
        peak: bytes.
    """
    words = [name for name in seconds if name not in (DETECTION, BOTH)]
    fewer, most = words[-2 if len(words) > 1 else -1], words[-1]
    result = {f"{fewer} by {alone}": target(seconds[fewer] / seconds[alone], high=WHOLE) for alone in (DETECTION, BOTH)}
    if most != fewer:
        result[f"{most} by {fewer}"] = target(seconds[most] / seconds[fewer], high=MORE_WORDS)
    result["loading by photos"] = target(loading / seconds[words[0]], high=LOADING)
    result["bytes of the process"] = target(peak, high=MEMORY)
    return result


def _parts(task: Any, model: Any, matrix: Any, pixels: Sequence[np.ndarray]) -> dict[str, float]:
    """Seconds of a photo in each part of the whole; masks in run lengths are ``pasting``."""
    from pomp_det.classifier import set_classifier
    from pomp_det.photo_detections import coco_rows
    from pomp_lab.benchmarks.detector import PARTS, PartTimer

    set_classifier(model, matrix)
    coco_rows(task.predict(pixels[0]))
    timer = PartTimer(torch.device("cpu"), now)
    with timer.watching(model):
        for photo in pixels:
            with timer.part("rest"):
                found = task.predict(photo)
            with timer.part("pasting"):
                coco_rows(found)
    return {name: timer.seconds[name] / len(pixels) for name in PARTS}


def photos_of(folder: Path, count: int) -> list[str]:
    """Some of the photos in a folder, evenly spread over their sorted names.

    Raises:
        UserError: a folder that does not exist or holds none.
    """
    from prompt_core.data.photo_files import find_photos

    found = find_photos([folder])
    places = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [str(found[place]) for place in places]
