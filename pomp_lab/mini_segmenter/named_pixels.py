"""What "none of these" is worth to a segmenter: photos of Pascal VOC, asked for all of its words or half of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pomp_lab.runs import Document
from pomp_seg import load_config
from pomp_seg.data.label_maps import read_label_map
from pomp_seg.data.label_sets import label_set
from pomp_seg.evaluation.metrics import class_scores, confusion_matrix
from pomp_seg.predictor import OpenVocabularySegmenter
from prompt_core.data.open_photo import read_photo
from prompt_core.documents.bounds import read_text
from prompt_core.errors import UserError

IGNORE = 255
THRESHOLDS = (0.0, 0.3, 0.5, 0.7)  # at 0 each pixel gets a word
HEAD = "MODEL.SEM_SEG_HEAD."
KEYS = (f"{HEAD}BACKGROUND", f"{HEAD}NONE_OF_THESE")


def word_sets() -> dict[str, list[int]]:
    """Which of VOC's 20 classes are asked for: all, and each half."""
    every = list(range(len(label_set("voc").vocabulary)))
    return {"all 20 words": every, "every second word": every[::2], "the other 10 words": every[1::2]}


def truth_of(labels: np.ndarray, asked: Sequence[int]) -> np.ndarray:
    """VOC's labels (0: everything else, 255: a border) as places in ``asked``; what is not asked for comes last."""
    table = np.full(256, len(asked), np.uint8)
    table[[number + 1 for number in asked]] = range(len(asked))
    table[IGNORE] = IGNORE
    return table[labels]


def numbers(confusion: np.ndarray) -> dict[str, float]:
    """In percent, of pixels by predicted (row) and true class (column), of which the last but one is "none of these".

    Returns:
        ``mIoU`` over the words and none of these, ``mIoU of words alone`` where only pixels of the words count;
        ``named``, how many pixels get a word; ``precision`` of these; ``recall``, how many pixels of words get theirs.
    """
    inner = confusion[:-1, :-1].astype(float)
    hits, named, words = inner.diagonal()[:-1].sum(), inner[:-1].sum(), inner[:, :-1].sum()
    alone = confusion.copy()
    alone[:, -2] = 0  # pixels that show none of the words
    return {
        "mIoU": 100 * float(np.nanmean(class_scores(confusion).iou)),
        "mIoU of words alone": 100 * float(np.nanmean(class_scores(alone).iou)),
        "named": 100 * named / inner.sum(),
        "precision": 100 * hits / max(named, 1),
        "recall": 100 * hits / max(words, 1),
    }


def none_of_these(
    config: str | Path,
    settings: Mapping[str, Any],
    root: Path,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Document:
    """The table of :data:`THRESHOLDS` for each of :func:`word_sets`.

    Args:
        root: VOC 2007 with ``SegmentationClass``, ``val2007`` and ``ImageSets/Segmentation/val.txt``.
        progress: called with (done, total).

    Raises:
        UserError: absent data or weights.
    """
    listed = root / "ImageSets" / "Segmentation" / "val.txt"
    if not listed.is_file():
        raise UserError(f"{listed} does not exist; expected VOC 2007 with its class labels")
    photos = read_text(listed).split()
    segmenter = OpenVocabularySegmenter.load(load_config(config, {**settings, KEYS[1]: min(THRESHOLDS[1:])}))
    names = label_set("voc").vocabulary.names
    sets = word_sets()
    counts = {name: [np.zeros((len(asked) + 2,) * 2, np.int64) for _ in THRESHOLDS] for name, asked in sets.items()}
    for done, photo in enumerate(photos):
        pixels = read_photo(root / "val2007" / f"{photo}.jpg")
        labels = read_label_map(root / "SegmentationClass" / f"{photo}.png")
        for name, asked in sets.items():
            segmenter.set_vocabulary([names[number] for number in asked])
            best, shares = segmenter.best(pixels)
            truth = truth_of(labels, asked)
            for threshold, confusion in zip(THRESHOLDS, counts[name], strict=True):
                found = torch.where(shares > threshold, best, len(asked)) if threshold else best
                confusion += confusion_matrix(found.numpy(), truth, len(asked) + 1, IGNORE)
        progress(done + 1, len(photos))
    result: Document = {
        f"{name}/{'each pixel a word' if not threshold else f'own share > {threshold:g}'}/{key}": value
        for name, matrices in counts.items()
        for threshold, confusion in zip(THRESHOLDS, matrices, strict=True)
        for key, value in numbers(confusion).items()
    }
    return {**result, "_protocol": {"voc_2007_val": {"images": len(photos), "ignored": "borders (255)"}}}


def cost(config: str | Path, settings: Mapping[str, Any], photos: Sequence[str], repeats: int) -> dict[str, Any]:
    """Processor seconds of a photo with 20 words, with and without own shares: of each photo the fastest turn."""
    pixels = [read_photo(photo) for photo in photos]
    plain = {**settings, **dict(zip(KEYS, ("", 0.0), strict=True))}
    segmenters = {}
    for name, given in (("each pixel a word", plain), ("own shares", settings)):
        segmenters[name] = OpenVocabularySegmenter.load(load_config(config, {**given, "MODEL.DEVICE": "cpu"}))
        segmenters[name].set_vocabulary(label_set("voc").vocabulary)
        segmenters[name](pixels[0])
    seconds = {name: np.full(len(pixels), np.inf) for name in segmenters}
    for _ in range(repeats):
        for number, photo in enumerate(pixels):
            for name, segmenter in segmenters.items():
                started = time.process_time()
                segmenter(photo)
                seconds[name][number] = min(seconds[name][number], time.process_time() - started)
    means = {name: float(values.mean()) for name, values in seconds.items()}
    first, second = means.values()
    return {"photos": len(pixels), "seconds": means, "more": second / first - 1}
