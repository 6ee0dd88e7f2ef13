"""Checkpoints of CoOp, CoCoOp, MaPLe, VPT and IVLP: what their trainers compute, written out, in float64."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core import SoftPrompt, UserError
from prompt_core.clip import Clip
from prompt_core.config import load_config
from prompt_core.dassl.checkpoints import checkpoint_file, read_checkpoint
from prompt_core.methods.registry import load_method
from prompt_core.vocabulary import Vocabulary

from ...support.dassl import FOLDERS, entries, frozen, save_run, tokens_of
from ...support.plain_towers import plain_text, plain_vision

Make = Callable[..., Any]
WORDS = {"coop": "X X X X", "cocoop": "a photo of a", "maple": "a photo of a", "vpt": "a photo of a"}
WORDS["ivlp"] = "a photo of a"
TOKENS = {"coop": 4, "cocoop": 4, "maple": 2, "vpt": 8, "ivlp": 2}
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture(scope="module")
def double(make_clip: Make) -> Clip:
    return make_clip(torch.float64)


def learned_of(name: str, clip: Clip, **options: Any) -> OrderedDict[str, Tensor]:
    return entries(name, clip, **{"n_ctx": TOKENS[name], **options})


def upstream(name: str, state: dict[str, Tensor], clip: Clip, names: list[str]) -> tuple[Tensor, Tensor]:
    """Image features (B, E) and class features (N, E), or (B, N, E), as the trainers' forward passes compute them."""
    state = {key.removeprefix("prompt_learner."): value.double() for key, value in state.items()}
    model: Any = clip.model
    ids = tokens_of(clip, names, WORDS[name])
    embedded, ends = model.token_embedding(ids), ids.argmax(dim=-1)
    deep: list[Tensor] = []
    vision: list[Tensor] = []
    if name == "maple":
        deep = [state[f"compound_prompts_text.{i}"] for i in range(2)]
        vision = [F.linear(state["ctx"], state["proj.weight"], state["proj.bias"])]
        for i, tokens in enumerate(deep):
            layer = f"compound_prompt_projections.{i}"
            vision.append(F.linear(tokens, state[f"{layer}.weight"], state[f"{layer}.bias"]))
    if name in ("vpt", "ivlp"):
        vision = [state["image_encoder.VPT"]]
        vision += [state[f"image_encoder.transformer.resblocks.{i}.VPT_shallow"] for i in (1, 2)]
    if name == "ivlp":
        deep = [state[f"text_encoder.transformer.resblocks.{i}.VPT_shallow"] for i in (1, 2)]
    images = plain_vision(model.visual, PIXELS, torch.stack(vision) if vision else None)
    if name == "vpt":
        return images, plain_text(model, embedded, ends)

    def prompts(context: Tensor) -> Tensor:
        """(N, 77, D): start token, context, the rest of the tokenised text."""
        context = context.expand(len(names), -1, -1) if context.dim() == 2 else context
        return torch.cat([embedded[:, :1], context, embedded[:, 1 + context.shape[1] :]], dim=1)

    if name != "cocoop":
        return images, plain_text(model, prompts(state["ctx"]), ends, deep)
    hidden = F.relu(F.linear(images, state["meta_net.linear1.weight"], state["meta_net.linear1.bias"]))
    shift = F.linear(hidden, state["meta_net.linear2.weight"], state["meta_net.linear2.bias"])  # (B, D)
    return images, torch.stack([plain_text(model, prompts(state["ctx"] + of_image), ends) for of_image in shift])


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_run_loads_and_computes_what_its_trainer_does(
    double: Clip, vocabulary: Vocabulary, name: str, prefix: str, tmp_path: Path
) -> None:
    """From the folder, in half precision, with frozen parts and scheduler objects, and from a file without them."""
    state = learned_of(name, double)
    bare = save_run(tmp_path / "bare", FOLDERS[name], state, prefix=prefix)
    whole = OrderedDict(state | frozen(name, double, ["a cat", "a dog"], TOKENS[name], WORDS[name]))
    save_run(tmp_path / "run", FOLDERS[name], whole, prefix=prefix)
    with torch.no_grad():
        images, classes = upstream(name, state, double, list(vocabulary.names))
        for path in (tmp_path / "run", tmp_path / "run" / FOLDERS[name], bare):
            method = load_method(path, double).double()
            assert not method.training
            assert method.name == name
            inputs = PIXELS if method.reads == "images" else double.encode_image(PIXELS)
            ours = method.image_features(inputs)
            torch.testing.assert_close(ours, images, atol=1e-12, rtol=0)
            ours = method.class_features(vocabulary, None, ours if method.conditional else None)
            torch.testing.assert_close(ours, classes, atol=1e-12, rtol=0)
            logits = double.logit_scale * torch.einsum(
                "be,...ne->bn" if classes.dim() == 2 else "be,bne->bn", images, classes
            )
            torch.testing.assert_close(method.logits(inputs, vocabulary), logits, atol=1e-9, rtol=0)


