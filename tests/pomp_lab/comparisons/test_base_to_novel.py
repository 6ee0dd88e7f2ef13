"""The base-to-novel comparison: equally many steps, runs done once and kept apart by settings, means over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CallTool = Callable[..., tuple[int, str, str]]
CONFIG = Path(__file__).resolve().parents[3] / "configs/prompt/mini_tiny_imagenet.yaml"


@pytest.fixture
def compare(call_tool: CallTool, tiny_root: Path, tiny_model: tuple[Path, Path]) -> Callable[..., dict[str, object]]:
    """Hand prompts and two methods with a random model, one epoch; returns the results file."""

    def run(*more: str, methods: str = "POMP K=100;full softmax") -> dict[str, object]:
        data = ["--tiny-imagenet", tiny_root / "tiny-imagenet-200", "--photos", tiny_root / "imagenet_samples"]
        options = ["--output", "out", "--shots", "2", "--seeds", "0,1", "--methods", methods, "--updates", "2", *more]
        model = ["MODEL.NAME", tiny_model[0], "MODEL.PRETRAINED", tiny_model[1], "PROMPT.N_CTX", "2"]
        budget = ["DATA.CACHE", "cache", "OPTIM.EPOCHS", "1"]
        code, _, error = call_tool("compare_prompts", "--config", CONFIG, *data, *options, *model, *budget)
        assert code == 0, error
        text = Path("out/table.json").read_text()
        assert str(CONFIG.parent) not in text, "folders of the machine are private"
        return json.loads(text)["runs"]

    return run


def test_rows_are_means_over_seeds_of_runs_with_the_same_settings(
    compare: Callable[..., dict[str, dict[str, float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prompt_core.training import recipe

    learned: list[int] = []
    real = recipe.pretrain

    def pretrain(cfg: Any, folder: Path, resume: bool) -> int:
        learned.append(cfg.OPTIM.BATCH)
        return real(cfg, folder, resume)

    monkeypatch.setattr(recipe, "pretrain", pretrain)
    runs = compare()
    # Four base classes, two photos of each, two steps.
    assert learned == [4, 4, 4, 4]
    assert {run["_run"]["config"] for run in runs.values()} == {CONFIG.name}
    names = [f"{method}, 2 shots" for method in ("POMP K=100", "full softmax")]
    hand = ['"{}"', '"a photo of a {}."', "80 templates"]
    assert set(runs) == {*hand, *(f"{name}/seed {seed}" for name in names for seed in (0, 1))}
    lines = [line.strip("|\n ").split(" | ") for line in Path("out/table.md").read_text().splitlines()]
    headings, rows = lines[0], {line[0]: line for line in lines[2:]}
    assert headings[:5] == ["prompt", "runs", "base / 4", "base / 5", "base / 9"]
    assert headings[-4:] == ["photos / 4", "photos / 9", "alignment", "uniformity"]
    assert list(rows) == [*hand, *names]
    for name in names:
        first, second = (runs[f"{name}/seed {seed}"]["tiny_imagenet_base_of_all/top1"] for seed in (0, 1))
        expected = f"{(first + second) / 2:.1f} ± {abs(first - second) / 2:.1f}"
        assert rows[name][1:5:3] == ["2", expected]
    # Done: nothing is learned again, and other settings are other runs.
    assert compare() == runs
    assert len(learned) == 4
    changed = compare("OPTIM.LR", "5.0", "--name", "table", methods="POMP K=100")
    assert len(learned) == 6
    assert {key for key in runs if runs[key] != changed[key]} == {f"POMP K=100, 2 shots/seed {seed}" for seed in (0, 1)}
    assert changed["POMP K=100, 2 shots/seed 0"]["_run"]["settings"]["OPTIM.LR"] == 5.0
    assert len(list(Path("out/runs").glob("*/metrics.json"))) == 3 + 4 + 2
    # The other half of the photos is scored with what was learned.
    tuned = compare("--half", "tune", methods="POMP K=100")
    assert len(learned) == 6
    for documents, half in ((runs, "report"), (tuned, "tune")):
        protocol = documents["POMP K=100, 2 shots/seed 0"]["_protocol"]
        assert {words["half"] for words in protocol.values()} == {half}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--methods", "POMP K=10"], "unknown row 'POMP K=10'; nearest: 'POMP K=100'"),
        (["--shots", "many"], "--shots is 'many'; expected whole numbers"),
        (["--seeds", "0;1"], "--seeds is '0;1'; expected whole numbers"),
    ],
)
def test_bad_requests_write_nothing(call_tool: CallTool, tmp_path: Path, given: list[str], message: str) -> None:
    code, _, error = call_tool("compare_prompts", "--tiny-imagenet", "x", *given)
    assert (code, message in error, list(tmp_path.iterdir())) == (2, True, [])
