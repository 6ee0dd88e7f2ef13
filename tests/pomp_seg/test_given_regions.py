"""Masks from a file in the place of mask proposals: what CLIP alone calls them, weighed by their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.structures import Instances
from pycocotools import mask as run_lengths

from pomp_seg import load_config, set_classes
from pomp_seg.build import build_segmenter
from pomp_seg.oracle_regions import OracleSegmenter
from pomp_seg.predictor import OpenVocabularySegmenter
from prompt_core import UserError

from ..support.segmenter import TINY
from ..support.segmenter_run import NAMES


def regions_file(folder: Path, masks: torch.Tensor, scores: list[float]) -> Path:
    items = []
    for mask, score in zip(masks, scores, strict=True):
        rle = run_lengths.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
        items.append({"segmentation": segmentation, "predicted_iou": score})
    (folder / "a.json").write_text(json.dumps(items))
    return folder


def test_true_masks_from_a_file_are_the_oracle(tiny: Any, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (3, 40, 60), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, :20], masks[1, 20:, :30] = True, True
    model = tiny({"MODEL.PROPOSALS.FILE": str(regions_file(tmp_path, masks, [1.0, 1.0]))}).eval()
    set_classes(model, NAMES)
    instances = Instances((40, 60))
    instances.gt_masks = masks
    example = {"image": image, "file_name": "photos/a.png"}
    (given,) = (output["sem_seg"] for output in model([example]))
    (oracle,) = (output["sem_seg"] for output in OracleSegmenter(model)([example | {"instances": instances}]))
    assert oracle.any()
    torch.testing.assert_close(given, oracle)
    regions_file(tmp_path, masks, [0.25, 1.0])
    (weighed,) = (output["sem_seg"] for output in model([example]))
    torch.testing.assert_close(weighed[:, :20], 0.25 * oracle[:, :20])
    torch.testing.assert_close(weighed[:, 20:], oracle[:, 20:])
    (empty,) = (output["sem_seg"] for output in model([example | {"file_name": "b.png"}]))
    assert empty.shape == (4, 40, 60)
    assert not empty.any()


def test_masks_of_a_photo_are_resized_with_it(tiny: Any, tmp_path: Path) -> None:
    masks = torch.zeros(1, 80, 120, dtype=torch.bool)
    masks[0, 20:60, 10:50] = True
    model = tiny({"MODEL.PROPOSALS.FILE": str(regions_file(tmp_path, masks, [1.0]))}).eval()
    set_classes(model, NAMES)
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    example = {"image": image, "file_name": "a.png", "height": 80, "width": 120}
    (scores,) = model.pixel_scores([example])
    assert scores.size == (80, 120)
    assert torch.equal(scores.maps.sum(dim=0) > 0, masks[0, ::2, ::2])


def test_pixels_of_no_region_are_none_of_the_words(tiny: Any, tmp_path: Path) -> None:
    masks = torch.zeros(1, 40, 60, dtype=torch.bool)
    masks[0, 10:30, 5:25] = True
    changed = {"MODEL.PROPOSALS.FILE": str(regions_file(tmp_path, masks, [0.5])), "INPUT.MIN_SIZE_TEST": 40}
    cfg = load_config(None, TINY | changed)
    predictor = OpenVocabularySegmenter(tiny(changed), cfg)
    predictor.set_vocabulary("cat,sky")
    pixels = np.zeros((40, 60, 3), np.uint8)
    found = predictor(pixels, "a.png")
    assert found.class_names == ("cat", "sky", "none of these")
    assert ((found.labels == 2) == ~masks[0].numpy()).all()
    assert found.background == (False, False, True)
    with pytest.raises(UserError, match="has no regions of it"):
        predictor(pixels, "b.png")


def test_segmenters_that_name_no_regions_refuse_the_file(tmp_path: Path) -> None:
    changed = {"MODEL.META_ARCHITECTURE": "MaskFormer", "MODEL.PROPOSALS.FILE": str(tmp_path / "a.json")}
    with pytest.raises(UserError, match="has regions to name, which MaskFormer does not do"):
        build_segmenter(load_config(None, {"MODEL.DEVICE": "cpu", **changed}))
