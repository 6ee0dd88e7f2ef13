"""The model zoo: rules on a small tree, mappings that must exist, and the committed page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pomp_lab import model_zoo
from pomp_lab.model_zoo import commands, measured, published, read_configurations, zoo_page
from prompt_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LEARN = "python tools/pretrain_prompt.py --config configs/prompt/one.yaml --output runs/one"
FILES = {
    # A base by its name, one without data, and one that is run although another inherits from it.
    "prompt/base_all.yaml": f"# What all share.\n#   {LEARN}\nDATA:\n  TRAIN: imagenet\n",
    "prompt/shared.yaml": "# Vectors. Shared.\n_BASE_: other/base.yaml\nMETHOD:\n  NAME: coop\n",
    "prompt/other/base.yaml": "# Nothing is set here.\nDATA:\n  TRAIN: ''\n",
    "prompt/one.yaml": f'# {LEARN}\n#\n# One prompt, "a {{}}." and\n# more. Then others.\n_BASE_: base_all.yaml\n',
    "prompt/two.yaml": "# Two: as one, longer.\n_BASE_: one.yaml\nOPTIM:\n  EPOCHS: 3\n",
    "prompt/mini_three.yaml": "# Three is (small). More.\n_BASE_: shared.yaml\nDATA: {TRAIN: dtd}\n",
    "mini/scenes.yaml": "# Scenes. tools/many.py runs this file.\nMODEL: {ROI_HEADS: {}}\nDATASETS: {TEST: (a)}\n",
    "mini/stage.yaml": "# Stage 1 of configs/mini/scenes.yaml.\nMODEL: {SEM_SEG_HEAD: {}}\nDATASETS: {TEST: (a)}\n",
    "seg.yaml": '# All\n# are seen.\nMODEL:\n  CLIP_ADAPTER: {}\nDATASETS:\n  TRAIN: ("a",)\n  TEST: ("b",)\n',
    "seg_elsewhere.yaml": '# Elsewhere.\n_BASE_: seg.yaml\nMODEL:\n  WEIGHTS: x.pth\nDATASETS:\n  TEST: ("c",)\n',
}
MANY = '"""Many.\n\n    python tools/many.py --shapes shapes \\\n        --output runs/many\n"""\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/many.py").write_text(MANY, encoding="utf-8")
    return tmp_path


def write_results(tree: Path, name: str, runs: dict[str, dict[str, Any]]) -> None:
    path = tree / "docs/results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": {}, "runs": runs}), encoding="utf-8")


def document(number: float, config_file: str = "configs/seg.yaml", **about: Any) -> dict[str, Any]:
    run = {"config_file": config_file, **about}
    return {"b/hIoU": number, "train/accuracy": 0.9, "_run": run, "_protocol": {"b": {"split": "b"}}}


@pytest.fixture
def mapping(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """What ``assets/zoo.json`` says, in these tests nothing until they add to it."""
    entries: dict[str, list[dict[str, Any]]] = {"published": [], "measured": []}
    monkeypatch.setattr(model_zoo, "load_mapping", lambda: entries)
    return entries


def test_files_that_are_called_base_or_name_no_data_are_not_run(tree: Path) -> None:
    names = {name for name, file in read_configurations(tree).items() if not file.runnable}
    assert names == {f"configs/prompt/{name}.yaml" for name in ("base_all", "shared", "other/base")}


def test_first_sentences_tasks_and_sizes(tree: Path) -> None:
    files = {name.removeprefix("configs/"): file for name, file in read_configurations(tree).items()}
    assert files["prompt/one.yaml"].about == 'One prompt, "a {}." and more.'
    assert files["prompt/mini_three.yaml"].about == "Three is (small)."
    assert files["seg.yaml"].about == "All are seen."
    assert files["mini/stage.yaml"].about == "Stage 1 of configs/mini/scenes.yaml."
    tasks = {name: (file.task, file.small) for name, file in files.items()}
    assert tasks["prompt/two.yaml"] == ("classification", False)
    assert tasks["prompt/mini_three.yaml"] == ("classification", True)
    assert tasks["mini/scenes.yaml"] == ("detection", True)
    assert tasks["seg_elsewhere.yaml"] == ("segmentation", False)


def test_commands(tree: Path) -> None:
    files = read_configurations(tree)
    lines = {name.removeprefix("configs/"): commands(file, files, tree) for name, file in files.items()}
    assert lines["prompt/one.yaml"] == [LEARN]
    assert lines["prompt/two.yaml"] == [
        "python tools/pretrain_prompt.py --config configs/prompt/two.yaml --output runs/two"
    ]
    assert lines["mini/scenes.yaml"] == ["python tools/many.py --shapes shapes --output runs/many"]
    assert lines["mini/stage.yaml"] == lines["mini/scenes.yaml"]
    assert lines["seg.yaml"] == ["python tools/train_net.py --config configs/seg.yaml --num-gpus 8"]
    assert lines["seg_elsewhere.yaml"] == [
        "python tools/train_net.py --config configs/seg_elsewhere.yaml --num-gpus 8 --eval-only"
    ]


@pytest.mark.parametrize("text", ["# A.\n_BASE_: absent.yaml\n", "# A.\nDATA: [\n"])
def test_a_file_that_cannot_be_read_is_named(tree: Path, text: str) -> None:
    (tree / "configs/broken.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"configs/broken.yaml cannot be read"):
        read_configurations(tree)


def test_no_configurations_and_no_comment(tree: Path) -> None:
    with pytest.raises(UserError, match="no configuration below"):
        read_configurations(tree / "tools")
    (tree / "configs/bare.yaml").write_text("SEED: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"configs/bare.yaml does not begin with a comment"):
        _ = read_configurations(tree)["configs/bare.yaml"].about


def test_results_stand_with_their_configuration(tree: Path, mapping: dict[str, Any]) -> None:
    command = "train_net.py --config configs/seg.yaml --num-gpus 0 SOLVER.MAX_ITER 10"
    runs = {f"hand prompt/seed {seed}": document(50.0 + seed, seed=seed) for seed in (0, 2)}
    runs |= {"short": document(40.0, command=command), "elsewhere": document(1.0, "configs/no.yaml")}
    write_results(tree, "seg.json", runs)
    # Costs are not results, and a choice on the reported images is reported.
    (tree / "docs/results/costs.json").write_text('{"rows": []}', encoding="utf-8")
    write_results(tree, "chosen.json", {"POMP": document(5.0, select_on_test=True)})
    assert measured(tree, read_configurations(tree)) == {
        "configs/seg.yaml": [
            "**measured here** (POMP): `b` hIoU 5.0; best checkpoint chosen on the reported images "
            "([chosen.json]({docs/results/chosen.json}))",
            "**measured here** (hand prompt, 2 seeds): `b` hIoU 51.0 ± 1.0 ([seg.json]({docs/results/seg.json}))",
            "**measured here** (short): `b` hIoU 40.0; with `SOLVER.MAX_ITER 10` ([seg.json]({docs/results/seg.json}))",
        ]
    }


def test_rows_that_the_mapping_names(tree: Path, mapping: dict[str, Any]) -> None:
    write_results(tree, "table.json", {"POMP": document(5.0, ""), "CoOp": document(4.0, "")})
    entry = {
        "configuration": "configs/prompt/one.yaml",
        "file": "docs/results/table.json",
        "row": "POMP",
        "note": "small",
    }
    mapping["measured"].append(entry)
    (lines,) = measured(tree, read_configurations(tree)).values()
    assert lines == ["**measured here** (POMP): `b` hIoU 5.0; small ([table.json]({docs/results/table.json}))"]
    entry["row"] = "POM"
    with pytest.raises(UserError, match=r"no row of docs/results/table.json is called 'POM'; nearest: 'POMP'"):
        measured(tree, read_configurations(tree))


def test_a_damaged_result_is_named(tree: Path, mapping: dict[str, Any]) -> None:
    write_results(tree, "a.json", {"POMP": document(5.0)})
    (tree / "docs/results/b.json").write_text('{"b/hIoU": ', encoding="utf-8")
    with pytest.raises(UserError, match=r"b\.json is not valid JSON"):
        measured(tree, read_configurations(tree))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "Margin n"}, "no published table is called 'Margin n'; nearest: 'Margin m'"),
        ({"row": "K = 31"}, "no row of 'Margin m' is called 'K = 31'; nearest"),
        ({"columns": ["Avg"]}, "no number in row 'K = 319' of 'Margin m' is called 'Avg'"),
        ({"configurations": ["configs/x.yaml"]}, "no configuration is called 'configs/x.yaml'"),
    ],
)
def test_mappings_to_what_is_not_there(tree: Path, mapping: Any, change: dict[str, Any], message: str) -> None:
    entry = {"configurations": ["configs/seg.yaml"], "table": "Margin m", "row": "K = 319", "columns": ["Avg10, m = 0"]}
    files = read_configurations(tree)
    mapping["published"] = [entry]
    assert published(files) == {
        "configs/seg.yaml": ["**published** (K = 319): Avg10, m = 0 65.2 (Margin m: arXiv 2304.04704, slides)"]
    }
    mapping["published"] = [{**entry, **change}]
    with pytest.raises(UserError, match=re.escape(message)):
        published(files)


def test_the_committed_page_is_what_the_files_say() -> None:
    """To update it: python tools/model_zoo.py --output docs/model_zoo.md"""
    page = zoo_page(ROOT, ROOT / "docs")
    assert page == (ROOT / "docs/model_zoo.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(\.\./(configs/[^)]+)\)", page)
    assert sorted(linked) == sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page):
        assert (ROOT / "docs" / link).exists()
    for line in page.splitlines():
        assert not line.startswith("|") or len(re.findall(r"(?<!\\)\|", line)) == 5
