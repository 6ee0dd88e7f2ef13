"""Segment Anything itself, with random weights: what its generators find is written, read back and named.

The weights are drawn so that masks are crisp and pass the generators' own thresholds: what they show is noise, that
they arrive pixel by pixel is what is tested.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("detectron2")

from pycocotools import mask as run_lengths

from pomp_det import load_config as detector_config
from pomp_det.predictor import OpenVocabularyPredictor
from pomp_engine.data.proposal_files import ProposalFile
from pomp_engine.data.segment_anything import load_generator, write_proposals
from pomp_seg import load_config as segmenter_config
from pomp_seg.predictor import OpenVocabularySegmenter
from prompt_core import UserError
from prompt_core.data.open_photo import read_photo
from prompt_core.photos.photo_list import NamedPhoto

from ..support.tools import call_tool as call_tool

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "pomp/assets/photos/cat.jpg"
SAM2 = "configs/sam2.1/sam2.1_hiera_t.yaml"


def crisp(network: Any, decoder: Any) -> dict[str, torch.Tensor]:
    """Random weights whose masks are of 64 x 64 blotches with sharp edges, and have a predicted quality of 1."""
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    for head in decoder.output_hypernetworks_mlps:
        head.layers[-1].weight.data.mul_(1e6)
    for layer in decoder.output_upscaling:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.weight.data[:] = layer.weight.data.mean(dim=(2, 3), keepdim=True)
    for finer in ("conv_s0", "conv_s1"):  # of sam2
        if hasattr(decoder, finer):
            nn.init.zeros_(getattr(decoder, finer).weight)
    quality = decoder.iou_prediction_head.layers[-1]
    nn.init.zeros_(quality.weight)
    nn.init.constant_(quality.bias, 5.0)  # sam2 takes its sigmoid
    return dict(network.state_dict())


@pytest.fixture
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The name of a model and a file of weights, as each package publishes them."""
    path = tmp_path / "weights.pth"
    torch.manual_seed(0)
    if request.param == "sam2":
        pytest.importorskip("sam2", reason="sam2 is the user's to install")
        from sam2.build_sam import build_sam2

        network = build_sam2(SAM2, None, device="cpu")
        torch.save({"model": crisp(network, network.sam_mask_decoder)}, path)
        return SAM2, path
    pytest.importorskip("segment_anything", reason="segment_anything is the user's to install")
    published = importlib.import_module("segment_anything.build_sam")
    smaller = partial(published._build_sam, 32, 2, 2, [1])  # two blocks of width 32, of vit_b's twelve of 768
    monkeypatch.setitem(published.sam_model_registry, "vit_b", smaller)
    network = smaller(checkpoint=None)
    torch.save(crisp(network, network.mask_decoder), path)
    return "vit_b", path


both = pytest.mark.parametrize("checkpoint", ["segment_anything", "sam2"], indirect=True)


@both
def test_what_it_finds_is_written_and_named(
    checkpoint: tuple[str, Path], call_tool: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    model, weights = checkpoint
    options = ("--model", model, "--weights", weights, "--output", tmp_path / "regions", "--points-per-side", "2")
    code, out, error = call_tool("write_proposals", *options, PHOTO)
    assert code == 0, error
    assert "1 of 1 photos done now" in out
    pixels = read_photo(PHOTO)
    expected = load_generator(model, weights, points_per_side=2).generate(pixels.copy())
    assert expected
    found = ProposalFile(tmp_path / "regions").regions({"file_name": str(PHOTO)}, *pixels.shape[:2])
    assert found is not None
    assert found.masks is not None
    assert len(found.boxes) == len(expected)
    for region in expected:
        (row,) = [
            row for row, mask in enumerate(found.masks) if (run_lengths.decode(mask) == region["segmentation"]).all()
        ]
        rows, columns = region["segmentation"].any(axis=1).nonzero()[0], region["segmentation"].any(axis=0).nonzero()[0]
        assert found.boxes[row].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert found.scores[row] == pytest.approx(min(region["predicted_iou"], 1))
    regions = {"MODEL.PROPOSALS.FILE": str(tmp_path / "regions"), "MODEL.DEVICE": "cpu"}
    for name in ("detector", "given_regions"):
        cfg = detector_config(ROOT / f"configs/mini/{name}.yaml", regions | {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0})
        detections = OpenVocabularyPredictor.load(cfg, "cat,remote control")(PHOTO)
        assert len(detections) > 0
        given = [run_lengths.decode(mask).astype(bool) for mask in found.masks]
        for box, mask in zip(detections.pred_boxes.tensor.numpy(), detections.pred_masks.numpy(), strict=True):
            (row,) = [row for row, of_row in enumerate(given) if (of_row == mask).all()]
            np.testing.assert_allclose(box, found.boxes[row], atol=1e-3)
    cfg = segmenter_config(ROOT / "configs/mini/segmentation_base.yaml", regions | {"MODEL.RANDOM_WEIGHTS": True})
    segmenter = OpenVocabularySegmenter.load(cfg)
    segmenter.set_vocabulary("cat,remote control")
    labels = segmenter(PHOTO).labels
    inside = torch.from_numpy(np.any(given, axis=0))[None].float()
    for covered, found_there in ((inside, labels < 2), (1 - inside, labels == 2)):
        # masks are resized to the image that the segmenter sees, which moves their edges a little
        core = -F.max_pool2d(-covered, 7, stride=1, padding=3)[0].numpy() > 0
        assert core.mean() > 0.02
        assert found_there[core].all()


@both
def test_every_form_of_masks_is_the_same(checkpoint: tuple[str, Path], tmp_path: Path) -> None:
    photo, written = NamedPhoto(1, PHOTO, "cat.jpg"), []
    for form in ("binary_mask", "uncompressed_rle", "coco_rle"):
        generator = load_generator(*checkpoint, points_per_side=1, box_nms_thresh=1.1, output_mode=form)
        assert write_proposals(generator, [photo], tmp_path / form) == 1
        written.append(json.loads((tmp_path / form / "cat.jpg.json").read_text()))
    assert len(written[0]) > 1
    assert written[0] == written[1] == written[2]


@both
def test_what_cannot_be_loaded_is_one_line(checkpoint: tuple[str, Path], tmp_path: Path) -> None:
    model, weights = checkpoint
    for content in ([1, 2], {"model": [1]}, {1: 2}, {"a": torch.zeros(1)}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(UserError, match="are not those of"):
            load_generator(model, tmp_path / "other.pth")
    with pytest.raises(UserError, match="device 'nonsense' cannot be used: Expected one of cpu"):
        load_generator(model, weights, "nonsense")
    unknown = "vit_x" if model == "vit_b" else "configs/nothing.yaml"
    with pytest.raises(UserError, match=f"has no (model|configuration) '{unknown}'"):
        load_generator(unknown, weights)


@both
def test_a_photo_without_regions_has_an_empty_list(checkpoint: tuple[str, Path], tmp_path: Path) -> None:
    generator = load_generator(*checkpoint, points_per_side=1, pred_iou_thresh=1e9)
    assert write_proposals(generator, [NamedPhoto(1, PHOTO, "cat.jpg")], tmp_path / "out") == 1
    assert json.loads((tmp_path / "out/cat.jpg.json").read_text()) == []
