"""A box around a crowd is the box of no single thing, and no correction of one."""

from __future__ import annotations

import json
from pathlib import Path

from pomp.formats import coco_json


def test_crowds_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 10}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": rows,
    }
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
    read = coco_json.read(tmp_path / "a.json")
    assert [item.box for item in read.photos[0].objects] == [(1.0, 2.0, 3.0, 4.0)]
    assert any("crowd" in note for note in read.notes)
