"""``metrics.json`` is read as it was written, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from prompt_core.errors import UserError
from prompt_core.evaluation.protocol import read_metrics, write_metrics

from ...support import hostile


def test_numbers_come_back(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", {"coco/box_AP": 41.5}, {"seed": 1}, {"coco": {"split": "val"}})
    document = read_metrics(tmp_path / "metrics.json")
    assert document == {"coco/box_AP": 41.5, "_run": {"seed": 1}, "_protocol": {"coco": {"split": "val"}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coco/box_AP": "41"}, "coco/box_AP is '41'; a number or null is expected"),
        ({"coco/box_AP": float("nan")}, "coco/box_AP is nan; a finite number is expected"),
        ({"_protocol": {"coco": 3}}, r"metrics.json: _protocol\[...\]: an object is expected"),
        ({"_run": []}, r"_run is \[\]; an object is expected"),
    ],
)
def test_what_is_no_number_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({**hostile.METRICS, **change}))
    with pytest.raises(UserError, match=message):
        read_metrics(tmp_path / "metrics.json")


@given(content=hostile.metrics_files)
@settings(max_examples=50, deadline=None)
def test_any_document_is_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile_metrics.json"
    path.write_bytes(content)
    document = hostile.success_or_one_line(lambda: read_metrics(path))
    assert document is None or {"_run", "_protocol"} <= set(document)
