"""Regions from outside: every format means the same, photos are found however they are named, faults are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("detectron2")

from pycocotools import mask as run_lengths

from pomp_engine.data.photo_names import PhotoNames
from pomp_engine.data.proposal_files import ProposalFile
from pomp_engine.data.segment_anything import load_generator, write_proposals
from prompt_core import UserError
from prompt_core.photos.photo_list import list_photos_to_predict

from ..support import hostile

HEIGHT, WIDTH = 30, 40
DISC = (np.add.outer((np.arange(HEIGHT) - 12) ** 2, (np.arange(WIDTH) - 15) ** 2) < 64).astype(np.uint8)


def encoded(mask: np.ndarray) -> dict[str, Any]:
    rle = run_lengths.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def regions(key: str = "score") -> list[dict[str, Any]]:
    """A polygon of 0.4, a mask in run lengths of 0.9 whose box reaches out, and a box outside."""
    return [
        {"bbox": [2, 3, 10, 5], "segmentation": [[2, 3, 12, 3, 12, 8, 2, 8]], key: 0.4},
        {"bbox": [7, 4, 60, 17], "segmentation": encoded(DISC), key: 0.9},
        {"bbox": [70, 4, 6, 6], "segmentation": encoded(DISC), key: 0.8},
    ]


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def photo(number: int = 7, name: str = "val/a.jpg") -> dict[str, Any]:
    return {"image_id": number, "file_name": name}


def test_a_region_of_several_classes_is_one(tmp_path: Path) -> None:
    """Detectors list a box once for each class that it may be."""
    boxes = [[2, 3, 10, 5], [7, 4, 6, 6], [2, 3, 10, 5], [2, 3, 10, 5], [20, 4, 6, 6]]
    listed = [
        {"image_id": 7, "category_id": row, "bbox": box, "score": score}
        for row, (box, score) in enumerate(zip(boxes, (0.5, 0.6, 0.9, 0.7, 0.4), strict=True))
    ]
    found = ProposalFile(write(tmp_path / "boxes.json", listed), limit=2).regions(photo(), HEIGHT, WIDTH)
    assert found is not None
    assert found.boxes.tolist() == [[2, 3, 12, 8], [7, 4, 13, 10]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    disc, rest = encoded(DISC), encoded(DISC * (np.arange(WIDTH) < 15))
    masks = [
        {**listed[0], "segmentation": mask, "score": score} for mask, score in ((disc, 0.3), (rest, 0.2), (disc, 0.1))
    ]
    found = ProposalFile(write(tmp_path / "masks.json", masks)).regions(photo(), HEIGHT, WIDTH)
    assert found is not None
    assert found.masks == [disc, rest]


def test_every_format_means_the_same(tmp_path: Path) -> None:
    results = [{"image_id": 7, "category_id": 1, **region} for region in regions()]
    named = [result | {"image_id": "val/a.jpg"} for result in results]
    images = [{"id": 3, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}]
    document = {"images": images, "annotations": [result | {"image_id": 3} for result in results]}
    lvis = [{"id": 3, "coco_url": "http://images.cocodataset.org/val/a.jpg"}]
    sam = regions("predicted_iou")
    files = [
        write(tmp_path / "results.json", results),
        write(tmp_path / "named.json", named),
        write(tmp_path / "document.json", document),
        write(tmp_path / "lvis.json", document | {"images": lvis}),
        write(tmp_path / "one/a.json", sam),
        write(tmp_path / "by_name.json", {"a.jpg": sam, "b.jpg": []}),
        write(tmp_path / "folder/val/a.jpg.json", sam).parents[1],
        write(tmp_path / "sa1b/a.json", {"image": {"file_name": "a.jpg"}, "annotations": sam}).parent,
    ]
    for file in files:
        found = ProposalFile(file).regions(photo(name="datasets/coco/val/a.jpg"), HEIGHT, WIDTH)
        assert found is not None
        assert found.boxes.tolist() == [[7, 4, 40, 21], [2, 3, 12, 8]]
        assert found.scores.tolist() == pytest.approx([0.9, 0.4])
        assert found.masks is not None
        assert found.masks[0] == encoded(DISC)
        assert run_lengths.decode(found.masks[1]).sum() == 50
        assert ProposalFile(file).regions(photo(8, "val/c.jpg"), HEIGHT, WIDTH) is None
        best = ProposalFile(file, limit=1).regions(photo(), HEIGHT, WIDTH)
        assert best is not None
        assert best.scores.tolist() == pytest.approx([0.9])


def test_boxes_alone_masks_alone_and_both(tmp_path: Path) -> None:
    boxes = [{"image_id": 7, "bbox": [2, 3, 10, 5]}]
    alone = ProposalFile(write(tmp_path / "a.json", boxes)).regions(photo(), HEIGHT, WIDTH)
    assert alone is not None
    assert alone.masks is None
    assert alone.scores.tolist() == [1]
    mixed = [*boxes, {"image_id": 7, "segmentation": encoded(DISC), "score": 0.5}]
    found = ProposalFile(write(tmp_path / "b.json", mixed)).regions(photo(), HEIGHT, WIDTH)
    assert found is not None
    assert found.masks is not None
    assert run_lengths.decode(found.masks[0]).sum() == 50
    # photos of a file all have masks, or none has
    without = ProposalFile(write(tmp_path / "c.json", [*mixed[1:], {"image_id": 8, "bbox": [2, 3, 10, 5]}]))
    other = without.regions(photo(8), HEIGHT, WIDTH)
    assert other is not None
    assert [int(run_lengths.area(mask)) for mask in other.masks or ()] == [50]
    write(tmp_path / "d/a.json", [])
    write(tmp_path / "d/b.json", mixed[1:])
    write(tmp_path / "d/c.json", boxes)
    folder = ProposalFile(tmp_path / "d").regions(photo(name="c.jpg"), HEIGHT, WIDTH)
    assert folder is not None
    assert folder.masks is not None
    rows, columns = DISC.any(axis=1).nonzero()[0], DISC.any(axis=0).nonzero()[0]
    assert found.boxes[1].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_a_mask_of_one_column_is_a_region_and_a_box_of_no_width_is_none(tmp_path: Path) -> None:
    """Segment Anything's boxes end at the centre of the last pixel."""
    column = np.zeros((HEIGHT, WIDTH), np.uint8)
    column[3:20, 5] = 1
    items = [{"segmentation": encoded(column), "bbox": [5, 3, 0, 16]}, {"bbox": [10, 1, 1e-9, 5], "predicted_iou": 0.5}]
    found = ProposalFile(write(tmp_path / "a.json", items)).regions(photo(), HEIGHT, WIDTH)
    assert found is not None
    assert found.boxes.tolist() == [[5, 3, 6, 20]]
    assert found.masks == [encoded(column)]


