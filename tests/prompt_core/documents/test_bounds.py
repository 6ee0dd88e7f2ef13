"""Documents from outside: what a bound refuses is one line, before memory is taken."""

from __future__ import annotations

import json
import math
import os
import resource
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file

from prompt_core.config import load_config
from prompt_core.documents.bounds import read_bytes, read_text
from prompt_core.documents.json_files import decode_json, read_json
from prompt_core.documents.schema import Finite, Int64, check, check_each
from prompt_core.documents.yaml_with_bases import DEPTH, load_yaml, read_with_bases
from prompt_core.errors import UserError
from prompt_core.files import read_safetensors

from ...support import hostile


def test_a_file_larger_than_its_kind_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with open(path, "wb") as stream:
        stream.truncate(1 << 35)  # sparse: it takes no room on the disk
    with pytest.raises(UserError, match=r"huge.json has 34,359,738,368 bytes; at most 17,179,869,184 are expected"):
        read_json(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="a pipe or a device; a file is expected"):
            read_bytes(path)
    for path, message in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file"), ("a\0b", "null byte")):
        with pytest.raises(UserError, match=f"cannot read .*{message}"):
            read_text(path)


def test_python_s_numbers_are_read() -> None:
    value = decode_json(b"[NaN, 1e999, -Infinity, 3]", "x")
    assert math.isnan(value[0])
    assert value[1:] == [math.inf, -math.inf, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "f.json is nested too deeply"),
        (b"[" + b"1" * 5000 + b"]", "f.json holds a number of more than 4,300 digits"),
        (b'["\\ud800"]', "f.json is not valid JSON .*surrogates"),
        (b'{"a":\n 1', r"f.json is not valid JSON \(Expecting ',' delimiter: line 2"),
    ],
)
def test_json_beyond_a_bound(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode_json(content, "f.json")


@given(content=hostile.json_files(hostile.METRICS))
@settings(max_examples=80, deadline=None)
def test_json_is_read_or_refused_as_python_reads_it(content: bytes) -> None:
    value = hostile.success_or_one_line(lambda: decode_json(content, "f.json"))
    if value is not None:
        assert json.dumps(value) == json.dumps(json.loads(content.decode("utf-8-sig")))


@pytest.mark.parametrize("content", [hostile.laughs(9, 9), hostile.laughs(9, 9, merge=True)])
def test_aliases_are_counted_before_they_are_written_out(content: bytes, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "own.yaml").write_bytes(content)
    with pytest.raises(
        UserError, match=r"own.yaml, line \d+: more than 100,000 values .* with its aliases written out"
    ):
        load_config(tmp_path / "own.yaml")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "own.yaml, line 1: an alias stands inside what it names"),
        ("[" * 20_000, f"own.yaml, line 1: more than {DEPTH} levels"),
        (hostile.laughs(60, 1).decode(), "levels with its aliases written out"),
        ("a: " + "1" * 5000, "own.yaml, line 1: a number of more than 4300 digits"),
        ("a: !!int x", "own.yaml is not valid YAML: invalid literal"),
        ("a: 2024-13-45", "own.yaml is not valid YAML: month must be"),
        (
            "a: !!python/object/apply:os.system ['true']",
            "own.yaml is not valid YAML: could not determine a constructor",
        ),
        ("a: \x1b", r"own.yaml is not valid YAML: unacceptable character #x001b"),
    ],
)
def test_yaml_beyond_a_bound(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_yaml(text, "own.yaml")


def test_bases_neither_return_nor_multiply(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml\n")
    (tmp_path / "b.yaml").write_text("_BASE_: [c.yaml, ./a.yaml]\n")
    (tmp_path / "c.yaml").write_text("SEED: 1\n")
    with pytest.raises(UserError, match=r"a.yaml is its own _BASE_, through .*a.yaml and .*b.yaml"):
        read_with_bases(str(tmp_path / "a.yaml"))
    for level in range(30):
        base = f"{level - 1}.yaml" if level else "../c.yaml"
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / f"{level}.yaml").write_text(f"_BASE_: [{base}, {base}]\n")
    with pytest.raises(UserError, match="more than 100 _BASE_ files"):
        read_with_bases(str(tmp_path / "many/29.yaml"))


@given(content=hostile.yaml_files)
@settings(max_examples=60, deadline=None)
def test_a_configuration_is_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "own.yaml"
    path.write_bytes(content)
    hostile.success_or_one_line(lambda: load_config(path))


class Box(msgspec.Struct):
    id: Int64
    bbox: Annotated[list[Finite], msgspec.Meta(min_length=4, max_length=4)]
    note: str | list[str] | None = None


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            {"id": 2**70, "bbox": [1, 2, 3, 4]},
            "boxes[2].id is 1180591620717411303424; a whole number of 64 bits is expected",
        ),
        ({"id": 1, "bbox": [1, 2, 3]}, "boxes[2].bbox is [1, 2, 3]; a list of a length of at least 4 is expected"),
        ({"id": 1, "bbox": [1, 2, 3, math.nan]}, "boxes[2].bbox[3] is nan; a finite number is expected"),
        ({"id": 1, "bbox": [1, 2, math.inf, 1]}, "boxes[2].bbox[2] is inf; a finite number is expected"),
        ({"id": 1, "bbox": [1, 2, "3\x1b", 1]}, r"boxes[2].bbox[2] is '3\x1b'; a number is expected"),
        ({"id": True, "bbox": [1, 2, 3, 4]}, "boxes[2].id is True; a whole number is expected"),
        ({"id": 1, "bbox": [1, 2, 3, 4], "note": 5}, "boxes[2].note is 5; a text or a list or null is expected"),
        (
            {"id": 10**400, "bbox": []},
            "boxes[2].id is a whole number of 1,329 bits; a whole number of 64 bits is expected",
        ),
        ({"id": 1}, "boxes[2] has no 'bbox'; add it, or download the file again"),
        ([], "boxes[2] is []; an object is expected"),
    ],
)
def test_a_fault_is_one_line_with_its_place(value: Any, line: str) -> None:
    good = {"id": 1, "bbox": [1, 2.5, 3, 4], "unknown": {}}
    with pytest.raises(UserError) as caught:
        check_each([good, good, value], Box, "f.json", "boxes")
    assert str(caught.value) == f"f.json: {line}"
    assert check(good, Box, "f.json") == Box(1, [1, 2.5, 3, 4])


@given(value=hostile.values)
@settings(max_examples=60, deadline=None)
def test_any_value_fits_a_schema_or_is_refused(value: Any) -> None:
    hostile.success_or_one_line(lambda: check_each([value], Box, "f.json", "boxes"))


def test_a_check_costs_less_than_reading() -> None:
    """Measured in one process; the margin of annotation files of 100 MB is in docs/detection.md."""
    items = [{"id": row, "bbox": [1.5, 2.5, 3.5, 4.5], "segmentation": [[0.5] * 40]} for row in range(20_000)]
    content = json.dumps(items).encode()
    times = []
    for call in (lambda: json.loads(content), lambda: check_each(items, Box, "f.json", "boxes")):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    assert times[1] < times[0]


def test_metadata_of_a_file_of_tensors_may_be_anything(tmp_path: Path) -> None:
    deep = "[" * 100_000
    save_file({"weight": torch.zeros(1)}, tmp_path / "a.safetensors", {"deep": deep, "list": "[1]", "text": "a b"})
    assert read_safetensors(tmp_path / "a.safetensors")[1] == {"deep": deep, "list": [1], "text": "a b"}
