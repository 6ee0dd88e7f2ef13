"""``tools/reproduce.py`` at a tiny size: nothing is done twice, a stopped table continues, absent data is reported."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pomp_lab.tables import command as tables
from pomp_lab.tables.command import Request
from prompt_core.documents.sealed_json import without_seal
from prompt_core.evaluation.protocol import ON_REPORTED

CallTool = Callable[..., tuple[int, str, str]]
CONFIGS = Path(__file__).resolve().parents[2] / "configs/prompt"
BUDGET = ("DATA.CACHE", "cache", "OPTIM.EPOCHS", "1", "OPTIM.BATCH", "8")
ROWS = "zero-shot CLIP;CoOp;POMP"
SETS = "shapes_base_novel,shapes_sketch_base_novel"


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Models are loaded once: they are frozen, so that all tests may share them."""
    from prompt_core import clip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "load_clip", functools.cache(clip.load_clip))
        yield


@pytest.fixture(autouse=True)
def without_page(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The page with drawings is left out but where a test asks for it."""
    if "page" not in request.node.name:
        monkeypatch.setattr("pomp_lab.tables.command.write_page", lambda store, output: None)


@pytest.fixture(scope="module")
def whole(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished table of :func:`reproduce` in ``out``."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("pomp_lab.tables.command.write_page", lambda store, output: None)
        request = Request("cross_domain", "laptop", Path("out"), shapes_root, CONFIGS, "0", ROWS, SETS, BUDGET)
        tables.reproduce(request)
    return folder


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """The same in ``tmp_path``."""
    return shutil.copytree(whole, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def reproduce(call_tool: CallTool, shapes_root: Path) -> CallTool:
    """The table cross_domain with three rows and two sets, one epoch; further arguments are added."""

    def call(*more: str, output: str = "out", rows: str = ROWS, sets: str = SETS) -> tuple[int, str, str]:
        arguments = ["cross_domain", "--scale", "laptop", "--output", output, "--root", shapes_root]
        arguments += ["--seeds", "0", "--rows", rows, "--datasets", sets, *more]
        return call_tool("reproduce", *arguments, *BUDGET)

    return call


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders that were learned in, one entry for each call."""
    from prompt_core.training import recipe

    folders: list[str] = []
    real = recipe.pretrain

    def pretrain(cfg: Any, output: Any, resume: bool = False) -> int:
        folders.append(Path(output).name)
        return real(cfg, output, resume)

    monkeypatch.setattr(recipe, "pretrain", pretrain)
    return folders


def documents(output: Path) -> dict[str, dict[str, Any]]:
    """Hash of each run → its ``metrics.json``."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(output.glob("runs/*/metrics.json"))}


def numbers(output: Path) -> dict[str, dict[str, float]]:
    """Hash of each run → its numbers."""
    return {
        name: {key: value for key, value in document.items() if not key.startswith("_")}
        for name, document in documents(output).items()
    }


def test_nothing_is_done_twice(reproduce: CallTool, learned: list[str], finished: Path) -> None:
    before = documents(finished / "out")
    text = (finished / "out/cross_domain_laptop.md").read_text()
    code, out, error = reproduce()
    assert code == 0, error
    assert "written to out/cross_domain_laptop.md" in out
    assert "With DATA.CACHE cache OPTIM.EPOCHS 1 OPTIM.BATCH 8." in " ".join(out.split())
    assert (documents(finished / "out"), learned) == (before, [])
    assert (finished / "out/cross_domain_laptop.md").read_text() == text
    assert "| POMP | 1 |" in text
    assert "With DATA.CACHE cache OPTIM.EPOCHS 1 OPTIM.BATCH 8." in text

    # What only the learned rows depend on makes other runs of these, not of the hand prompt.
    assert reproduce("OPTIM.LR", "0.05")[0] == 0
    assert len(learned) == len(set(learned)) == 2
    assert len(before) == 3
    assert len(documents(finished / "out")) == 3 + 2


def test_a_results_file_travels_alone(reproduce: CallTool, learned: list[str], whole: Path, tmp_path: Path) -> None:
    before = documents(whole / "out")
    results = json.loads((whole / "out/cross_domain_laptop.json").read_text())
    assert results["about"]["title"] == "From plain shapes to other looks of them"
    assert list(results["runs"]) == ["zero-shot CLIP", "CoOp/seed 0", "POMP/seed 0"]
    document = results["runs"]["POMP/seed 0"]
    assert without_seal(document) == without_seal(before[document["_run"]["id"]])
    assert set(document["_protocol"]) == {key.rpartition("/")[0] for key in document if "/" in key}
    assert len(document["_protocol"]) == 4
    assert document["_run"]["settings"]["OPTIM.EPOCHS"] == 1
    (tmp_path / "out").mkdir()
    shutil.copy(whole / "out/cross_domain_laptop.json", tmp_path / "out")
    assert reproduce()[0] == 0
    assert (learned, documents(tmp_path / "out")) == ([], {})
    again = json.loads((tmp_path / "out/cross_domain_laptop.json").read_text())
    assert again["runs"] == results["runs"]
    assert again["about"]["command"].startswith("reproduce.py cross_domain --scale laptop --output out --root data")
    assert str(tmp_path) not in json.dumps(again)


def test_other_images_make_other_runs(
    reproduce: CallTool, call_tool: CallTool, learned: list[str], shapes_root: Path, finished: Path
) -> None:
    other = finished / "other"
    shutil.copytree(shapes_root, other)
    (photo, *_) = sorted((other / "shapes/classification/train").glob("*/*.png"))
    photo.unlink()
    arguments = ["cross_domain", "--scale", "laptop", "--output", "out", "--seeds", "0", "--rows", "CoOp"]
    code, _, error = call_tool("reproduce", *arguments, "--datasets", "shapes_base_novel", "--root", other, *BUDGET)
    assert code == 0, error
    assert len(learned) == 1
    assert len(documents(finished / "out")) == 3 + 1


def test_interrupted_between_rows(
    reproduce: CallTool, whole: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pomp_lab.runs import RunStore

    with monkeypatch.context() as patch:
        real, calls = RunStore.keep, []

        def keep(self: RunStore, *arguments: Any, **about: Any) -> dict[str, Any]:
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return real(self, *arguments, **about)

        patch.setattr(RunStore, "keep", keep)
        code, _, error = reproduce(output="part")
    assert code == 130
    assert "the same command continues where it stopped" in error
    assert sorted(len(document["_protocol"]) for document in documents(finished / "part").values()) == [2, 4]
    assert reproduce(output="part")[0] == 0
    assert numbers(finished / "part") == numbers(whole / "out")


def test_killed_while_learning(
    reproduce: CallTool,
    start_tool: Callable[..., subprocess.Popen[str]],
    shapes_root: Path,
    whole: Path,
    finished: Path,
) -> None:
    arguments = ["cross_domain", "--scale", "laptop", "--output", "part", "--root", shapes_root, "--seeds", "0"]
    process = start_tool("reproduce", *arguments, "--rows", "POMP", "--datasets", SETS, *BUDGET, cwd=finished)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("learning"):
            process.kill()
            break
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert not documents(finished / "part")
    assert reproduce(output="part", rows="POMP")[0] == 0
    ((name, metrics),) = numbers(finished / "part").items()
    assert metrics == numbers(whole / "out")[name]


def test_a_dry_run_writes_nothing(reproduce: CallTool, whole: Path, tmp_path: Path) -> None:
    code, out, error = reproduce("--dry-run")
    assert code == 0, error
    assert list(tmp_path.iterdir()) == []
    assert out.count("missing: 0 of 2 image sets done") == 3
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    before = sorted(path for path in tmp_path.rglob("*"))
    code, out, _ = reproduce("--dry-run")
    assert (code, "3 of 3 runs done" in out) == (0, True)
    code, out, _ = reproduce("--dry-run", "OPTIM.LR", "0.05")
    assert (code, "1 of 3 runs done" in out) == (0, True)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_damaged_results_are_reported_and_done_again(
    reproduce: CallTool, learned: list[str], whole: Path, finished: Path
) -> None:
    files = sorted((finished / "out/runs").glob("*/metrics.json"))
    texts = [files[0].read_text()[:-20], "{}", "[]"]
    files.append(finished / "out/cross_domain_laptop.json")
    texts.append(files[3].read_text()[:-20])
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    code, out, error = reproduce("--dry-run")
    assert code == 0, error
    damaged = [line for line in out.splitlines() if "is damaged" in line]
    assert sorted(line.split()[0] for line in damaged) == sorted(str(file.relative_to(finished)) for file in files)
    assert "0 of 3 runs done" in out
    assert [file.read_text() for file in files] == texts
    for folder in (finished / "out/learned").iterdir():
        (folder / ".running").write_text("{}")  # as a kill between learning and scoring leaves it
    code, out, error = reproduce()
    assert code == 0, error
    assert not list(finished.rglob(".running"))
    assert sum("is damaged" in line for line in out.splitlines()) == 4
    assert numbers(finished / "out") == numbers(whole / "out")
    assert learned == []
    assert "damaged" not in reproduce()[1]


@pytest.mark.parametrize("damaged", [["metrics.json"], ["method.safetensors", "metrics.json", "state.pt"]])
def test_damaged_runs_are_learned_anew(
    reproduce: CallTool, learned: list[str], whole: Path, finished: Path, damaged: list[str]
) -> None:
    document = json.loads((finished / "out/cross_domain_laptop.json").read_text())["runs"]["POMP/seed 0"]
    shutil.rmtree(finished / "out/runs")
    (finished / "out/cross_domain_laptop.json").unlink()
    folder = finished / "out/learned" / document["_run"]["id"]
    for name in damaged:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    code, out, error = reproduce(rows="POMP")
    assert code == 0, error
    ((name, metrics),) = numbers(finished / "out").items()
    assert metrics == numbers(whole / "out")[name]
    assert f"{damaged[0]} cannot be used (damaged): POMP, seed 0 is learned again" in " ".join(out.split())
    assert learned == [name]


def test_images_are_known_by_path_and_size(call_tool: CallTool) -> None:
    code, out, _ = call_tool("reproduce", "--help")
    assert (code, "identified by path and size" in " ".join(out.split())) == (0, True)


def test_absent_data_is_reported(call_tool: CallTool, tmp_path: Path) -> None:
    arguments = ["cross_domain", "--scale", "laptop", "--output", "out", "--root", "nothing"]
    code, out, error = call_tool("reproduce", *arguments)
    assert (code, out) == (2, "")
    assert len(error.splitlines()) == 1
    assert "data set shapes is not at nothing/shapes: run python datasets/make_shapes.py --output nothing" in error
    assert "4 more: --dry-run lists all" in error
    code, out, _ = call_tool("reproduce", *arguments, "--dry-run")
    assert code == 0
    for variant in ("blurred", "sketch", "recoloured", "small"):
        assert f"--variant {variant}" in out
    code, out, _ = call_tool("reproduce", "cross_dataset", "--output", "out", "--root", "nothing", "--dry-run")
    assert code == 0
    assert out.count("data set ") >= 12
    assert "split_zhou_EuroSAT.json" in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cross_domains"], "nearest: 'cross_domain'"),
        (["cross_domain", "--scale", "phone"], "paper or laptop"),
        (["cross_domain", "--scale", "laptop", "--rows", "POM"], "unknown row 'POM'"),
        (["cross_domain", "--scale", "laptop", "--datasets", "shape_base_novel"], "nearest: 'shapes_base_novel'"),
        (["cross_domain", "--scale", "laptop", "--seeds", "x"], "whole numbers"),
        (["cross_domain", "--scale", "laptop", "METHOD.NAME", "coop"], "defines row"),
        (["cross_domain", "--scale", "laptop", "DATA.TRAIN", "x"], "the table's own choice"),
        (["cross_domain", "--scale", "laptop", "SELECT.ON", "val", "EVAL.SPLIT", "train"], "EVAL.SPLIT is the table's"),
        (["cross_dataset", "MODEL.NAME", "RN50-quickgelu"], "MODEL.NAME defines row"),
        (["cross_domain", "--scale", "laptop", "OPTIM.RATE", "1"], "unknown key 'OPTIM.RATE'"),
        (["cost", "--scale", "laptop", "--seeds", "1"], "takes no --seeds"),
    ],
)
def test_bad_requests_are_one_line(
    call_tool: CallTool, shapes_root: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, error = call_tool("reproduce", *arguments, "--output", "out", "--root", shapes_root)
    if message.startswith("unknown key"):
        # Told after what is absent, since it takes the rows' configurations.
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        more = ["--datasets", SETS, "--output", "out", "--root", shapes_root]
        code, _, error = call_tool("reproduce", *arguments[:3], *more, *arguments[3:])
    assert code == 2
    assert len(error.splitlines()) == 1
    assert message in error


def test_base_to_novel_with_every_kind_of_row(call_tool: CallTool, tiny_root: Path, tmp_path: Path) -> None:
    rows = "zero-shot CLIP;CoCoOp;MaPLe;linear probe;POMP"
    arguments = ["imagenet21k", "--scale", "laptop", "--output", "out", "--root", tiny_root]
    code, out, error = call_tool("reproduce", *arguments, "--seeds", "0", "--rows", rows, *BUDGET)
    assert code == 0, error
    text = (tmp_path / "out/imagenet21k_laptop.md").read_text()
    lines = [line for line in text.partition("## Published")[0].splitlines() if line.startswith("|")]
    heading, _, *rows_of_text = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    places = {name: place for place, name in enumerate(heading)}
    cells = {row[0]: row for row in rows_of_text}
    probe = cells["linear probe"]
    # It has no weights for novel classes: empty cells, and a sentence that says so.
    assert probe[places["tiny_imagenet_base_of_own"]]
    assert probe[places["tiny_imagenet_novel_of_own"]] == probe[places["tiny_imagenet_base_of_all"]] == ""
    assert "it knows the 4 classes it learned, 1 of 1 are others" in out
    for name in ("zero-shot CLIP", "CoCoOp", "POMP"):
        assert all(cells[name]), name
        assert cells[name][1] == "1"
    assert cells["MaPLe"][1:] == ["0"] + [""] * 8
    assert "MaPLe: not possible here: mini: the vision tower" in out
    assert "not possible" in call_tool("reproduce", *arguments, "--rows", "MaPLe", "--dry-run", *BUDGET)[1]

    # The other table of the same runs learns and scores nothing of this seed.
    before = documents(tmp_path / "out")
    arguments[0] = "align_uniform"
    code, out, _ = call_tool("reproduce", *arguments, "--seeds", "0,1", "--rows", "zero-shot CLIP;POMP", *BUDGET)
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("learning")] == ["learning POMP, seed 1"]
    after = documents(tmp_path / "out")
    assert (len(after), {name: after[name] for name in before}) == (len(before) + 1, before)
    text = (tmp_path / "out/align_uniform_laptop.md").read_text()
    assert "tiny_imagenet_base_of_own, alignment" in text
    assert "±" in next(line for line in text.splitlines() if line.startswith("| POMP | 2 |"))
    assert "Top-1" not in out


def test_the_page_shows_all_numbers(reproduce: CallTool, finished: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawings need matplotlib (extra `demo`)")
    code, out, error = reproduce()
    assert code == 0, error
    assert "all numbers: out/report.html" in out
    text = (finished / "out/report.md").read_text(encoding="utf-8")
    assert "3 runs in 3 rows on 4 data sets" in text


def test_what_is_selected_on_test_is_labelled(reproduce: CallTool, finished: Path) -> None:
    shutil.rmtree(finished / "out")
    code, _, error = reproduce("--select-on-test", rows="POMP")
    assert code == 0, error
    text = (finished / "out/cross_domain_laptop.md").read_text()
    assert "| POMP † | 1 |" in text
    # All validation images of the plain shapes chose, and no other images did.
    assert selections(finished / "out") == {
        "shapes_base_of_own": ON_REPORTED,
        "shapes_novel_of_own": ON_REPORTED,
        "shapes_sketch_base_of_own": "best epoch chosen on test images of shapes",
        "shapes_sketch_novel_of_own": "best epoch chosen on test images of shapes",
    }


def selections(output: Path) -> dict[str, str | None]:
    """Data set → how the epoch of the only run was chosen."""
    (document,) = documents(output).values()
    return {dataset: words.get("selection") for dataset, words in document["_protocol"].items()}


def test_what_is_selected_on_other_images_says_so(reproduce: CallTool, finished: Path) -> None:
    shutil.rmtree(finished / "out")
    few = ["DATA.SHOTS", "1"]
    code, _, error = reproduce("SELECT.ON", "held_out", *few, rows="POMP", sets="shapes_base_novel")
    assert code == 0, error
    words = "best epoch chosen on training images that were not learned on of shapes"
    assert selections(finished / "out") == {"shapes_base_of_own": words, "shapes_novel_of_own": words}
    text = (finished / "out/cross_domain_laptop.md").read_text()
    assert "†" not in text
    assert "With SELECT.ON held_out DATA.SHOTS 1" in text


def test_costs_are_measured_once(call_tool: CallTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def measure_rows(jobs: dict[str, Any], repeats: int) -> list[dict[str, Any]]:
        calls.append(repeats)
        row = {"names": 1000, "classes_in_step": 100, "images": 32, "learned_parameters": 8192}
        row |= {"seconds": {"median": 0.25, "all": [0.25]}, "extra_bytes": {"median": 2**21}}
        failed = {"images": 32, "not_measured": "it took longer than 60 seconds"}
        return [{"row": name, **(failed if name == "CoOp" else row)} for name in jobs]

    monkeypatch.setattr("pomp_lab.tables.cost.measure_rows", measure_rows)
    arguments = ["cost", "--scale", "laptop", "--output", "out", "--rows", "CoOp;POMP, K = 100"]
    code, out, _ = call_tool("reproduce", *arguments, "--dry-run")
    assert (code, out.count("missing"), (tmp_path / "out").exists()) == (0, 2, False)
    for _ in range(2):
        code, _, error = call_tool("reproduce", *arguments)
        assert code == 0, error
        assert calls == [3]
    runs = json.loads((tmp_path / "out/cost_laptop.json").read_text())["runs"]
    assert runs["POMP, K = 100"]["training_step/seconds"] == 0.25
    assert runs["POMP, K = 100"]["_run"]["measurement"]["seconds"]["all"] == [0.25]
    text = (tmp_path / "out/cost_laptop.md").read_text()
    assert "| POMP, K = 100 | 1,000 | 100 | 32 | 8,192 | 0.25 | 2 |" in text
    assert "| CoOp |  |  | 32 |  | not measured | it took longer than 60 seconds |" in text
    (run, *_) = (tmp_path / "out/runs").glob("*/metrics.json")
    run.write_text("{}")
    (tmp_path / "out/cost_laptop.json").unlink()
    assert call_tool("reproduce", *arguments)[0] == 0
    assert calls == [3, 3]