def test_a_photos_regions_do_not_depend_on_those_read_before(tmp_path: Path) -> None:
    write(tmp_path / "d/a.json", [{"bbox": [2, 3, 10, 5]}])
    write(tmp_path / "d/b.json", [{"segmentation": encoded(DISC)}])
    folder = ProposalFile(tmp_path / "d")
    for _ in range(2):
        found = folder.regions(photo(name="a.jpg"), HEIGHT, WIDTH)
        assert found is not None
        assert found.masks is None
        with pytest.raises(UserError, match=r"b\.json has masks, and the first regions of .*d have none"):
            folder.regions(photo(name="b.jpg"), HEIGHT, WIDTH)


def test_letters_that_macos_takes_apart_are_the_same(tmp_path: Path) -> None:
    file = ProposalFile(write(tmp_path / "r.json", {"caf\u00e9.jpg": [{"bbox": [0, 0, 1, 2]}]}))
    assert file.regions(photo(name="cafe\u0301.jpg"), HEIGHT, WIDTH) is not None


@given(st.lists(st.sampled_from(["a", "b", "2024.05"]), min_size=1, max_size=4), st.integers(1, 4))
def test_the_end_of_a_path_is_enough(parts: list[str], count: int) -> None:
    names: PhotoNames[int] = PhotoNames("file")
    names.add("/".join(parts[-count:]) + ".jpg", 1)
    assert names.find("/data/" + "/".join(parts) + ".PNG") == 1
    assert names.find("/".join(parts[-min(count, 2) :])) == 1
    assert names.find("/".join([*parts, "other.jpg"])) is None


