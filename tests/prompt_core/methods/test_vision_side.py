"""Vision tokens and layer norms against a plain restatement of the tower's forward pass, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core import UserError
from prompt_core.clip import Clip
from prompt_core.methods.ivlp import IVLP
from prompt_core.methods.maple import MaPLe
from prompt_core.methods.vision import VisionNorms, vision_prompts
from prompt_core.methods.vpt import VPT

from ...support.plain_towers import plain_vision

Make = Callable[..., Any]
TOWERS = {
    "class token": {},
    "average": {"pool_type": "avg"},
    "norm behind the average": {"pool_type": "avg", "final_ln_after_pool": True},
    "attention": {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2},
    "no norm before": {"no_ln_pre": True},
    "scaled layers": {"ls_init_value": 0.5},
}


def images(count: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2)).to(dtype)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tokens_equal_the_restated_tower(make_clip: Make, tower: str, depth: int) -> None:
    clip = make_clip(torch.float64, **TOWERS[tower])
    tokens = torch.randn(depth, 4, 48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tokens.requires_grad_()
    pixels = images()
    expected = plain_vision(clip.model.visual, pixels, tokens)
    with vision_prompts(clip, tokens):
        ours = clip.image_features(pixels)
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), tokens)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), tokens)
    assert float(theirs.norm()) > 1e-3
    torch.testing.assert_close(gradient, theirs, atol=1e-12, rtol=1e-9)
    plain = plain_vision(clip.model.visual, pixels, None)
    assert float((ours - plain).detach().norm()) > 1e-2
    torch.testing.assert_close(clip.encode_image(pixels), plain, atol=1e-12, rtol=0)  # the tower is as it was


def test_where_the_class_token_is_pooled_keeping_the_tokens_changes_nothing(make_clip: Make) -> None:
    """The published towers keep them to the end."""
    clip = make_clip(torch.float64)
    visual = clip.model.visual
    tokens = torch.randn(3, 4, 48, dtype=torch.float64)
    seen: list[Tensor] = []
    with vision_prompts(clip, tokens):
        handle = visual.transformer.resblocks[-1].register_forward_hook(
            lambda module, inputs, output: seen.append(output)
        )
        ours = clip.image_features(images())
        handle.remove()
    assert seen[0].shape[1] == 1 + 16 + 4
    pooled, _ = visual._pool(seen[0])
    torch.testing.assert_close(ours, F.normalize(pooled @ visual.proj, dim=-1), atol=1e-12, rtol=0)


def test_hooks_are_removed_also_after_a_failure(make_clip: Make) -> None:
    clip = make_clip()
    visual = clip.model.visual
    before = clip.encode_image(images(2, torch.float32))
    with pytest.raises(RuntimeError), vision_prompts(clip, torch.zeros(3, 2, 48)):
        clip.image_features(torch.zeros(1, 5, 32, 32))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in visual.modules())
    assert torch.equal(clip.encode_image(images(2, torch.float32)), before)


@pytest.mark.parametrize("shape", [(4, 2, 48), (1, 2, 32), (2, 48), (0, 2, 48)])
def test_tokens_that_do_not_fit(clip: Clip, shape: tuple[int, ...]) -> None:
    expected = r"vision tokens \(J, M, 48\) for 1 to 3 blocks are expected by tiny, given"
    with pytest.raises(UserError, match=expected), vision_prompts(clip, torch.zeros(shape)):
        pass


@pytest.mark.parametrize("kind", [VPT, MaPLe, VisionNorms])
@pytest.mark.parametrize("architecture", ["residual network", "timm"])
def test_other_towers_get_one_clear_line(make_tiny_clip: Make, kind: Any, architecture: str) -> None:
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    clip = make_tiny_clip()
    if architecture == "timm":
        cfg = CLIPVisionCfg(timm_model_name="test_vit", image_size=32, timm_pool="", timm_proj="linear")
        expected = "TimmModel"
    else:
        cfg = CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=32)
        expected = "ModifiedResNet"
    clip.model.visual = _build_vision_tower(24, cfg)
    with pytest.raises(UserError, match=f"tiny: the vision tower {expected} is not supported .*; use an architecture"):
        kind(clip)


def test_ivlp_learns_the_tokens_of_each_tower_apart(make_clip: Make) -> None:
    clip = make_clip(torch.float64)
    method = IVLP(clip, depth=2, tokens=3, vision_depth=0).double()
    assert (method.deep_text_context.shape, method.tokens.shape) == ((1, 2, 32), (3, 3, 48))
    expected = plain_vision(clip.model.visual, images(), method.tokens)
    torch.testing.assert_close(method.image_features(images()), expected, atol=1e-12, rtol=0)
    alone = IVLP(clip, depth=2, tokens=0)
    assert set(dict(alone.named_parameters())) == {"text_context", "deep_text_context"}
    assert torch.equal(alone.image_features(images()), clip.image_features(images()))
    with pytest.raises(UserError, match=r"METHOD.IVLP.VISION_DEPTH is 4; the vision tower has 3 blocks"):
        IVLP(clip, depth=2, vision_depth=4)
    with pytest.raises(UserError, match=r"METHOD.IVLP.DEPTH is 9; the text tower has 3 blocks"):
        IVLP(clip)
    with pytest.raises(UserError, match=r"METHOD.IVLP.TOKENS is -1"):
        IVLP(clip, depth=2, tokens=-1)


def test_depth_zero_is_every_block_and_too_many_are_refused(clip: Clip) -> None:
    assert VPT(clip, tokens=2).tokens.shape == (3, 2, 48)
    assert VPT(clip, tokens=2, depth=1).tokens.shape == (1, 2, 48)
    assert len(MaPLe(clip, depth=0).to_vision) == 3
    with pytest.raises(
        UserError, match=r"METHOD.VPT.DEPTH is 4; the vision tower has 3 blocks, expected 1 to 3, or 0 for all"
    ):
        VPT(clip, depth=4)
    with pytest.raises(UserError, match=r"METHOD.MAPLE.DEPTH is -1"):
        MaPLe(clip, depth=-1)
    with pytest.raises(UserError, match=r"METHOD.VPT.TOKENS is 0"):
        VPT(clip, tokens=0)
    with pytest.raises(UserError, match=r"has no \{\}"):
        VPT(clip, template="a photo")


@pytest.mark.parametrize("tower", ["class token", "average", "scaled layers"])
def test_norms_equal_a_tower_with_other_norms(make_clip: Make, tower: str) -> None:
    clip = make_clip(torch.float64, **TOWERS[tower])
    norms = VisionNorms(clip)
    pixels = images()
    assert norms.weight.shape == (3, 2, 48)
    torch.testing.assert_close(norms.image_features(pixels), clip.encode_image(pixels), atol=1e-12, rtol=0)
    with torch.no_grad():
        for parameter in norms.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    changed = copy.deepcopy(clip.model.visual).requires_grad_(True)
    with torch.no_grad():
        for index, block in enumerate(changed.transformer.resblocks):
            for place, norm in enumerate((block.ln_1, block.ln_2)):
                norm.weight.copy_(norms.weight[index, place])
                norm.bias.copy_(norms.bias[index, place])
    expected = F.normalize(changed(pixels), dim=-1)
    ours = norms.image_features(pixels)
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    assert float((ours - clip.encode_image(pixels)).detach().norm()) > 1e-2
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    (expected * weights).sum().backward()
    gradient = torch.autograd.grad((ours * weights).sum(), norms.weight)[0]
    for index, block in enumerate(changed.transformer.resblocks):
        torch.testing.assert_close(gradient[index, 0], block.ln_1.weight.grad, atol=1e-12, rtol=1e-9)
        torch.testing.assert_close(gradient[index, 1], block.ln_2.weight.grad, atol=1e-12, rtol=1e-9)


def test_maple_gives_the_vision_tower_what_its_layers_make_of_the_text_tokens(make_clip: Make) -> None:
    clip = make_clip(torch.float64)
    method = MaPLe(clip, depth=3).double()
    contexts = [method.text_context, method.deep_text_context[0], method.deep_text_context[1]]
    tokens = torch.stack(
        [context @ layer.weight.T + layer.bias for context, layer in zip(contexts, method.to_vision, strict=True)]
    )
    pixels = images()
    expected = plain_vision(clip.model.visual, pixels, tokens)
    torch.testing.assert_close(method.image_features(pixels), expected, atol=1e-12, rtol=0)
