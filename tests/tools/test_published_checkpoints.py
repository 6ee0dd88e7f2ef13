"""Checkpoints of published trainers, as a file and as the folder of a run, from the command line."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prompt_core import load_clip
from prompt_core.data.sources import open_images
from prompt_core.methods.registry import load_method
from prompt_core.vocabulary import Vocabulary

from ..support.dassl import FOLDERS, entries, frozen, save_run

Call = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", ["coop", "cocoop", "maple"])
def test_a_run_is_scored(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path, name: str
) -> None:
    clip = load_clip(*map(str, tiny_model))
    n_ctx, words = (4, "X X X X") if name == "coop" else (2, "a photo of a")
    state = entries(name, clip, n_ctx, depth=1) | frozen(name, clip, ["a cat"], n_ctx, words)
    path = save_run(tmp_path / "run", FOLDERS[name], OrderedDict(state), best=name == "cocoop")
    given = path if name == "maple" else tmp_path / "run"
    arguments = ["--clip", tiny_model[0], "--pretrained", tiny_model[1], "--datasets", f"folder:{picture_folder}"]
    code, out, error = call_tool("evaluate_prompt", "--prompt", given, *arguments, "--output", "scores")
    assert code == 0, error
    metrics = json.loads((tmp_path / "scores/metrics.json").read_text())
    method, images = load_method(path, clip), open_images(f"folder:{picture_folder}", "val")
    pixels = torch.stack([clip.preprocess(images.read(index)) for index in range(len(images))])
    with torch.no_grad():
        inputs = pixels if method.reads == "images" else clip.encode_image(pixels)
        predicted = method.logits(inputs, Vocabulary(images.names)).argmax(dim=1)
    expected = 100 * float((predicted.numpy() == images.labels).mean())
    assert metrics[f"{picture_folder.name}/top1"] == pytest.approx(expected, abs=1e-3)
    chosen = "best epoch chosen by the trainer that wrote it"
    assert metrics["_protocol"][picture_folder.name].get("selection") == (chosen if name == "cocoop" else None)
    assert (chosen in out) == (name == "cocoop")
    # Another CLIP, and a file that is cut off: one line each.
    code, _, error = call_tool("evaluate_prompt", "--prompt", given, *arguments[4:], "--clip", "mini")
    assert (code, "was learned with another CLIP than mini" in error) == (2, True)
    path.write_bytes(path.read_bytes()[:1000])
    code, _, error = call_tool("evaluate_prompt", "--prompt", given, *arguments)
    assert (code, "it may be truncated" in error) == (2, True)


def test_a_prompt_goes_into_a_classifier_from_its_folder_and_more_than_a_prompt_does_not(
    call_tool: Call, tiny_model: tuple[Path, Path], tmp_path: Path
) -> None:
    clip = load_clip(*map(str, tiny_model))
    for name in ("coop", "cocoop"):
        save_run(tmp_path / name, FOLDERS[name], entries(name, clip))
    (tmp_path / "words.txt").write_text("cat\ndog\n")
    arguments = ["--vocabulary", "words.txt", "--clip", tiny_model[0], "--pretrained", tiny_model[1]]
    code, _, error = call_tool("build_classifier", *arguments, "--prompt", "coop", "--output", "out.npy")
    assert code == 0, error
    code, _, error = call_tool("build_classifier", *arguments, "--prompt", "cocoop", "--output", "out.npy")
    assert (code, "is a checkpoint of cocoop, which is more than a prompt" in error) == (2, True)
    code, _, error = call_tool("build_classifier", *arguments, "--prompt", tmp_path, "--output", "out.npy")
    assert (code, "is a folder; one with checkpoints" in error) == (2, True)


def test_a_published_configuration_learns_and_scores(
    call_tool: Call, tiny_model: tuple[Path, Path], picture_folder: Path, tmp_path: Path
) -> None:
    """The trainer's file and the overrides of its script, with a tiny model in the place of ViT-B/16."""
    (tmp_path / "MaPLe").mkdir()
    (tmp_path / "MaPLe/vit_b16.yaml").write_text(
        "DATALOADER: {TRAIN_X: {BATCH_SIZE: 4}, TEST: {BATCH_SIZE: 100}}\n"
        "OPTIM: {NAME: sgd, LR: 0.0035, MAX_EPOCH: 2, LR_SCHEDULER: cosine, WARMUP_EPOCH: 1, WARMUP_TYPE: constant}\n"
        "MODEL: {BACKBONE: {NAME: ViT-B/16}}\n"
        "TRAINER: {MAPLE: {N_CTX: 2, CTX_INIT: a photo of a, PREC: fp16, PROMPT_DEPTH: 1}}\n"
    )
    tiny = ["MODEL.NAME", tiny_model[0], "MODEL.PRETRAINED", tiny_model[1], "DATA.TRAIN", f"folder:{picture_folder}"]
    script = ["DATASET.NUM_SHOTS", "2", "DATASET.SUBSAMPLE_CLASSES", "base", "LOG.TENSORBOARD", "False"]
    with pytest.warns(UserWarning, match="not followed: .*fp16 is computed in single precision"):
        code, _, error = call_tool(
            "pretrain_prompt", "--config-file", "MaPLe/vit_b16.yaml", "--output", "run", *tiny, *script
        )
    assert code == 0, error
    run = json.loads((tmp_path / "run/metrics.json").read_text())["_run"]
    assert (run["method"], run["images"], len(run["history"])) == ("maple", 4, 2)
    assert [epoch["lr"] for epoch in run["history"]] == [1e-5, 0.0035]
    arguments = ["--prompt", "run/method.safetensors", "--datasets", f"folder:{picture_folder}", "--split", "val"]
    with pytest.warns(UserWarning, match="trainer MaPLe"):
        code, _, error = call_tool(
            "evaluate_prompt", "--config", "MaPLe/vit_b16.yaml", *arguments, "--output", "scores", *tiny[:4], *script
        )
    assert code == 0, error
    protocol = json.loads((tmp_path / "scores/metrics.json").read_text())["_protocol"]
    (part,) = protocol.values()
    assert (part["images_of"], part["candidates"], part["namesakes"]) == ("base classes", 2, "separate")
