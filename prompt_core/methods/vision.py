"""Learned tokens in open_clip's vision transformer, by hooks on the frozen tower.

Tokens are appended after the patches, after the positional embedding and before ``ln_pre``; at deeper blocks new ones
replace the outputs of the previous block for the old ones (VPT, arXiv 2203.12119; MaPLe, arXiv 2210.03117; the order of
tokens is that of ``clip/model.py`` in both published implementations). After the last block the tokens are dropped, so
that towers that pool by an average or by attention pool over class token and patches as usual; where the class token is
pooled this changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from prompt_core.errors import UserError

if TYPE_CHECKING:
    from prompt_core.clip import Clip


def vision_transformer(clip: Clip) -> Any:
    """The vision tower of ``clip``, which must be open_clip's own transformer.

    Raises:
        UserError: for residual networks and timm's towers, or blocks without access for hooks.
    """
    from open_clip.transformer import VisionTransformer

    visual: Any = getattr(clip.model, "visual", None)
    if not isinstance(visual, VisionTransformer):
        raise UserError(
            f"{clip.name}: the vision tower {type(visual).__name__} is not supported by methods that learn in it; "
            "use an architecture with open_clip's VisionTransformer, such as ViT-B-16-quickgelu"
        )
    if not visual.transformer.batch_first or visual.transformer.grad_checkpointing:
        raise UserError(f"{clip.name}: the vision tower runs its blocks in another order or twice; load it again")
    return visual


def vision_width(clip: Clip) -> int:
    """Width W of the vision transformer."""
    return int(vision_transformer(clip).class_embedding.shape[0])


def check_depth(depth: int, blocks: int, tower: str, key: str) -> int:
    """The number of layers with prompts: ``depth``, where 0 means all ``blocks`` of a tower.

    Raises:
        UserError: more than there are, or a negative number.
    """
    if not 0 <= depth <= blocks:
        raise UserError(
            f"{key} is {depth}; the {tower} tower has {blocks} blocks, expected 1 to {blocks}, or 0 for all"
        )
    return depth or blocks


@contextlib.contextmanager
def vision_prompts(clip: Clip, tokens: Tensor) -> Iterator[None]:
    """Inside the context manager, the vision tower of ``clip`` runs with ``tokens``; the tower itself is not changed.

    Args:
        tokens: (J, M, W), M tokens at the input of block 0 (before ``ln_pre``) and of blocks 1..J - 1.

    Raises:
        UserError: another kind of tower, or tokens of another width or for more blocks than there are.
    """
    visual = vision_transformer(clip)
    blocks: nn.ModuleList = visual.transformer.resblocks
    if tokens.dim() != 3 or tokens.shape[2] != vision_width(clip) or not 1 <= len(tokens) <= len(blocks):
        raise UserError(
            f"vision tokens (J, M, {vision_width(clip)}) for 1 to {len(blocks)} blocks are expected by {clip.name}, "
            f"given {tuple(tokens.shape)}"
        )
    count = tokens.shape[1]

    def behind(states: Tensor, index: int) -> Tensor:
        new = tokens[index].to(states).expand(len(states), -1, -1)
        return torch.cat([states, new], dim=1)  # (B, 1 + P + M, W)

    def append(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (behind(inputs[0], 0), *inputs[1:])

    def drop(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output[:, : output.shape[1] - count]

    handles = [visual.ln_pre.register_forward_pre_hook(append), visual.transformer.register_forward_hook(drop)]
    for index in range(1, len(tokens)):

        def replace(module: nn.Module, inputs: tuple[Any, ...], index: int = index) -> tuple[Any, ...]:
            states = inputs[0]
            return (behind(states[:, : states.shape[1] - count], index), *inputs[1:])

        handles.append(blocks[index].register_forward_pre_hook(replace))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


NORMS = ("ln_1", "ln_2")


class VisionNorms(nn.Module):
    """Weights and biases (blocks, 2, W) of the norms ``ln_1`` and ``ln_2`` of all blocks, starting from CLIP's own.

    Raises:
        UserError: another kind of vision tower, or blocks without these norms.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip = clip
        norms = [
            [getattr(block, norm, None) for norm in NORMS] for block in vision_transformer(clip).transformer.resblocks
        ]
        if not all(isinstance(norm, nn.LayerNorm) and norm.bias is not None for pair in norms for norm in pair):
            raise UserError(f"{clip.name}: the blocks of its vision tower have no layer norms {' and '.join(NORMS)}")
        for part in ("weight", "bias"):
            values = [torch.stack([getattr(norm, part).detach() for norm in pair]) for pair in norms]
            setattr(self, part, nn.Parameter(torch.stack(values).clone()))

    def image_features(self, images: Tensor) -> Tensor:
        """Unit-norm features (B, E) of preprocessed images (B, 3, S, S), differentiable in the norms."""
        values = {
            f"transformer.resblocks.{block}.{norm}.{part}": getattr(self, part)[block, place]
            for part in ("weight", "bias")
            for block in range(len(self.weight))  # type: ignore[arg-type]
            for place, norm in enumerate(NORMS)
        }
        images = images.to(self.clip.device, self.clip.dtype, memory_format=torch.channels_last)
        features = functional_call(vision_transformer(self.clip), values, (images,))
        if isinstance(features, tuple):  # towers that also return their tokens
            features = features[0]
        return F.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)
