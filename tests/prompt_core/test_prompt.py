"""The soft prompt and its files, ours and the published ones."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from prompt_core import PromptedTextEncoder, SoftPrompt, UserError
from prompt_core.clip import Clip

CONTEXT = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


def scheduler() -> Any:
    """The object that Dassl's trainers put into their checkpoints."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.002, momentum=0.9)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)


def buffers(context: torch.Tensor, classes: int = 3) -> dict[str, torch.Tensor]:
    """The token embeddings that training checkpoints carry; they dwarf the context."""
    n_ctx, width = context.shape
    return {
        f"{split}_token_{part}": torch.ones(classes, length, width, dtype=context.dtype)
        for split in ("train", "test")
        for part, length in (("prefix", 1), ("suffix", 76 - n_ctx))
    }


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_round_trip(tmp_path: Path, position: str, dtype: torch.dtype) -> None:
    metadata = {"clip": "tiny", "k": 1000, "metrics": {"a/top1": 0.25}, "names": ["é", "b"], "nothing": None}
    prompt = SoftPrompt(CONTEXT.to(dtype), position, metadata=metadata)
    path = tmp_path / "prompt.safetensors"
    prompt.save(path, seed=3, accuracy=np.float32(0.5), folder=Path("runs") / "a")
    loaded = SoftPrompt.load(path)
    assert torch.equal(loaded.context, prompt.context)
    assert loaded.context.dtype == dtype
    assert loaded.position == position
    assert loaded.deep_context is None
    assert loaded.metadata == metadata | {"seed": 3, "accuracy": 0.5, "folder": "runs/a"}
    assert prompt.metadata == metadata, "saving does not change the prompt"
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["context"]
        notes = {key: json.loads(value) for key, value in file.metadata().items()}
    assert notes["position"] == position
    assert notes["suffix"] == "."
    assert notes["k"] == 1000
    assert SoftPrompt.load(path, position="front").position == "front"
    loaded.save(tmp_path / "again.safetensors")
    assert SoftPrompt.load(tmp_path / "again.safetensors").metadata == loaded.metadata


def test_round_trip_with_deep_context(tmp_path: Path) -> None:
    deep = torch.randn(2, 3, 32)
    SoftPrompt(CONTEXT, deep_context=deep).save(tmp_path / "prompt.safetensors")
    loaded = SoftPrompt.load(tmp_path / "prompt.safetensors")
    assert loaded.deep_context is not None
    assert torch.equal(loaded.deep_context, deep)
    assert {name for name, _ in loaded.named_parameters()} == {"context", "deep_context"}


