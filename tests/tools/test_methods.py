"""Methods from the command line: learned, killed and resumed, scored; their benchmark; one line for each mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prompt_core import SoftPrompt, UserError, load_clip
from prompt_core.methods.base import Method
from prompt_core.methods.logistic_regression import LogisticRegression
from prompt_core.methods.registry import METHODS, load_method

from ..support.tools import stop_after

Call = Callable[..., tuple[int, str, str]]


def settings(model: tuple[Path, Path], pictures: Path, name: str, **more: object) -> list[str]:
    chosen = {
        "MODEL.NAME": model[0],
        "MODEL.PRETRAINED": model[1],
        "DATA.TRAIN": f"folder:{pictures}",
        "DATA.CACHE": "cache",
        "DATA.WORKERS": 1,
        "AUGMENT.STORED_VIEWS": 2,
        "AUGMENT.VIEWS": 2,
        "PROMPT.N_CTX": 3,
        "LOSS.NUM_CLASSES": 3,
        "OPTIM.BATCH": 8,
        "OPTIM.EPOCHS": 2,
        "DEVICE": "cpu",
        "LOG.TENSORBOARD": False,
        "METHOD.NAME": name,
        "METHOD.MAPLE.DEPTH": 1,
        "METHOD.IVLP.DEPTH": 1,
        "METHOD.IVLP.VISION_DEPTH": 1,
        "METHOD.LASP.TEMPLATES": 2,
        **more,
    }
    return [str(part) for pair in chosen.items() for part in pair]


@pytest.mark.parametrize(("shots", "kept"), [(1, 1), (16, 4), (-1, 6)])
def test_settings_are_chosen_on_four_photos_of_each_class_at_most(
    call_tool: Call,
    tiny_model: tuple[Path, Path],
    picture_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    shots: int,
    kept: int,
) -> None:
    """CoOp's rule: min(shots, 4) validation photos, or all of them where all photos are learned on."""
    validation: list[int] = []

    def fit(method: Method, features: Any, labels: Any, validation_features: Any, validation_labels: Any) -> None:
        validation.extend(validation_labels.tolist())
        raise UserError("seen enough")

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    more = settings(tiny_model, picture_folder, "logistic_regression", **{"DATA.SHOTS": shots})
    _, _, error = call_tool("pretrain_prompt", "--output", "run", *more)
    assert "seen enough" in error
    assert sorted(validation) == sorted([*range(4)] * kept)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_learned_and_scored(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path, name: str
) -> None:
    if name == "logistic_regression":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    code, out, error = call_tool("pretrain_prompt", "--output", "run", *settings(tiny_model, picture_folder, name))
    assert code == 0, error
    assert "written to run" in out
    clip = load_clip(*map(str, tiny_model))
    method = load_method(tmp_path / "run/method.safetensors", clip)
    assert method.name == name
    is_prompt = name in ("coop", "pomp")
    assert (tmp_path / "run/prompt.safetensors").exists() == is_prompt
    if is_prompt:
        prompt = SoftPrompt.load(tmp_path / "run/prompt.safetensors")
        assert torch.equal(prompt.context, method.prompt.context)  # type: ignore[union-attr]
        assert prompt.metadata["method"] == {"coop": "CoOp", "pomp": "POMP"}[name]
    if method.learned_by != "nothing":
        metrics = json.loads((tmp_path / "run/metrics.json").read_text())
        assert metrics["_run"]["method"] == name
        assert metrics["_run"]["images"] == 24
    arguments = ["--prompt", "run/method.safetensors", "--datasets", f"folder:{picture_folder}"]
    arguments += ["--pretrained", tiny_model[1], "--output", "scores", "DATA.CACHE", "cache"]
    code, _, error = call_tool("evaluate_prompt", *arguments)
    assert code == 0, error
    scores = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert scores["_protocol"][picture_folder.name]["candidates"] == 4
    assert 0 <= scores[f"{picture_folder.name}/top1"] <= 100
    code, _, error = call_tool("pretrain_prompt", "--output", "run", *settings(tiny_model, picture_folder, name))
    assert code == 2
    assert "already holds a run" in error


