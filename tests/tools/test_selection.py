"""Which epoch a run keeps: chosen on images that are not learned on, or, labelled, on the reported ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prompt_core import SoftPrompt, load_clip
from prompt_core.data.sources import open_images
from prompt_core.evaluation.evaluate import load_test_set, score
from prompt_core.evaluation.protocol import ON_REPORTED, selection_text
from prompt_core.methods.registry import load_method
from prompt_core.safe_load import load_restricted
from prompt_core.training.selection import Selection

from ..support.tools import stop_after

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def splits(picture_folder: Path, tmp_path: Path) -> Path:
    """Six pictures of each of four classes in both ``train`` and ``val``."""
    (tmp_path / "splits").symlink_to(picture_folder)
    return tmp_path / "splits"


def settings(model: tuple[Path, Path], root: Path, **more: object) -> list[str]:
    chosen = {
        "MODEL.NAME": model[0],
        "MODEL.PRETRAINED": model[1],
        "DATA.TRAIN": f"folder:{root}",
        "DATA.SHOTS": 2,
        "DATA.CACHE": "cache",
        "AUGMENT.STORED_VIEWS": 2,
        "AUGMENT.VIEWS": 1,
        "PROMPT.N_CTX": 2,
        "LOSS.NUM_CLASSES": 3,
        "OPTIM.BATCH": 8,
        "OPTIM.EPOCHS": 4,
        "OPTIM.LR": 0.5,
        "DEVICE": "cpu",
        "LOG.TENSORBOARD": False,
        **more,
    }
    return [str(part) for pair in chosen.items() for part in pair]


@pytest.mark.parametrize("name", ["pomp", "vpt"])
def test_the_best_epoch_on_held_out_images_is_kept(
    call_tool: Call, tiny_model: tuple[Path, Path], splits: Path, tmp_path: Path, name: str
) -> None:
    arguments = settings(tiny_model, splits, **{"METHOD.NAME": name, "SELECT.ON": "held_out", "SELECT.SHOTS": 1})
    code, out, error = call_tool("pretrain_prompt", "--output", "run", *arguments)
    assert code == 0, error
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    seen = [entry["validation"] for entry in metrics["_run"]["history"]]
    chosen = metrics["_protocol"]["validation"]
    assert (len(seen), chosen["on"], chosen["images"]) == (4, "held_out", 4)
    assert chosen["accuracy"] == max(seen) == metrics["validation/accuracy"]
    assert chosen["epoch"] == 1 + seen.index(max(seen))
    assert f"epoch {chosen['epoch']} is kept" in out

    # The number is that of the file, on images of the training split that are not learned on.
    clip = load_clip(*map(str, tiny_model))
    method = load_method(tmp_path / "run/method.safetensors", clip)
    from prompt_core.methods.image_towers import image_tower
    from prompt_core.training.data import training_images

    cfg = _configuration(arguments)
    learned_on = set(training_images(cfg, "train", 2).keys)
    rest = [row for row, key in enumerate(open_images(f"folder:{splits}", "train").keys) if key not in learned_on]
    assert len(rest) == 16
    everything = open_images(f"folder:{splits}", "train").subset(rest)
    from prompt_core.data.splits import few_shot

    test_set = load_test_set(image_tower(method), few_shot(everything, 1, cfg.SEED), "", tmp_path / "other")
    assert score(method, test_set).top1 == pytest.approx(chosen["accuracy"])


def _configuration(arguments: list[str]) -> Any:
    from prompt_core.config import load_config

    return load_config(None, arguments)


def test_what_is_kept_is_what_was_learned_by_then(
    call_tool: Call, tiny_model: tuple[Path, Path], splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of equal epochs, also by a run that was stopped behind it and went on."""
    arguments = settings(tiny_model, splits, **{"SELECT.ON": "held_out"})

    def scripted(values: list[float]) -> None:
        given = iter(values)
        monkeypatch.setattr(Selection, "accuracy", lambda self, method, ranks: next(given))

    with monkeypatch.context() as patch:
        scripted([0.2, 0.9])
        patch.setattr("prompt_core.training.recipe.asked_to_stop", stop_after(2))
        assert call_tool("pretrain_prompt", "--output", "part", *arguments)[0] == 130
    behind_two = load_restricted(tmp_path / "part/state.pt")["prompt"]["context"].clone()
    scripted([0.9, 0.1])
    assert call_tool("pretrain_prompt", "--output", "part", "--resume", *arguments)[0] == 0
    chosen = SoftPrompt.load(tmp_path / "part/prompt.safetensors")
    assert torch.equal(chosen.context, behind_two)
    assert not torch.equal(chosen.context, load_restricted(tmp_path / "part/state.pt")["prompt"]["context"])
    assert chosen.metadata["selection"]["epoch"] == 2
    scripted([0.2, 0.9, 0.9, 0.1])
    assert call_tool("pretrain_prompt", "--output", "whole", *arguments)[0] == 0
    assert torch.equal(SoftPrompt.load(tmp_path / "whole/prompt.safetensors").context, chosen.context)
    code, _, error = call_tool(
        "pretrain_prompt", "--output", "whole", "--resume", *settings(tiny_model, splits, **{"OPTIM.EPOCHS": 4})
    )
    assert (code, "belongs to a run with other settings (SELECT.ON; SELECT.ON was 'held_out'" in error) == (2, True)