def test_class_specific_round_trip_and_order(tmp_path: Path, tiny_clip: Clip) -> None:
    prompt = SoftPrompt.random(32, 4, num_classes=3, std=0.5)
    assert prompt.class_specific
    assert prompt.context.shape == (3, 4, 32)
    prompt.save(tmp_path / "prompt.safetensors")
    loaded = SoftPrompt.load(tmp_path / "prompt.safetensors")
    assert torch.equal(loaded.context, prompt.context)
    encoder = PromptedTextEncoder(tiny_clip)
    with torch.no_grad():
        features = encoder(loaded, ["cat", "cat", "dog"])
        for row, name in enumerate(["cat", "cat", "dog"]):
            alone = encoder(SoftPrompt(prompt.context[row]), [name])[0]
            torch.testing.assert_close(features[row], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(features[0], features[1], atol=1e-3)


def test_parameters_are_copied_unless_they_are_parameters() -> None:
    context = CONTEXT.clone()
    prompt = SoftPrompt(context)
    context.zero_()
    assert torch.equal(prompt.context, CONTEXT)
    assert prompt.context.requires_grad
    parameter = torch.nn.Parameter(CONTEXT.clone())
    assert SoftPrompt(parameter).context is parameter


def test_random_contexts_have_the_published_spread() -> None:
    prompt = SoftPrompt.random(512, 16)
    assert prompt.context.shape == (16, 512)
    assert float(prompt.context.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert abs(float(prompt.context.detach().mean())) < 0.001
    assert torch.equal(prompt.context, SoftPrompt.random(512, 16).context)
    assert not torch.equal(prompt.context, SoftPrompt.random(512, 16, seed=1).context)


def test_from_words_takes_the_embeddings_of_the_words(tiny_clip: Clip) -> None:
    prompt = SoftPrompt.from_words(tiny_clip, "a photo_of a", "middle")
    ids = tiny_clip.tokenizer(["a photo of a"])[0, 1:5]
    assert torch.equal(prompt.context, tiny_clip.model.token_embedding(ids))
    assert prompt.position == "middle"
    assert prompt.n_ctx == 4
    assert prompt.context.requires_grad
    with pytest.raises(UserError, match="word 'supercollider' is 3 tokens; choose words of one token each"):
        SoftPrompt.from_words(tiny_clip, "a supercollider")
    for words in ("", " _ "):
        with pytest.raises(UserError, match="no initial words"):
            SoftPrompt.from_words(tiny_clip, words)


@pytest.mark.parametrize("shape", [(4,), (), (1, 2, 3, 4)])
def test_wrong_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"shape \(L, D\) or \(N, L, D\) is expected"):
        SoftPrompt(torch.zeros(shape))
    save_file({"context": torch.zeros(shape)}, tmp_path / "prompt.safetensors")
    with pytest.raises(UserError, match="is expected"):
        SoftPrompt.load(tmp_path / "prompt.safetensors")


def test_other_bad_contexts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"floating-point numbers is expected, given torch\.int64"):
        SoftPrompt(torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(UserError, match="position 'start'; expected one of end, middle, front"):
        SoftPrompt(CONTEXT, "start")
    save_file({"context": CONTEXT}, tmp_path / "a.safetensors", {"position": '"start"'})
    with pytest.raises(UserError, match="position 'start'"):
        SoftPrompt.load(tmp_path / "a.safetensors")
    for deep, position in (
        (torch.zeros(2, 5, 32), "end"),
        (torch.zeros(2, 4, 16), "end"),
        (torch.zeros(4, 32), "end"),
        (torch.zeros(2, 4, 32), "front"),
    ):
        with pytest.raises(UserError, match="deep context"):
            SoftPrompt(CONTEXT, position, deep)
    with pytest.raises(UserError, match="deep context"):
        SoftPrompt(CONTEXT[None], deep_context=torch.zeros(2, 4, 32))
    broken = CONTEXT.clone()
    broken[1, 2] = float("nan")
    SoftPrompt(broken).save(tmp_path / "b.safetensors")
    torch.save({"state_dict": {"ctx": broken}}, tmp_path / "b.pth.tar")
    for name in ("b.safetensors", "b.pth.tar"):
        with pytest.raises(UserError, match="not finite"):
            SoftPrompt.load(tmp_path / name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("with_buffers", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.", "module.prompt_learner."])
@pytest.mark.parametrize("zipped", [True, False])
def test_published_checkpoints(
    tmp_path: Path, dtype: torch.dtype, with_buffers: bool, prefix: str, zipped: bool
) -> None:
    context = CONTEXT.to(dtype)
    state = {"ctx": context} | (buffers(context) if with_buffers else {})
    state = OrderedDict((prefix + key, value) for key, value in state.items())
    path = tmp_path / "vit_b16_ep5_nctx4_seed42.pth.tar"
    torch.save({"state_dict": state, "epoch": 5}, path, _use_new_zipfile_serialization=zipped)
    prompt = SoftPrompt.load(path)
    assert torch.equal(prompt.context, context.float())
    assert prompt.context.dtype == torch.float32
    assert prompt.context.requires_grad
    assert prompt.position == "end"
    assert SoftPrompt.load(path, position="middle").position == "middle"


def test_published_class_specific_checkpoint(tmp_path: Path) -> None:
    context = torch.randn(5, 4, 32)
    torch.save({"state_dict": {"ctx": context}}, tmp_path / "model.pth.tar-20")
    prompt = SoftPrompt.load(tmp_path / "model.pth.tar-20")
    assert prompt.class_specific
    assert torch.equal(prompt.context, context)


@pytest.mark.parametrize("zipped", [True, False])
def test_training_checkpoint_with_live_objects(tmp_path: Path, zipped: bool) -> None:
    schedule = scheduler()
    path = tmp_path / "model.pth.tar-5"
    checkpoint = {
        "state_dict": OrderedDict(ctx=CONTEXT.half(), **buffers(CONTEXT.half())),
        "epoch": 5,
        "optimizer": schedule.optimizer.state_dict(),
        "scheduler": {"successor": schedule, "last_epoch": 4},
        "val_result": np.float64(25.3),
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(path, weights_only=True)
    assert torch.equal(SoftPrompt.load(path).context, CONTEXT.half().float())


@settings(max_examples=20, deadline=None)
@given(n_ctx=st.integers(1, 6), width=st.integers(1, 9), seed=st.integers(0, 99), zipped=st.booleans())
def test_any_shape_comes_back(
    tmp_path_factory: pytest.TempPathFactory, n_ctx: int, width: int, seed: int, zipped: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    prompt = SoftPrompt.random(width, n_ctx, seed=seed)
    prompt.save(folder / "any.safetensors")
    torch.save({"ctx": prompt.context}, folder / "any.pt", _use_new_zipfile_serialization=zipped)
    assert torch.equal(SoftPrompt.load(folder / "any.safetensors").context, prompt.context)
    assert torch.equal(SoftPrompt.load(folder / "any.pt").context, prompt.context)


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ({"state_dict": {"ctx": CONTEXT, "other.ctx": CONTEXT}}, 2),
        ({"state_dict": {"token_prefix": CONTEXT}}, 0),
        ({"state_dict": {"ctx": CONTEXT[0]}}, 0),
        ({"state_dict": {"ctx_of_words": CONTEXT}}, 0),
        ({"epoch": 3}, 0),
        ([CONTEXT], 0),
    ],
)
def test_checkpoints_without_one_context(tmp_path: Path, content: Any, count: int) -> None:
    torch.save(content, tmp_path / "a.pth.tar")
    with pytest.raises(UserError, match=f"a.pth.tar holds {count} context tensors named 'ctx'.*one was expected"):
        SoftPrompt.load(tmp_path / "a.pth.tar")


def test_damaged_and_absent_files(tmp_path: Path) -> None:
    SoftPrompt(CONTEXT).save(tmp_path / "a.safetensors")
    torch.save({"state_dict": {"ctx": CONTEXT}}, tmp_path / "a.pth.tar")
    for name in ("a.safetensors", "a.pth.tar"):
        whole = (tmp_path / name).read_bytes()
        for size in (0, 5, len(whole) // 2, len(whole) - 1):
            (tmp_path / f"cut_{name}").write_bytes(whole[:size])
            with pytest.raises(UserError, match=r"cut_a.*could not be read.*truncated"):
                SoftPrompt.load(tmp_path / f"cut_{name}")
    with pytest.raises(UserError, match=r"prompt file .*nothing\.safetensors does not exist"):
        SoftPrompt.load(tmp_path / "nothing.safetensors")
    save_file({"weight": CONTEXT}, tmp_path / "classifier.safetensors")
    with pytest.raises(UserError, match="no tensor 'context'; it is not a prompt file"):
        SoftPrompt.load(tmp_path / "classifier.safetensors")


def test_an_unwritable_prompt_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    SoftPrompt(CONTEXT).save(path)
    before = path.read_bytes()
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        SoftPrompt(CONTEXT * 2).save(path, circle=circle)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_foreign_safetensors_metadata_is_kept_as_text(tmp_path: Path) -> None:
    save_file({"context": CONTEXT}, tmp_path / "a.safetensors", {"format": "pt", "note": "not JSON {"})
    assert SoftPrompt.load(tmp_path / "a.safetensors").metadata == {"format": "pt", "note": "not JSON {"}