def test_a_fit_that_was_killed_before_its_numbers_is_done_anew(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    options = ["--output", "run", *settings(tiny_model, picture_folder, "logistic_regression")]
    assert call_tool("pretrain_prompt", *options)[0] == 0
    whole = (tmp_path / "run/method.safetensors").read_bytes()
    code, _, error = call_tool("pretrain_prompt", *options)
    assert (code, error) == (2, "error: run already holds a run; choose another --output\n")
    (tmp_path / "run/metrics.json").unlink()
    assert call_tool("pretrain_prompt", *options)[0] == 0
    assert (tmp_path / "run/metrics.json").is_file()
    assert (tmp_path / "run/method.safetensors").read_bytes() == whole


@pytest.mark.parametrize("name", ["cocoop", "maple", "lasp", "linear_probe"])
def test_a_stopped_run_goes_on_to_the_same_method(
    call_tool: Call,
    tiny_model: tuple[Path, Path],
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    arguments = settings(tiny_model, picture_folder, name)
    assert call_tool("pretrain_prompt", "--output", "whole", *arguments)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("prompt_core.training.recipe.asked_to_stop", stop_after(2))
        code, out, _ = call_tool("pretrain_prompt", "--output", "part", *arguments)
    assert (code, "stopped at epoch 1, step 2" in out) == (130, True)
    assert not (tmp_path / "part/method.safetensors").exists()
    other = settings(tiny_model, picture_folder, "vpt" if name != "vpt" else "maple")
    code, _, error = call_tool("pretrain_prompt", "--output", "part", "--resume", *other)
    assert (code, "belongs to a run with other settings" in error) == (2, True)
    assert call_tool("pretrain_prompt", "--output", "part", "--resume", *arguments)[0] == 0
    clip = load_clip(*map(str, tiny_model))
    whole, part = (load_method(tmp_path / run / "method.safetensors", clip) for run in ("whole", "part"))
    assert whole.sha256() == part.sha256()


def test_templates_of_each_data_set_and_ensembles(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    # A folder whose name is that of a known data set has its template.
    (tmp_path / "eurosat").symlink_to(picture_folder)
    scores: dict[str, Any] = {}
    common = ["--clip", tiny_model[0], "--pretrained", tiny_model[1], "--datasets", f"folder:{tmp_path / 'eurosat'}"]
    for label, subject in {
        "own": ["--template", "data_set"],
        "by hand": ["--template", "a centered satellite photo of {}."],
        "selected_own": ["--ensemble", "selected_own"],
        "selected": ["--ensemble", "selected"],
        "imagenet": ["--ensemble", "imagenet"],
    }.items():
        code, _, error = call_tool("evaluate_prompt", *subject, *common, "--output", "scores")
        assert code == 0, error
        scores[label] = json.loads((tmp_path / "scores/metrics.json").read_text())["eurosat/top1"]
    assert scores["own"] == scores["by hand"]
    for mistake in (["--template", "{}", "--ensemble", "selected"], []):
        code, _, error = call_tool("evaluate_prompt", *mistake, *common)
        assert code == 2
        assert "give one of --prompt FILE, --classifier FILE, --ensemble NAME, or one or more --template TEXT" in error


def test_towers_and_names_that_do_not_go_with_a_method(
    call_tool: Call, picture_folder: Path, tiny_model: tuple[Path, Path]
) -> None:
    arguments = settings(tiny_model, picture_folder, "vpt", **{"MODEL.NAME": "mini", "MODEL.PRETRAINED": ""})
    code, _, error = call_tool("pretrain_prompt", "--output", "run", *arguments)
    assert (code, len(error.strip().splitlines())) == (2, 1)
    assert "mini: the vision tower TimmModel is not supported" in error
    code, _, error = call_tool("pretrain_prompt", "--output", "run", *settings(tiny_model, picture_folder, "mapple"))
    assert (code, "nearest: 'maple'" in error) == (2, True)
    arguments = settings(tiny_model, picture_folder, "zero_shot")
    code, _, error = call_tool("pretrain_prompt", "--output", "run", "--resume", *arguments)
    assert (code, "method zero_shot is done at once, there is nothing to resume" in error) == (2, True)


@pytest.mark.usefixtures("in_this_process")
def test_a_smoke_run_of_the_benchmark(call_tool: Call, tmp_path: Path) -> None:
    code, out, error = call_tool(
        "benchmark_methods", "--smoke", "--threads", "1", "--rows", "coop,coop_77_tokens,vpt", "--output", "rows.json"
    )
    assert code == 0, error
    report = json.loads((tmp_path / "rows.json").read_text())
    assert report["set_up"]["versions"]["torch"] == torch.__version__
    coop, full, vpt = report["rows"]
    assert (coop["row"], coop["names"], coop["learned_parameters"]) == ("coop, 12 names", 12, 16 * 116)
    assert coop["loss"] == pytest.approx(full["loss"], rel=1e-3), "both sides compute the same"
    assert min(coop["seconds"]["min"], coop["extra_bytes"]["min"]) > 0
    assert "mini: the vision tower TimmModel is not supported" in vpt["not_measured"]
    assert "not measured" in out


@pytest.mark.usefixtures("in_this_process")
def test_the_benchmark_scales_all_tokens_and_measures_vision_methods(
    call_tool: Call, tiny_model: tuple[Path, Path], tmp_path: Path
) -> None:
    options = ["--clip", tiny_model[0], "--vocabularies", "coco", "--names", "6", "--repeats", "1", "--threads", "1"]
    rows = ["--rows", "coop_77_tokens,pomp_77_tokens,vpt", "--reference-names", "4"]
    code, out, error = call_tool("benchmark_methods", *options, *rows, "--output", "rows.json")
    assert code == 0, error
    scaled, pomp, vpt = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert (scaled["row"], scaled["names"], scaled["scaled_to_names"]) == ("coop_77_tokens, 6 names", 4, 6)
    assert scaled["scaled_seconds"] == pytest.approx(1.5 * scaled["seconds"]["median"])
    assert "scaled" in out
    assert (pomp["names"], "scaled_seconds" in pomp) == (6, False)
    assert (vpt["learned_parameters"], vpt["images"], len(vpt["seconds"]["all"])) == (8 * 32, 4, 1)
    code, _, error = call_tool("benchmark_methods", *options, "--rows", "vptt")
    assert (code, "unknown row 'vptt'" in error, "nearest: 'vpt'" in error) == (2, True, True)
