"""The vocabulary builder reads literals only, names what is missing, and writes nothing on an error."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import prompt_core
from prompt_core.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "build_vocabularies.py"

SOURCES = {
    "detectron2/data/datasets/lvis_v1_categories.py": """
LVIS_CATEGORIES = [
    {"id": 2, "name": "b_c", "synset": "b.n.01", "synonyms": ["b_c", "b"], "frequency": "r"},
    {"id": 1, "name": "a", "synset": "a.n.01", "synonyms": ["a"], "frequency": "f"},
]
""",
    "detectron2/data/datasets/builtin_meta.py": """
raise RuntimeError("this file must never be executed")
COCO_CATEGORIES = [{"id": 1, "name": "person", "isthing": 1}, {"id": 92, "name": "banner", "isthing": 0}]
ADE20K_SEM_SEG_CATEGORIES = ["window ", "road, route"]
""",
    "mmdet/datasets/objects365.py": """
class Objects365V1Dataset:
    METAINFO = {"classes": ("wrong",)}
class Objects365V2Dataset:
    METAINFO = {"classes": ("Moniter/TV", "Table Tennis ")}
""",
}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_vocabularies_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for member, source in SOURCES.items():
        path = tmp_path / "packages" / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return tmp_path / "packages"


def test_lists_are_read_without_executing_the_source(tool: ModuleType, packages: Path) -> None:
    lvis = tool.build_lvis(packages)
    assert (lvis["names"], lvis["ids"], lvis["frequency"]) == (["a", "b_c"], [1, 2], ["f", "r"])
    assert tool.build_coco(packages)["names"] == ["person"]
    ade20k = tool.build_ade20k(packages)
    assert (ade20k["names"], ade20k["synonyms"]) == (["window", "road, route"], [["window"], ["road", "route"]])
    assert tool.build_objects365(packages)["names"] == ["Monitor/TV", "Table Tennis"]


def test_json_text_reads_back(tool: ModuleType, packages: Path) -> None:
    for build in tool.BUILDERS.values():
        vocabulary = build(packages)
        assert json.loads(tool.to_json(vocabulary)) == vocabulary


@pytest.mark.parametrize(
    ("source", "message"), [("X = open('f')", "literal"), ("Y = 1", "not assigned"), ("X = (", "valid Python")]
)
def test_anything_but_a_literal_is_refused(tool: ModuleType, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tool.literal(source, "X")


def test_a_wheel_with_another_checksum_is_refused(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / tool.MMDET.wheel).write_bytes(b"not the wheel")
    with pytest.raises(UserError, match="sha256"):
        tool.read_source(tmp_path, tool.MMDET, "mmdet/datasets/objects365.py")


def test_missing_packages_exit_2_and_write_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "--packages", str(tmp_path), "--output", str(tmp_path / "output")]
    environment = {**os.environ, "PYTHONPATH": str(Path(prompt_core.__file__).resolve().parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "output").exists()


def test_hypernyms_need_the_file_of_wordnet(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.noun"
    file.write_text("00000001 03 n 01 entity 0 000 | all\n", encoding="utf-8")
    monkeypatch.setattr(
        sys, "argv", ["build_vocabularies.py", "--wordnet", str(file), "--output", str(tmp_path / "out")]
    )
    with pytest.raises(UserError, match=r"has no synset n00004475; ImageNet's ids are those of WordNet 3\.0"):
        tool.main()
    assert not (tmp_path / "out").exists()
