"""Label Studio: ``tasks.json``, in which a model's answers are predictions to accept or correct, and ``config.xml``.

A task names its photo by Label Studio's local files, ``/data/local-files/?d=NAME``. Boxes and polygons are in per cent
of the photo's sides, masks are brushes (:mod:`pomp.formats.brush_runs`), words of the whole photo are choices.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from pomp.formats.brush_runs import brush_of_mask
from pomp.formats.labelled import NONE_OF_THESE, LabelledObject, LabelledPhoto, Photos
from prompt_core.documents.xml_files import sayable
from prompt_core.files import atomic_path

KIND = "labelstudio"
DOCUMENT, CONFIGURATION = "tasks.json", "config.xml"
MODEL = "pomp"
IMAGE, BOXES, MASKS, WORDS = "image", "boxes", "masks", "words"


def write(photos: Photos, words: Sequence[str], folder: Path) -> None:
    """Write boxes."""
    _write(photos, words, folder, masks=False)


def write_with_masks(photos: Photos, words: Sequence[str], folder: Path) -> None:
    """Write masks as brushes; a box without a mask stays a box."""
    _write(photos, words, folder, masks=True)


def _write(photos: Photos, words: Sequence[str], folder: Path, masks: bool) -> None:
    seen: set[str] = set()
    with atomic_path(folder / DOCUMENT) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        separator = "[\n"
        for photo in photos():
            task = _task(photo, masks)
            seen |= {result["from_name"] for result in _results_of(task)}
            stream.write(separator + json.dumps(task, ensure_ascii=False))
            separator = ",\n"
        stream.write("[]\n" if separator == "[\n" else "\n]\n")
    tree = ElementTree.ElementTree(_configuration(words, seen or {BOXES}))
    ElementTree.indent(tree)
    with atomic_path(folder / CONFIGURATION) as temporary:
        tree.write(temporary, encoding="utf-8")


def _results_of(task: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        result for said in (*task.get("predictions", ()), *task.get("annotations", ())) for result in said["result"]
    ]


def _task(photo: LabelledPhoto, masks: bool) -> dict[str, Any]:
    data: dict[str, Any] = {IMAGE: f"/data/local-files/?d={quote(photo.name)}", "file_name": photo.name}
    data |= {"width": photo.width, "height": photo.height}
    results = list(_results(photo, masks))
    scores = [item.score for item in photo.objects if item.score is not None] + list(photo.scores[:1])
    if not photo.predicted:
        return {"data": data, "annotations": [{"result": results}]}
    said = {"model_version": MODEL, "result": results, **({"score": min(scores)} if scores else {})}
    return {"data": data, "predictions": [said]}


def _results(photo: LabelledPhoto, masks: bool) -> Iterator[dict[str, Any]]:
    common = {"to_name": IMAGE, "image_rotation": 0, "original_width": photo.width, "original_height": photo.height}
    for number, item in enumerate(photo.objects):
        kind, name, value = _value(item, photo, masks)
        score = {} if item.score is None else {"score": item.score}
        yield {"id": f"thing{number}", "type": kind, "from_name": name, **common, "value": value, **score}
    if photo.words is not None:
        chosen = list(photo.words[:1]) if photo.scores else list(photo.words)
        value = {"choices": chosen or [NONE_OF_THESE]}
        score = {"score": photo.scores[0]} if photo.scores and chosen else {}
        yield {"id": "words", "type": "choices", "from_name": WORDS, "to_name": IMAGE, "value": value, **score}


def _value(item: LabelledObject, photo: LabelledPhoto, masks: bool) -> tuple[str, str, dict[str, Any]]:
    if masks and item.mask is not None:
        return "brushlabels", MASKS, {"format": "rle", "rle": brush_of_mask(item.mask), "brushlabels": [item.word]}
    x, y, width, height = item.box
    shares = {
        "x": x / photo.width,
        "y": y / photo.height,
        "width": width / photo.width,
        "height": height / photo.height,
    }
    place = {name: 100 * share for name, share in shares.items()}
    return "rectanglelabels", BOXES, {**place, "rotation": 0, "rectanglelabels": [item.word]}


def _configuration(words: Sequence[str], used: set[str]) -> Element:
    view = Element("View")
    SubElement(view, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true")
    for name, tag in ((BOXES, "RectangleLabels"), (MASKS, "BrushLabels")):
        if name in used:
            labels = SubElement(view, tag, name=name, toName=IMAGE)
            for word in words:
                SubElement(labels, "Label", value=sayable(word))
    if WORDS in used:
        choices = SubElement(view, "Choices", name=WORDS, toName=IMAGE, choice="multiple", showInline="true")
        for word in (*words, NONE_OF_THESE):
            SubElement(choices, "Choice", value=sayable(word))
    return view
