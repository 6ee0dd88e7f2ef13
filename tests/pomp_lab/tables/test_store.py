"""Results and runs that are damaged count as missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from pomp_lab.tables.cost import finished
from pomp_lab.tables.store import Store
from prompt_core.training.artifacts import METHOD_FILE, METRICS_FILE, STATE_FILE, unusable

WHOLE: dict[str, Any] = {
    "row": "POMP",
    "settings": {},
    "a/top1": 3.0,
    "a/top5": None,
    "_run": {"history": [], "scoring": {}},
    "_protocol": {"a": {}},
}


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in WHOLE.items() if key not in keys}


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.read("0") is None
    skipped = {**without("a/top1", "a/top5"), "_protocol": {}, "_run": {"skipped": {"a": "too long"}}}
    for document in (WHOLE, skipped):
        store.results.mkdir(exist_ok=True)
        store.result("0").write_text(json.dumps(document))
        assert store.read("0") == document
        assert store.all() == [document]
    assert store.damaged == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps(WHOLE)[:-5], "it is no JSON"),
        ("", "it is no JSON"),
        ("[" * 100_000, "it is"),
        ("[]", "it holds no object"),
        ("5", "it holds no object"),
        ("null", "it holds no object"),
        ("{}", "settings is no object"),
        (without("row"), "row is no text"),
        (without("_run"), "_run is no object"),
        (without("_protocol"), "_protocol is no object"),
        (without("a/top1", "a/top5"), "a has no numbers"),
        ({**without("a/top1", "a/top5"), "_protocol": {}}, "it has no numbers"),
        ({**WHOLE, "_protocol": {}}, "a/top1 has no protocol"),
        ({**WHOLE, "_protocol": {"a": 5}}, "a is no object"),
        ({**WHOLE, "a/top1": "3"}, "a/top1 is no number"),
        ({**WHOLE, "a/top1": True}, "a/top1 is no number"),
        ({**WHOLE, "_run": {"history": 5}}, "history is no list"),
        ({**WHOLE, "_run": {"skipped": []}}, "skipped is no object"),
        ({**WHOLE, "_run": {"learning": 5}}, "learning is no object"),
    ],
)
def test_what_is_damaged_counts_as_missing(tmp_path: Path, text: Any, reason: str) -> None:
    store = Store(tmp_path)
    store.results.mkdir()
    store.result("0").write_text(text if isinstance(text, str) else json.dumps(text))
    assert store.read("0") is None
    assert store.damaged[store.result("0")].startswith(reason)
    assert store.all() == []


def test_files_of_a_run_that_do_not_parse(tmp_path: Path) -> None:
    import torch

    for name in (METHOD_FILE, METRICS_FILE, STATE_FILE):
        assert unusable(tmp_path, name) == "absent"
        (tmp_path / name).write_bytes(b"half of a fi")
        assert unusable(tmp_path, name) == "damaged"
    for text in ("[]", "{}", '{"_run": 5, "_protocol": {}}', '{"_run": {"history": 5}, "_protocol": {}}'):
        (tmp_path / METRICS_FILE).write_text(text)
        assert unusable(tmp_path, METRICS_FILE) == "no numbers of a run"
    (tmp_path / METRICS_FILE).write_text('{"_run": {}, "_protocol": {}}')
    assert unusable(tmp_path, METRICS_FILE) is None
    save_file({"context": torch.zeros(2)}, tmp_path / METHOD_FILE)
    assert unusable(tmp_path, METHOD_FILE) == "no method"
    torch.save([1], tmp_path / STATE_FILE)
    assert unusable(tmp_path, STATE_FILE) == "no training state of this version"


@pytest.mark.parametrize("text", ["[]", "{}", '{"rows": 5, "set_up": {}}', '{"rows": [], "set_up"', None])
def test_costs_that_are_damaged_are_measured_again(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "cost_0.json"
    row = {"row": "CoOp", "names": 10, "classes_in_step": 10, "images": 2, "learned_parameters": 3}
    row |= {"seconds": {"median": 1.0}, "extra_bytes": {"median": 5}}
    document = {"rows": [row], "set_up": {"gpu": None, "cpu": "x", "versions": {}}}
    path.write_text(json.dumps(document))
    assert finished(path) == document
    del row["seconds"]
    path.write_text(json.dumps(document) if text is None else text)
    assert finished(path) is None
    assert finished(tmp_path / "none.json") is None