@pytest.mark.parametrize("specific", [False, True])
@pytest.mark.parametrize("position", ["middle", "front"])
def test_coop_with_the_name_in_another_place(
    double: Clip, vocabulary: Vocabulary, position: str, specific: bool, tmp_path: Path
) -> None:
    """The place is not in the file. The name is as many tokens as it has alone, even where the stop merges with it."""
    names = list(vocabulary.names)
    context = torch.randn(len(names), 5, 32, generator=torch.Generator().manual_seed(1)).half()
    context = context if specific else context[0]
    path = save_run(tmp_path, "prompt_learner", OrderedDict(ctx=context))
    ids = tokens_of(double, names, "X X X X X")
    embedded = double.model.token_embedding(ids)  # type: ignore[operator]
    rows = []
    for row, name in enumerate(names):
        length = len(double.tokenizer.encode(name.replace("_", " ")))
        vectors = (context[row] if specific else context).double()
        before = vectors[:2] if position == "middle" else vectors[:0]
        after = vectors[len(before) :]
        suffix = embedded[row, 6:]
        rows.append(torch.cat([embedded[row, :1], before, suffix[:length], after, suffix[length:]]))
    expected = plain_text(double.model, torch.stack(rows), ids.argmax(dim=-1))
    method = load_method(path, double, load_config(None, ["PROMPT.POSITION", position])).double()
    torch.testing.assert_close(method.class_features(vocabulary), expected, atol=1e-12, rtol=0)
    assert SoftPrompt.load(tmp_path, position).position == position


def test_depth_nine_has_eight_further_prompts(double: Clip, tmp_path: Path) -> None:
    found = read_checkpoint(save_run(tmp_path, FOLDERS["maple"], learned_of("maple", double, depth=9)))
    assert (found.method, found.options) == ("maple", {"n_ctx": 2, "depth": 9})
    assert found.tensors["deep_text_context"].shape == (8, 2, 32)
    assert {key.split(".")[1] for key in found.tensors if key.startswith("to_vision")} == set("012345678")
    with pytest.raises(UserError, match=r"METHOD.MAPLE.DEPTH is 9; the shorter tower has 3 blocks"):
        load_method(tmp_path, double)


@pytest.mark.parametrize(("name", "depth"), [("maple", 1), ("vpt", 1), ("vpt", 2), ("ivlp", 1)])
def test_shallow_and_shorter_ones(double: Clip, name: str, depth: int, tmp_path: Path) -> None:
    method = load_method(save_run(tmp_path, FOLDERS[name], learned_of(name, double, depth=depth)), double)
    assert method.options.depth == depth
    tokens = method.vision_tokens() if hasattr(method, "vision_tokens") else method.tokens
    assert tokens.shape == (depth, TOKENS[name], 48)


