"""The small set out of COCO 2017 is that of the packs: the same photos, boxes, masks and order."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from pomp_det.data.check_files import check_group
from pomp_det.data.prepare.coco_small import ChosenPhotos, choose, chosen_photos, prepare_coco_small
from pomp_engine.data.derived_files import Outcome
from prompt_core.data.check import MISSING, PRESENT
from prompt_core.errors import UserError

FILES = ("instances_train.json", "instances_val.json", "instances_val_masks.json")
PACKS = {"train": "coco128", "val": "coco128_val"}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def packs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The annotations of the three packs, and the set that is made of them."""
    root = tmp_path_factory.mktemp("packs")
    for name in (*PACKS.values(), "coco_more"):
        with tarfile.open(shared / f"data/{name}.tar") as archive:
            members = [member for member in archive if "/annotations/instances" in member.name]
            archive.extractall(root, members, filter="data")
    prepare_coco_small(root)
    return root


def public_layout(packs: Path, root: Path) -> Path:
    """COCO 2017 in small: what the packs hold, among other photos, in another order, with masks and crowds of all."""
    order = random.Random(0)
    for split, pack in PACKS.items():
        boxes, masks = (
            read(packs / pack / f"annotations/instances_{split}2017_{part}.json") for part in ("boxes", "masks")
        )
        more = read(packs / f"coco_more/annotations/instances_{split}2017.json")
        masked = {image["id"] for image in masks["images"]}
        unmasked = [item for item in boxes["annotations"] if item["image_id"] not in masked]
        images = boxes["images"] + more["images"]
        with_polygons = [{**item, "segmentation": [[1, 1, 2, 1, 2, 2]]} for item in unmasked]
        crowds = [{**item, "iscrowd": 1, "segmentation": {"size": [1, 1], "counts": "1"}} for item in unmasked[::7]]
        strangers = [{**image, "id": 10**6 + image["id"], "file_name": "other.jpg"} for image in images]
        theirs = [{**item, "image_id": 10**6 + item["image_id"]} for item in unmasked[:9]]
        annotations = crowds + theirs + with_polygons + masks["annotations"] + more["annotations"]
        places = list(range(len(images)))
        order.shuffle(places)
        rank = {images[place]["id"]: number for number, place in enumerate(places)}
        document = {
            **boxes,
            "images": sorted(images, key=lambda image: rank[image["id"]]) + strangers,
            # sorted() is stable: annotations of a photo keep their order, as those of COCO have one
            "annotations": [
                {**item, "id": number}
                for number, item in enumerate(sorted(annotations, key=lambda item: rank.get(item["image_id"], -1)), 1)
            ],
        }
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / f"{split}2017").mkdir()
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(document), encoding="utf-8")
        for image in images:
            (root / f"{split}2017" / image["file_name"]).touch()
    return root


def without_folders(document: dict[str, Any]) -> dict[str, Any]:
    return {
        **document,
        "images": [{**image, "file_name": image["file_name"].rpartition("/")[2]} for image in document["images"]],
    }


def test_the_set_out_of_coco_is_that_of_the_packs(packs: Path, tmp_path: Path) -> None:
    coco = public_layout(packs, tmp_path / "coco")
    assert list(prepare_coco_small(tmp_path, coco=coco).values()) == [Outcome.WRITTEN] * 3
    for name in FILES:
        made, expected = read(tmp_path / "coco_small" / name), read(packs / "coco_small" / name)
        assert without_folders(made) == without_folders(expected)
        split = "train" if "train" in name else "val"
        assert {image["file_name"].rpartition("/")[0] for image in made["images"]} == {f"coco/{split}2017"}
    assert set(prepare_coco_small(tmp_path, coco=coco).values()) == {Outcome.UP_TO_DATE}
    found = {(finding.dataset, finding.state) for finding in check_group("coco_small", tmp_path)}
    assert found == {(f"coco_small_{split}", PRESENT) for split in ("train", "val", "val_masks")}


def test_coco_may_lie_anywhere(packs: Path, tmp_path: Path) -> None:
    coco = public_layout(packs, tmp_path / "elsewhere/coco")
    root = tmp_path / "data"
    prepare_coco_small(root, coco=coco)
    photo = read(root / "coco_small/instances_val.json")["images"][0]
    assert (root / photo["file_name"]).resolve() == coco / "val2017/000000000139.jpg"
    assert all(finding.state == PRESENT for finding in check_group("coco_small", root))


def test_missing_photos_are_named(packs: Path, tmp_path: Path) -> None:
    coco = public_layout(packs, tmp_path / "coco")
    for name in ("000000000009.jpg", "000000000790.jpg"):
        (coco / "train2017" / name).unlink()
    with pytest.raises(UserError, match=r"2 of 288 photos are missing in .*train2017: 000000000009\.jpg, 000000000790"):
        prepare_coco_small(tmp_path, coco=coco)
    assert not (tmp_path / "coco_small").exists()
    with pytest.raises(UserError, match=r"instances_train2017\.json does not exist"):
        prepare_coco_small(tmp_path, coco=tmp_path / "nowhere")


def test_the_list_of_photos_is_that_of_the_configuration() -> None:
    train, val = chosen_photos("train"), chosen_photos("val")
    assert (len(train.all), len(val.all), len(val.masks + val.more)) == (288, 203, 175)
    assert len(set(train.all + val.all)) == 288 + 203


def test_photos_with_boxes_only_lose_masks_and_crowds() -> None:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (3, 1, 2)]
    box = {"category_id": 1, "bbox": [1, 1, 2, 2], "iscrowd": 0, "segmentation": [[1]]}
    annotations = [
        {"id": 1, "image_id": 2, **box},
        {"id": 2, "image_id": 1, **box},
        {"id": 3, "image_id": 1, **box, "iscrowd": 1},
        {"id": 4, "image_id": 3, **box, "iscrowd": 1},
    ]
    document = {"images": images, "annotations": annotations, "categories": []}
    chosen = ChosenPhotos(masks=(2,), boxes=(1,), more=(3,))
    every, masked = choose(document, chosen), choose(document, chosen, masks_only=True)
    assert [image["id"] for image in every["images"]] == [1, 2, 3]
    assert [item["id"] for item in every["annotations"]] == [2, 1, 4]
    assert ["segmentation" in item for item in every["annotations"]] == [False, True, True]
    assert [image["id"] for image in masked["images"]] == [2, 3]
    assert [item["id"] for item in masked["annotations"]] == [1, 4]
    with pytest.raises(UserError, match="image 7 is not in it, of 3 that are chosen; COCO 2017 is expected"):
        choose(document, ChosenPhotos(masks=(2,), boxes=(7,), more=(3,)))


def test_without_packs_the_public_data_is_pointed_to(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"without the folders .* give --from-coco DIR, .* such as .*/coco$"):
        prepare_coco_small(tmp_path)
    advice = {finding.advice for finding in check_group("coco_small", tmp_path) if finding.state == MISSING}
    assert any("--from-coco" in text for text in advice)
