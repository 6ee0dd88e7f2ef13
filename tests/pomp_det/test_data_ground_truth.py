"""What predictions are scored against is checked before any training or inference, box by box."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("detectron2")

import pycocotools.mask as mask_utils

from pomp_det.checks import check_ground_truth
from pomp_det.data.annotation_files import read_annotation_file, read_scored_annotations
from pomp_det.data.records import load_boxes
from pomp_det.data.registration import register_dataset
from pomp_engine.data.annotation_masks import mask_fault, runs_total
from prompt_core.errors import UserError

from ..support import hostile

SQUARE = [[1, 1, 5, 1, 5, 4]]


def written(folder: Path, value: Any) -> Path:
    path = folder / "truth.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def changed(**keys: Any) -> dict[str, Any]:
    """A document whose second annotation has other values."""
    document = json.loads(json.dumps(hostile.ANNOTATIONS))
    document["annotations"][1] |= keys
    return dict(document)


def masked(counts: Any, size: tuple[int, int] = (6, 8)) -> dict[str, Any]:
    return {"segmentation": {"size": list(size), "counts": counts}}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"bbox": [1, 2, 3]}, "annotations[1].bbox is [1, 2, 3]; a list of length 4 is expected"),
        ({"bbox": [1, 2, math.nan, 3]}, "annotations[1].bbox[2] is nan; a number of at least 0.0 is expected"),
        ({"bbox": [math.inf, 2, 3, 3]}, "annotations[1].bbox[0] is inf; a number of at most 1000000000.0"),
        ({"bbox": [1, 2, -3, 3]}, "annotations[1].bbox[2] is -3; a number of at least 0.0 is expected"),
        ({"bbox": ["1", 2, 3, 3]}, "annotations[1].bbox[0] is '1'; a number is expected"),
        ({"bbox": None}, "annotations[1].bbox is None; a list is expected"),
        ({"id": 2**63}, "annotations[1].id is 9223372036854775808; a whole number of 64 bits is expected"),
        ({"id": 1}, "annotation id 1 occurs more than once"),
        ({"id": 2.0}, "annotations[1].id is 2.0; a whole number is expected"),
        ({"id": True}, "annotations[1].id is True; a whole number is expected"),
        ({"category_id": 9}, "annotation id 2 has category_id 9, which is not among the categories"),
        ({"image_id": 9}, "annotation id 2 is of image_id 9, which is not among the images"),
        ({"image_id": "1"}, "annotations[1].image_id is '1'; a whole number is expected"),
        ({"area": math.nan}, "annotations[1].area is nan; a number of at least 0.0 is expected"),
        ({"iscrowd": 2}, "annotations[1].iscrowd is 2; a whole number of at most 1 is expected"),
        (
            {"segmentation": [[1, 2, 3, 4]]},
            "annotations[1].segmentation (id 2) cannot be used: mask of fewer than three points",
        ),
        ({"segmentation": [*SQUARE, [1, 2, 3]]}, "segmentation (id 2) cannot be used: polygon of an odd number"),
        (
            {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
            "segmentation (id 2) cannot be used: mask of fewer than three",
        ),
        ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "annotations[1].segmentation[0][5] is '6'; a number is expected"),
        ({"segmentation": [[1, 2, 3, 4, 5, math.nan]]}, "annotations[1].segmentation[0][5] is nan; a number"),
        ({"segmentation": "x"}, "annotations[1].segmentation is 'x'"),
        (
            masked([0, 2, 45]),
            "annotations[1].segmentation (id 2) cannot be used: run lengths that do not",
        ),
        (masked([0, 2, 10**9]), "run lengths that do not fill the image"),
        (masked([0, -2, 50]), "annotations[1].segmentation.counts[1] is -2; a whole number of at least 0"),
        (masked([48], (8, 6)), "annotations[1].segmentation (id 2) cannot be used: run-length mask of another size"),
        (masked("0P1"), "run lengths that do not fill the image"),
        (masked("~~~"), "run lengths that do not fill the image"),
        ({"segmentation": {"size": [6, 8]}}, "annotations[1].segmentation has no 'counts'"),
    ],
)
def test_a_fault_of_the_ground_truth_is_one_line(tmp_path: Path, keys: dict[str, Any], line: str) -> None:
    path = written(tmp_path, changed(**keys))
    with pytest.raises(UserError) as caught:
        read_scored_annotations(path)
    assert line in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    register_dataset("truth_with_a_fault", path, tmp_path)
    with pytest.raises(UserError):
        check_ground_truth("truth_with_a_fault")


@pytest.mark.parametrize("federated", [False, True])
def test_sound_ground_truth_is_read(tmp_path: Path, federated: bool) -> None:
    for keys in (
        {},
        {"segmentation": []},
        {"segmentation": [*SQUARE, [1, 2]]},
        {"bbox": [1, 1, 0, 0]},
        masked([48]),
        {"iscrowd": True},
        {"area": 0},
    ):
        document = changed(**keys)
        assert read_scored_annotations(written(tmp_path, document), federated) == document


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a\0.png", "C:\\a.png", "b/../../a.png"])
def test_photos_of_a_document_stay_below_their_folder(tmp_path: Path, name: str) -> None:
    document = changed()
    document["images"][0]["file_name"] = name
    with pytest.raises(UserError, match=r"truth.json: the photo of image id 1: .* leads out of the data set's folder"):
        load_boxes(written(tmp_path, document), tmp_path)


def test_a_photo_that_is_a_link_to_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (tmp_path / "secret.png").touch()
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    (folder / "b.png").touch()
    with pytest.raises(UserError, match=r"lists .*a.png, a link to .*secret.png, which leads out"):
        load_boxes(written(tmp_path, changed()), folder)


@given(mask=st.integers(1, 9).flatmap(lambda h: st.lists(st.lists(st.booleans(), min_size=h, max_size=h), min_size=1)))
@settings(max_examples=60, deadline=None)
def test_compressed_run_lengths_are_those_of_pycocotools(mask: list[list[bool]]) -> None:
    pixels = np.asfortranarray(np.array(mask, dtype=np.uint8).T)  # (H, W)
    height, width = pixels.shape
    encoded = mask_utils.encode(pixels)
    counts = encoded["counts"].decode()
    assert runs_total(counts) == height * width
    assert mask_fault({"size": [height, width], "counts": counts}, width, height) is None
    wider = {"size": [height, width + 1], "counts": counts}
    assert mask_fault(wider, width + 1, height) == "run lengths that do not fill the image"


@given(content=hostile.annotation_files)
@settings(max_examples=120, deadline=None)
def test_any_document_is_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("a.png", "b.png"):
        (folder / name).touch()
    path = folder / "hostile.json"
    path.write_bytes(content)
    hostile.success_or_one_line(lambda: load_boxes(path, folder))
    hostile.success_or_one_line(lambda: read_annotation_file(path, federated=True, image_labels=True))
    truth = hostile.success_or_one_line(lambda: read_scored_annotations(path))
    for annotation in truth["annotations"] if truth else []:
        if isinstance(annotation.get("segmentation"), dict):
            mask_utils.area(mask_utils.frPyObjects(annotation["segmentation"], *annotation["segmentation"]["size"]))