def test_numbers_of_a_prompt_that_was_chosen_on_the_reported_images_say_so(
    call_tool: Call, tiny_model: tuple[Path, Path], splits: Path, picture_folder: Path, tmp_path: Path
) -> None:
    arguments = settings(tiny_model, splits, SELECT_ON_TEST=True)
    assert call_tool("pretrain_prompt", "--output", "run", *arguments)[0] == 0
    for folder in (picture_folder / "train").iterdir():
        shutil.copytree(folder, tmp_path / "other" / f"other_{folder.name}")
    data_sets = f"folder:{splits},folder:{tmp_path / 'other'}"
    for prompt in ("prompt.safetensors", "method.safetensors"):
        code, out, error = call_tool(
            "evaluate_prompt", "--prompt", f"run/{prompt}", "--pretrained", tiny_model[1], "--datasets", data_sets,
            "--output", "scores", "DATA.CACHE", "cache",
        )  # fmt: skip
        assert code == 0, error
        scores = json.loads((tmp_path / "scores/metrics.json").read_text())
        assert scores["_protocol"]["splits"]["selection"] == ON_REPORTED
        assert f"splits: {ON_REPORTED}" in out
        elsewhere = scores["_protocol"]["other"]["selection"]
        assert elsewhere.startswith("best epoch chosen on test images of")
        # That images of one accuracy are the ones of the other is what the label is about.
        best = json.loads((tmp_path / "run/metrics.json").read_text())["validation/accuracy"]
        assert scores["splits/top1"] == pytest.approx(100 * best)
    rows = json.loads((tmp_path / "scores/inference_splits/per_class.json").read_text())
    assert rows["dataset"] == "splits"
    values = [row["top1"] for row in rows["classes"]]
    assert len(values) == 4
    assert sum(values) / 4 == pytest.approx(scores["splits/per_class"])


@pytest.mark.parametrize("file", ["prompt.safetensors", "method.safetensors"])
def test_images_that_chose_label_the_numbers_whatever_they_chose_as(
    call_tool: Call, tiny_model: tuple[Path, Path], splits: Path, tmp_path: Path, file: str
) -> None:
    """Chosen on two of each of two classes of ``val`` while ``train`` was to be reported, and then ``val`` is."""
    (tmp_path / "classes.txt").write_text("blue_disc\nred_star\n")
    changed = {"SELECT.ON": "val", "SELECT.SHOTS": 2, "EVAL.SPLIT": "train", "DATA.CLASSES": tmp_path / "classes.txt"}
    code, _, error = call_tool("pretrain_prompt", "--output", "run", *settings(tiny_model, splits, **changed))
    assert code == 0, error
    path, images = tmp_path / "run" / file, open_images(f"folder:{splits}", "val")
    labels = {name: label for label, name in enumerate(images.ids)}
    assert selection_text(path, images) == ON_REPORTED
    assert selection_text(path, images.select_classes([labels["red_star"]])) == ON_REPORTED
    others = images.select_classes([labels["green_heart"], labels["old_oak"]])
    words = selection_text(path, others)
    assert words.startswith("best epoch chosen on validation images of")
    assert selection_text(path, others, "shapes") == "best epoch chosen on validation images of shapes"
    # Pictures of the same names elsewhere are others.
    assert selection_text(path, open_images(f"folder:{splits}", "train")) == words
    assert "images_known_by" not in (tmp_path / "run/metrics.json").read_text()


def test_older_files_say_what_they_know(
    call_tool: Call, tiny_model: tuple[Path, Path], splits: Path, tmp_path: Path
) -> None:
    """They hold a hash of all images that chose, and some hold marks of their bytes."""
    arguments = settings(tiny_model, splits, SELECT_ON_TEST=True)
    assert call_tool("pretrain_prompt", "--output", "run", *arguments)[0] == 0
    prompt = SoftPrompt.load(tmp_path / "run/prompt.safetensors")
    del prompt.metadata["selection"]["images_known_by"]
    prompt.metadata["selection"]["marks"] = "AAAA"
    prompt.save(tmp_path / "old.safetensors")
    images = open_images(f"folder:{splits}", "val")
    assert selection_text(tmp_path / "old.safetensors", images) == ON_REPORTED
    assert selection_text(tmp_path / "old.safetensors", images.subset([0])).startswith("best epoch chosen on test")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SELECT.ON": "val"}, "holds images that are reported (EVAL.SPLIT val)"),
        ({"SELECT.ON": "val", "EVAL.SPLIT": "train"}, None),
        ({"SELECT.ON": "held_out", "DATA.SHOTS": -1}, "none are left to choose the epoch by"),
        ({"SELECT.ON": "held_out", "SELECT_ON_TEST": True}, "contradict each other"),
        ({"SELECT.ON": "best"}, "SELECT.ON is 'best'; expected one of last, held_out, val"),
        ({"SELECT_ON_TEST": True, "EVAL.SPLIT": "train"}, "holds images that are learned on"),
        ({"SELECT_ON_TEST": True, "METHOD.NAME": "zero_shot"}, "has no epochs to choose from"),
    ],
)
def test_choices_that_are_refused(
    call_tool: Call,
    tiny_model: tuple[Path, Path],
    splits: Path,
    tmp_path: Path,
    changed: dict[str, object],
    message: str | None,
) -> None:
    code, _, error = call_tool("pretrain_prompt", "--output", "run", *settings(tiny_model, splits, **changed))
    if message is None:
        assert code == 0, error
        return
    assert (code, len(error.strip().splitlines())) == (2, 1), error
    assert message in error
    assert not (tmp_path / "run/state.pt").exists()