def test_language_prompts_alone_leave_the_image_tower_as_it_is(
    double: Clip, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    state = OrderedDict((key, value) for key, value in learned_of("ivlp", double).items() if "image" not in key)
    method = load_method(save_run(tmp_path, "VLPromptLearner", state), double).double()
    torch.testing.assert_close(method.image_features(PIXELS), double.encode_image(PIXELS), atol=1e-12, rtol=0)
    whole = load_method(save_run(tmp_path / "b", "VLPromptLearner", learned_of("ivlp", double)), double).double()
    torch.testing.assert_close(method.class_features(vocabulary), whole.class_features(vocabulary))


@pytest.mark.parametrize("name", ["maple", "ivlp"])
def test_words_that_stay_are_checked_where_the_file_tells(double: Clip, name: str, tmp_path: Path) -> None:
    state = learned_of(name, double)
    other = OrderedDict(state | frozen(name, double, ["a cat", "a dog"], 2, "a picture of one"))
    path = save_run(tmp_path, FOLDERS[name], other)
    key = f"METHOD.{name.upper()}.WORDS"
    with pytest.raises(UserError, match=rf"other words before the name than 'a photo of a'; give them as {key}"):
        load_method(path, double)
    method = load_method(path, double, load_config(None, [key, "a picture of one"]))
    torch.testing.assert_close(
        method.fixed, double.model.token_embedding.weight[tokens_of(double, [""], "of one")[0, 1:3]]
    )
    # More tokens than words: the published trainers leave the words out.
    many = load_method(save_run(tmp_path / "many", FOLDERS[name], learned_of(name, double, n_ctx=6)), double)
    assert (many.options.words, len(many.fixed), len(many.text_context)) == ("", 0, 6)


@pytest.mark.parametrize("name", FOLDERS)
def test_another_clip_is_refused(make_clip: Make, double: Clip, name: str, tmp_path: Path) -> None:
    state = OrderedDict(learned_of(name, double) | frozen(name, double, ["a cat"], TOKENS[name], WORDS[name]))
    save_run(tmp_path, FOLDERS[name], state)
    with pytest.raises(UserError, match=r"was learned with another CLIP than tiny, None \(.* differs\)"):
        load_method(tmp_path, make_clip(seed=5))


def test_the_best_epoch_is_taken_where_one_is_marked_else_the_last(tmp_path: Path) -> None:
    def run(epoch: int, best: bool = False) -> Path:
        return save_run(tmp_path / "run", "prompt_learner", OrderedDict(ctx=torch.zeros(2, 4)), epoch, best)

    first, second = run(9), run(50)
    assert checkpoint_file(tmp_path / "run") == second
    (second.parent / "checkpoint").write_text("model.pth.tar-9\n")
    assert checkpoint_file(tmp_path / "run") == first
    (second.parent / "checkpoint").write_text("../../elsewhere/model.pth.tar-3\n")
    assert checkpoint_file(tmp_path / "run") == second
    (second.parent / "checkpoint").unlink()
    assert checkpoint_file(tmp_path / "run/prompt_learner") == second
    best = run(50, best=True)
    assert checkpoint_file(tmp_path / "run") == best
    assert checkpoint_file(second) == second
    with pytest.raises(UserError, match=r"is a folder; one with checkpoints .* is expected: none"):
        checkpoint_file(tmp_path)
    save_run(tmp_path / "run", "other", OrderedDict(ctx=torch.zeros(2, 4)))
    with pytest.raises(UserError, match=r"is expected: .*/other, .*/prompt_learner"):
        checkpoint_file(tmp_path / "run")


def test_checkpoints_that_are_not_prompts_are_not_taken_for_prompts(double: Clip, tmp_path: Path) -> None:
    for name in ("cocoop", "maple", "ivlp"):
        path = save_run(tmp_path / name, FOLDERS[name], learned_of(name, double))
        with pytest.raises(UserError, match=f"is a checkpoint of {name}, which is more than a prompt"):
            SoftPrompt.load(path)
    state = learned_of("maple", double)
    del state["prompt_learner.compound_prompt_projections.1.bias"]
    with pytest.raises(UserError, match=r"is a checkpoint of maple, but its tensors do not belong together"):
        load_method(save_run(tmp_path / "part", FOLDERS["maple"], state), double)
    state = learned_of("vpt", double)
    state["image_encoder.VPT"] = torch.full_like(state["image_encoder.VPT"], float("nan"))
    state["image_encoder.transformer.resblocks.1.VPT_shallow"] = state["image_encoder.VPT"]
    with pytest.raises(UserError, match="not finite"):
        load_method(save_run(tmp_path / "nan", FOLDERS["vpt"], state), double)
    with pytest.raises(UserError, match=r"holds 0 context tensors .* or a checkpoint of CoOp, POMP, CoCoOp"):
        load_method(save_run(tmp_path / "probe", "mlp_learner", OrderedDict({"fc.weight": torch.zeros(6, 24)})), double)
