"""A segmenter that is given the true regions paints them with what CLIP calls them, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.structures import Instances

from pomp_engine import run
from pomp_seg import load_config, set_classes
from pomp_seg.oracle_regions import OracleSegmenter
from pomp_seg.task import segmentation_task
from prompt_core import UserError

from ..support.segmenter_run import (
    NAMES,
    TEST,
    label,
    make_data,
    save_segmenter,
    tiny_settings,
    unregister,
)


def test_regions_get_the_classes_that_clip_gives_them_alone(tiny: Any) -> None:
    model = tiny({"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE": False}).eval()
    set_classes(model, NAMES, [True, False, True, False])
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (3, 40, 60), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(3, 40, 60, dtype=torch.bool)
    masks[0, :20], masks[1, 20:, :30], masks[2, 20:, 30:50] = True, True, True
    instances = Instances((40, 60))
    instances.gt_masks = masks
    (maps,) = (output["sem_seg"] for output in OracleSegmenter(model)([{"image": image, "instances": instances}]))
    for mask in masks:
        logits, _ = model.clip_adapter.region_logits(image, mask[None].float(), NAMES)
        expected = logits[0, :-1].softmax(dim=0)  # without "no object"
        torch.testing.assert_close(maps[:, mask], expected[:, None].expand(-1, int(mask.sum())))
    assert not maps[:, ~masks.any(dim=0)].any()
    instances = Instances((40, 60))
    instances.gt_masks = masks[:0]
    empty = OracleSegmenter(model)([{"image": image, "instances": instances, "height": 80, "width": 120}])
    assert empty[0]["sem_seg"].shape == (4, 80, 120)
    assert not empty[0]["sem_seg"].any()
    with pytest.raises(UserError, match="has no regions of its ground truth"):
        OracleSegmenter(model)([{"image": image}])


def test_an_evaluation_has_its_own_files_and_one_class_in_each_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path)
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    try:
        cfg = load_config(None, tiny_settings(tmp_path, ORACLE=True))
        weights = str(save_segmenter(tmp_path, cfg))
        results = run.evaluate(segmentation_task(), cfg, weights)
        folder = tmp_path / "run/inference_tiny_oracle_masks"
        for number in range(TEST):
            truth = np.asarray(Image.open(label(tmp_path, number, "val")))
            predicted = np.asarray(Image.open(folder / f"predictions/{number}.png"))
            assert all(len(np.unique(predicted[truth == value])) == 1 for value in np.unique(truth) if value < 255)
        document = json.loads((tmp_path / "run/metrics_oracle_masks.json").read_text())
        assert document["_protocol"]["tiny"]["oracle"] == "masks"
        assert not (tmp_path / "run/metrics.json").exists()
        np.testing.assert_equal(run.score(segmentation_task(), cfg), results)
        batches = load_config(None, tiny_settings(tmp_path, ORACLE=True, **{"SOLVER.TEST_IMS_PER_BATCH": 2}))
        np.testing.assert_equal(run.evaluate(segmentation_task(), batches, weights), results)
    finally:
        unregister()
