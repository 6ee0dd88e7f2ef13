"""Box AP of the embedded detector under several prompts; its networks see each photo once."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pomp.formats.labelled import LabelledPhoto
from pomp_det import load_config
from pomp_det.box_masks import in_photo
from pomp_det.class_matrix import classifier_of_names
from pomp_det.classifier import set_classifier, zero_shot_predictors
from pomp_det.heads.seen_words import Closeness
from pomp_det.predictor import OpenVocabularyPredictor
from prompt_core.data.open_photo import read_photo
from prompt_core.vocabulary import Vocabulary

SHIPPED, ALONE = "as shipped", "named by mini alone"
NOTHING_SEEN = Closeness(2.0, 3.0)  # no word is one of the detection network's classes


def box_scores(
    config: str,
    prompts: Mapping[str, str],
    photos: Sequence[LabelledPhoto],
    words: Vocabulary,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, dict[str, dict[str, float]]]:
    """AP and AP50 in percent, of each prompt, as shipped and where only the CLIP names boxes.

    Args:
        config: of the embedded detector.
        prompts: by name; a template or a file.
        photos: with all boxes of the words.
    """
    cfg = load_config(config, {"MODEL.MASK_ON": False})
    predictor = OpenVocabularyPredictor.load(cfg, ",".join(words.names))
    classifiers = {name: classifier_of_names(cfg, words, prompt) for name, prompt in prompts.items()}
    model: Any = predictor.model
    (stage,) = zero_shot_predictors(model)
    as_shipped = stage.cls_score.closeness
    found: dict[tuple[str, str], list[dict[str, Any]]] = {
        (kind, name): [] for kind in (SHIPPED, ALONE) for name in prompts
    }
    for number, photo in enumerate(photos):
        assert photo.path is not None
        pixels = read_photo(photo.path)
        example = predictor.example(pixels)
        with torch.inference_mode():
            images = model.preprocess_image([example])
            features = model.features(images.tensor)
            proposals, _ = model.proposal_generator(images, features, None)
            for (kind, name), rows in found.items():
                stage.cls_score.closeness = as_shipped if kind == SHIPPED else NOTHING_SEEN
                set_classifier(model, classifiers[name])
                (result,), _ = model.roi_heads(images, features, proposals, None)
                rows += _rows(in_photo(result, *pixels.shape[:2]), number)
        progress(number + 1, len(photos))
    truth = _truth(photos, words)
    scores: dict[str, dict[str, dict[str, float]]] = {SHIPPED: {}, ALONE: {}}
    for (kind, name), rows in found.items():
        scores[kind][name] = _average_precision(truth, rows)
    return scores


def _rows(found: Any, image: int) -> list[dict[str, Any]]:
    boxes = found.pred_boxes.tensor.numpy().astype(float)
    boxes = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    return [
        {"image_id": image, "category_id": int(label) + 1, "bbox": box.tolist(), "score": float(score)}
        for box, label, score in zip(boxes, found.pred_classes.tolist(), found.scores.tolist(), strict=True)
    ]


def _truth(photos: Sequence[LabelledPhoto], words: Vocabulary) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, photo in enumerate(photos):
        for thing in photo.objects:
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": words.names.index(thing.word) + 1}
            annotations.append({**row, "bbox": list(thing.box), "area": thing.box[2] * thing.box[3], "iscrowd": 0})
    images = [{"id": number, "width": photo.width, "height": photo.height} for number, photo in enumerate(photos)]
    categories = [{"id": row + 1, "name": name} for row, name in enumerate(words.names)]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}}


def _average_precision(truth: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not rows:
        return {"AP": 0.0, "AP50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = truth
        known.createIndex()
        scorer = COCOeval(known, known.loadRes(rows), "bbox")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return {"AP": 100 * float(scorer.stats[0]), "AP50": 100 * float(scorer.stats[1])}
