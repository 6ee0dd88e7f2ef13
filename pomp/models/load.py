"""From the name of a model to a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pomp.configurations import configuration, configurations
from pomp.models.photo_model import Model
from prompt_core.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pomp.learning.word_thresholds import WordThresholds
    from prompt_core.prompt import SoftPrompt

TASKS = ("classify", "detect", "segment")
EMBEDDED = {"detect": "mini/detector", "segment": "mini/segmenter"}


def load(
    model: str | os.PathLike[str] = "mini",
    task: str = "",
    *,
    prompt: SoftPrompt | str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] = "",
    threshold: float | None = None,
    device: str = "auto",
    settings: Sequence[str] = (),
    thresholds: str | os.PathLike[str] = "",
) -> Model:
    """A classifier, a detector or a segmenter; nothing is downloaded.

    Args:
        model: ``mini`` for the embedded models; the name of a configuration (``pomp models`` lists them), a YAML file
            or the folder of a run, each of a detector or a segmenter; or a CLIP of open_clip as ``NAME:PRETRAINED``,
            for a classifier.
        task: ``detect`` (default of ``mini``), ``segment`` or ``classify``; where left out, what the model is for.
        prompt: what words are encoded with: a prompt, its file, or templates with ``{}`` separated by ``|``.
        weights: a checkpoint, instead of the newest of a run or the one that a configuration names.
        threshold: the lowest score of a detection, or the own share above which a photo gets a word (default 0.3, 0.5).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        settings: of the configuration of a detector or a segmenter, ``KEY=VALUE`` each.
        thresholds: the file of ``pomp thresholds``: one for each word, instead of ``threshold``.

    Raises:
        UserError: an unknown model or task, a model of another task, weights or a prompt that do not fit.
    """
    name = os.fspath(model)
    if task and task not in TASKS:
        raise UserError(f"task {task!r} is not one of {', '.join(TASKS)}")
    if name == "mini" and task != "classify":
        name = str(configuration(EMBEDDED[task or "detect"]))
    elif name in configurations():
        name = str(configuration(name))
    subject = prompt if prompt is None or not isinstance(prompt, str | os.PathLike) else os.fspath(prompt)
    if name.endswith((".yaml", ".yml")) or Path(name).is_dir():
        return load_on_detectron2(
            name, task, subject, os.fspath(weights), threshold, device, settings, thresholds=os.fspath(thresholds)
        )
    if task not in ("", "classify"):
        raise UserError(
            f"model {name!r} is neither a configuration{nearest(name, configurations())} nor the folder of a run, and "
            f"is to {task}; pomp models lists what there is"
        )
    from pomp.models.photo_classifier import check_known, load_classifier

    check_known(name, configurations())
    bounds = _thresholds(os.fspath(thresholds), threshold, "classify")
    return load_classifier(name, subject, os.fspath(weights), threshold, device, bounds)


def load_on_detectron2(
    name: str,
    task: str = "",
    prompt: SoftPrompt | str | None = None,
    weights: str = "",
    threshold: float | None = None,
    device: str = "auto",
    settings: Sequence[str] = (),
    words: str = "",
    thresholds: str = "",
) -> Model:
    """The detector or segmenter of a configuration's file or of a run's folder, see :func:`load`.

    Args:
        words: that a detector begins with; its own class matrix, which may be absent, is not read then.

    Raises:
        UserError: a model of another task, weights or a prompt that do not fit.
    """
    import pomp_seg
    from pomp_engine.run_folder import model_files

    config, checkpoint = model_files(name, weights)
    overrides = [f"MODEL.WEIGHTS={checkpoint}"] if checkpoint else []
    if device != "auto":
        overrides.append(f"MODEL.DEVICE={device}")
    overrides += settings
    own = "segment" if pomp_seg.is_segmenter(config, overrides) else "detect"
    if task not in ("", own):
        raise UserError(f"{name} is a model to {own}, and the task is to {task}; give a model of that task")
    if prompt is not None and not isinstance(prompt, str):
        raise UserError("a detector or a segmenter reads its prompt from a file; save it, and give the file")
    if own == "segment":
        from pomp.models.photo_segmenter import load_segmenter

        if threshold is not None or thresholds:
            raise UserError("a threshold is for detectors and classifiers; a segmenter gives each pixel its best word")
        return load_segmenter(config, overrides, prompt or "")
    from pomp.models.photo_detector import load_detector

    bounds = _thresholds(thresholds, threshold, "detect")
    return load_detector(config, overrides, prompt or "", threshold, words, bounds)


def _thresholds(file: str, threshold: float | None, task: str) -> WordThresholds | None:
    if not file:
        return None
    from pomp.learning.word_thresholds import WordThresholds

    if threshold is not None:
        raise UserError("a threshold of all words and thresholds of each word are given; give one of them")
    return WordThresholds.load(file, task)
