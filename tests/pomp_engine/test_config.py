"""Files, bases and overrides on top of defaults, and expressions that run nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from detectron2.config import CfgNode, get_cfg

from pomp_engine.config import add_engine_config, flatten, merge_config, refuse_unsupported, value_of
from pomp_engine.yaml_files import evaluate, read_yaml
from prompt_core import UserError

from ..support.config_keys import recorded_reads


def load(file: Path | None = None, overrides: Any = ()) -> CfgNode:
    cfg = get_cfg()
    add_engine_config(cfg)
    assert merge_config(cfg, file, overrides) is cfg
    return cfg


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_overrides_win_over_the_file_and_the_file_over_its_base(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "SOLVER: {BASE_LR: 1, MAX_ITER: 5, OPTIMIZER: ADAMW}\nOUTPUT_DIR: runs/auto\n")
    file = write(tmp_path / "deep/own.yaml", "_BASE_: ../base.yaml\nSOLVER: {MAX_ITER: 6, GAMMA: 1e-2}\n")
    cfg = load(file, ["SOLVER.MAX_ITER", "7"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.OPTIMIZER) == (1.0, 7, "ADAMW")
    assert cfg.SOLVER.GAMMA == 0.01
    assert cfg.OUTPUT_DIR == "runs/own"
    with pytest.raises(UserError, match=r"unknown key 'SOLVER.MAX_ITERS' in the overrides.*'SOLVER.MAX_ITER'"):
        load(file, {"SOLVER.MAX_ITERS": 7})


def test_bases_are_found_as_fvcore_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "home/first.yaml", "A: {x: 1, y: 1, z: 1, w: [1]}\nB: 1\n")
    write(tmp_path / "second.yaml", "A: {y: 2, z: 2}\n")
    write(tmp_path / "deep/middle.yaml", f"_BASE_: {tmp_path}/second.yaml\nC: {{deep: {{er: 2}}}}\n")
    write(tmp_path / "own.yaml", "_BASE_: ['~/first.yaml', deep/middle.yaml]\nA: {z: 3, w: [3]}\nC: {deep: {est: 3}}\n")
    for file in (tmp_path / "own.yaml", Path("own.yaml"), Path("deep/../own.yaml")):
        settings = read_yaml(file)
        assert settings == {"A": {"x": 1, "y": 2, "z": 3, "w": [3]}, "B": 1, "C": {"deep": {"er": 2, "est": 3}}}
        assert settings == CfgNode.load_yaml_with_base(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER: [1", "cannot be read"),
        ("_BASE_: absent.yaml", "cannot be read: .*absent.yaml"),
        ("_BASE_: 3", r"cannot be read: _BASE_ is \[?3"),
        ("_BASE_: base.yaml\nSOLVER: {MAX_ITER: {more: 1}}", "Cannot inherit key 'MAX_ITER' from base!"),
        ("", "holds a NoneType; a mapping of settings is expected"),
        ("- 1", "holds a list; a mapping of settings is expected"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "base.yaml", "SOLVER: {MAX_ITER: 5}\n")
    with pytest.raises(UserError, match=message):
        load(write(tmp_path / "own.yaml", text))


PUBLISHED = "[int(x * 0.1 * 640) for x in range(5, 16)]"


@pytest.mark.parametrize(
    "expression", [PUBLISHED, "(1, 2.5, -3)", "[x for y in [[1], [2]] for x in y]", "2 ** 3", "True"]
)
def test_an_expression_is_what_python_makes_of_it(expression: str) -> None:
    assert evaluate(expression) == eval(expression)


def test_a_published_expression_is_read(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", f'INPUT:\n  MIN_SIZE_TRAIN: !!python/object/apply:eval ["{PUBLISHED}"]\n')
    cfg = load(write(tmp_path / "own.yaml", "_BASE_: base.yaml\n"))
    assert tuple(range(320, 961, 64)) == cfg.INPUT.MIN_SIZE_TRAIN


def test_published_files_of_the_segmenter_are_read(shared: Path) -> None:
    files = sorted((shared / "data/published_configs/zsseg").rglob("*.yaml"))
    assert len(files) > 40
    sizes = {file.name: dict(flatten(read_yaml(file))).get("INPUT.MIN_SIZE_TRAIN") for file in files}
    assert sizes["Base-COCOStuff164K-171.yaml"] == sizes["Base-VOC11K-20.yaml"] == list(range(320, 961, 64))
    city = sizes["cross_dataset_maskformer_R101c_bs32_test_only.yaml"]
    assert city == [int(x * 0.1 * 1024) for x in range(5, 21)]


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch PROOF')",
        "[open('PROOF', 'w') for x in range(1)]",
        "().__class__.__base__.__subclasses__()",
        "[int.real for x in range(2)]",
        "(lambda: 1)()",
        "eval('1')",
        "list(range(3))",
        "rand()",
        "range(3)",
        "[int]",
        "x",
        "x = 1",
        "1; 2",
        "f'{1}'",
        "[x for x in range(10 ** 9)]",
        "9 ** 9 ** 9 ** 9",
        "1 / 0",
        "(1",
        "",
    ],
)
def test_other_expressions_are_refused(expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "own.yaml", f'SEED: !!python/object/apply:eval ["{expression}"]\n')
    with pytest.raises(UserError, match=r"own.yaml, line 1: the expression .*(is not allowed|are? expected)") as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir ['PROOF']",
        "!!python/object/apply:eval.sub ['1']",
        "!!python/object/apply:builtins.eval ['1']",
        "!!python/object/new:os.mkdir ['PROOF']",
        "!!python/name:os.mkdir",
        "!!python/module:this",
        "!!python/tuple [1, 2]",
        "!!python/object/apply:eval '1'",
        "!!python/object/apply:eval ['1', {}]",
        "!!python/object/apply:eval [[1]]",
        "!!python/object/apply:eval {args: ['1']}",
    ],
)
def test_other_tags_of_python_are_refused(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "own.yaml", f"\nSEED: {value}\n")
    with pytest.raises(UserError, match=r"own.yaml cannot be read: .*own.yaml, line 2: .*!!python/") as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]
    assert "this" not in sys.modules


def test_what_a_run_wrote_is_read_again(tmp_path: Path) -> None:
    cfg = load(None, {"SOLVER.BETAS": (0.8, 0.9), "SOLVER.STEPS": [3, 4]})
    again = load(write(tmp_path / "config.yaml", cfg.dump()))
    assert flatten(again.SOLVER) == flatten(cfg.SOLVER)


def test_settings_that_nothing_reads_are_refused_when_they_are_set() -> None:
    reasons = {"TEST.AUG": "one scale is tested", "SOLVER.BASE_LR": "the rate is fixed"}
    refuse_unsupported(load(), add_engine_config, reasons)
    refuse_unsupported(load(None, {"TEST.EVAL_PERIOD": 7}), add_engine_config, reasons)
    with pytest.raises(UserError) as caught:
        refuse_unsupported(load(None, {"TEST.AUG.FLIP": False}), add_engine_config, reasons)
    assert str(caught.value) == "TEST.AUG.FLIP is False, which is not built: one scale is tested; leave it at True"
    with pytest.raises(UserError, match=r"SOLVER.BASE_LR is 0.5, .*; leave it at 0.001"):
        refuse_unsupported(load(None, {"SOLVER.BASE_LR": 0.5}), add_engine_config, reasons)


def test_read_settings_are_recorded_and_walked_ones_are_not() -> None:
    cfg = load()
    with recorded_reads(cfg) as keys:
        copy = cfg.clone()
        copy.freeze()
        flatten(copy)
        copy.dump()
        assert keys == set()
        assert copy.SOLVER.MAX_ITER == value_of(copy, "SOLVER.MAX_ITER") == 40000
        assert copy.MODEL.FPN.get("NORM") == ""
    assert keys == {"SOLVER.MAX_ITER", "MODEL.FPN.NORM"}
    _ = cfg.SOLVER.BASE_LR
    assert len(keys) == 2