def test_more_of_a_path_decides_and_a_tie_is_refused() -> None:
    names: PhotoNames[int] = PhotoNames("file")
    names.add("x/1.jpg", 1)
    names.add("y/1.jpg", 2)
    assert names.find("data/y/1.jpg") == 2
    with pytest.raises(UserError, match=r"file has 2 entries that can be of photo 1\.jpg"):
        names.find("1.jpg")
    names.add("z/1.JPG.json", 3)
    names.add("z/1.png.json", 4)
    assert [names.find(f"z/1.{ending}") for ending in ("jpg", "PNG")] == [3, 4]
    with pytest.raises(UserError, match=r"file has 2 entries that can be of photo z/1\.gif"):
        names.find("z/1.gif")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "has no regions; expected a list of COCO results"),
        ({"images": []}, "has images and no list of annotations"),
        ({"images": [{"id": 1}], "annotations": []}, "image 1 has no file_name"),
        ({"images": [{"id": [1]}], "annotations": []}, r"images\[0\]\.id is"),
        ([{"image_id": 7, "bbox": [0, 0, -1, 2]}], r"\[0\]\.bbox\[2\] is -1; a number of at least 0"),
        ([{"image_id": 7, "bbox": [0, 0, 1, 2], "score": 3.5}], r"score is 3\.5; a number of at most 1"),
        ([{"image_id": None, "bbox": [0, 0, 1, 2]}], "image_id is"),
        (
            {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": "1"}]},
            "'1', the id of none of its",
        ),
        (
            {"images": [{"id": 1, "file_name": name} for name in "ab"], "annotations": []},
            "several images have the same id",
        ),
        ([{"bbox": [0, 0, 1, 2]}, {"image_id": 7, "bbox": [0, 0, 1, 2]}], r"\[0\] has no 'image_id'"),
        ({"a.jpg": {"bbox": []}}, "no list of regions at a.jpg"),
        ("words", "no list of regions"),
    ],
)
def test_refused_files(tmp_path: Path, content: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        ProposalFile(write(tmp_path / "r.json", content))


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ({"segmentation": encoded(DISC[:10])}, r"region 1 of photo val/a\.jpg \(40 x 30 pixels\).*another size"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5]}}, "do not fill the image"),
        ({"score": 1}, "neither box nor mask"),
        ({"segmentation": [[0, 0, 1e9, 0, 0, 9]]}, "mask with a point beyond 10,000 pixels"),
    ],
)
def test_regions_that_cannot_be_used(tmp_path: Path, region: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        ProposalFile(write(tmp_path / "a.json", [region])).regions(photo(), HEIGHT, WIDTH)


RESULTS = [{"image_id": 7, **region} for region in regions()]
DOCUMENT = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": RESULTS}


@given(
    st.one_of(
        hostile.json_files(RESULTS),
        hostile.json_files(DOCUMENT),
        hostile.json_files({"a.jpg": regions("predicted_iou")}),
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_any_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    found = hostile.success_or_one_line(lambda: ProposalFile(tmp_path / "a.json").regions(photo(), HEIGHT, WIDTH))
    if found is not None:
        assert np.isfinite(found.boxes).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert all(run_lengths.decode(mask).shape == (HEIGHT, WIDTH) for mask in found.masks or ())


def test_photos_without_regions_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = ProposalFile(write(tmp_path / "r.json", [{"image_id": 7, "bbox": [0, 0, 1, 2]}]))
    with caplog.at_level("WARNING"):
        assert file.say_absent("mine", [photo(), photo(8, "b.jpg"), photo(9, "c.jpg")]) == 2
    assert "2 of 3 photos of mine have no entry in" in caplog.text
    with pytest.raises(UserError, match=r"no regions of any of the 1 photos of data set 'mine'"):
        file.say_absent("mine", [photo(8)])


class Generator:
    """What Segment Anything's generators are; knows two regions of each photo."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        self.seen.append(image.shape)
        image[0, 0] = 0  # some turn it into a tensor, which may be written to
        half = np.zeros(image.shape[:2], bool)
        half[:, : image.shape[1] // 2] = True
        box = [0, 0, image.shape[1] // 2 - 1, image.shape[0] - 1]  # as theirs are
        quality = {"predicted_iou": np.float32(1.02), "stability_score": 0.9, "area": half.sum()}
        return [{"segmentation": half, "bbox": box, **quality}, {"segmentation": encoded(DISC), "bbox": [7, 4, 17, 17]}]


def test_a_mask_generator_writes_what_is_read(tmp_path: Path) -> None:
    for name in ("photos/a.png", "photos/sub/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / name)
    photos = list_photos_to_predict([tmp_path / "photos"], tmp_path / "out")
    generator, told = Generator(), []
    assert write_proposals(generator, photos, tmp_path / "out", lambda *done: told.append(done)) == 2
    assert generator.seen == [(HEIGHT, WIDTH, 3)] * 2
    assert [count for _, count in told] == [2, 2]
    assert write_proposals(generator, photos, tmp_path / "out") == 0
    (tmp_path / "photos/a.png").write_bytes(b"no photo")
    left_out: list[str] = []
    assert write_proposals(generator, photos, tmp_path / "again", unreadable=left_out) == 1
    assert [line.count("photos/a.png") for line in left_out] == [1]
    with pytest.raises(UserError, match=r"photos/a\.png"):
        write_proposals(generator, photos, tmp_path / "again")
    file = ProposalFile(tmp_path / "out")
    for name in photos:
        found = file.regions({"file_name": name.name}, HEIGHT, WIDTH)
        assert found is not None
        assert found.scores.tolist() == [1, 1]
        assert found.boxes[0].tolist() == [0, 0, WIDTH // 2, HEIGHT]
        assert found.boxes[1].tolist() == [8, 5, 23, 20]
        assert found.masks is not None
        assert found.masks[1] == encoded(DISC)


def test_a_generator_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for model, package in (("vit_b", "segment_anything"), ("configs/sam2.1/sam2.1_hiera_l.yaml", "sam2")):
        with pytest.raises(UserError, match=f"{package} is not installed"):
            load_generator(model, tmp_path / "weights.pth")
