"""Region features from one pass over the whole image: CLIP's last pooling, restricted to each mask.

Where cropping runs the image tower once per region, here it runs once per image, and only the layer that pools the
whole image into one vector is repeated for every region, restricted to the region's positions:

- vision transformers: from block ``first_block`` on a copy of the class token for each region attends to itself and to
  the patches in its mask (as MaskCLIP does, arXiv 2208.08984, section 3.2), while image tokens continue as usual;
- CLIP's ResNets: their attention pooling, with the mean over the region as the query;
- convolutional towers with average pooling: the average over the region.

The numbers differ from those of cropping: a region is seen with its surroundings.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomp_seg.regions.crops import squared_image
from prompt_core.clip import Clip
from prompt_core.errors import UserError


class SinglePassEncoder:
    """Features of regions from one pass over the image.

    Attributes:
        threshold: a pixel belongs to a region where the mask's probability is above it.
    """

    def __init__(self, clip: Clip, threshold: float = 0.5, first_block: int = -3) -> None:
        """
        Args:
            first_block: block of a vision transformer where the regions' own class tokens branch off; negative numbers
                count from the last block, and numbers before the first block mean the first.

        Raises:
            UserError: for an image tower whose pooling is not one of those above, or has no such block.
        """
        self.clip, self.threshold, self.first_block = clip, threshold, first_block
        visual: Any = clip.model.visual
        self._pool = _pooling(visual, clip.name)
        if self._pool is _transformer and first_block >= len(visual.transformer.resblocks):
            raise UserError(
                f"SINGLE_PASS_FIRST_BLOCK is {first_block}, the image tower of {clip.name} has "
                f"{len(visual.transformer.resblocks)} blocks"
            )

    @torch.no_grad()
    def __call__(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-norm features of the regions that are not empty.

        Args:
            image: (3, H, W) RGB in 0..255.
            masks: probabilities (Q, H, W).

        Returns:
            Features (V, E), and which of the Q regions they belong to: bool (Q,), V of them true.
        """
        binary = masks > self.threshold
        valid = binary.flatten(1).any(dim=1)
        if not bool(valid.any()):
            return masks.new_zeros(0, self.clip.embed_dim), valid
        pixels = squared_image(self.clip, image)
        features = self._pool(self.clip.model.visual, pixels.to(self.clip.dtype), binary[valid], self.first_block)
        return F.normalize(features.float(), dim=-1), valid


def cover(masks: Tensor, height: int, width: int) -> Tensor:
    """The share of each cell of a ``height`` x ``width`` grid that a mask covers.

    Args:
        masks: binary (V, H, W).

    Returns:
        (V, height * width). A region between the cells' centres still covers the cell that it is in.
    """
    return F.adaptive_avg_pool2d(masks[:, None].float(), (height, width)).flatten(1)


def _places(masks: Tensor, height: int, width: int) -> Tensor:
    """Cells of a region, bool (V, P): those it covers by at least half, or else those that it covers most."""
    share = cover(masks, height, width)
    return (share >= 0.5) | (share >= share.max(dim=1, keepdim=True).values)


def _transformer(visual: Any, pixels: Tensor, masks: Tensor, first_block: int) -> Tensor:
    patches = visual.conv1(pixels).shape[-2:]
    states = visual._embeds(pixels)  # (1, 1 + P, D)
    blocks = visual.transformer.resblocks
    start = first_block if first_block >= 0 else max(len(blocks) + first_block, 0)
    places = _places(masks, *patches)
    tokens: Tensor | None = None
    for number, block in enumerate(blocks):
        if number == start:
            tokens = states[:, :1].expand(-1, len(masks), -1)  # (1, V, D)
        if tokens is not None:
            # True is masked out; the class tokens of regions do not attend to each other.
            other_regions = ~torch.eye(len(masks), dtype=torch.bool, device=masks.device)
            hidden = torch.cat((other_regions, ~places), dim=1)  # (V, V + P)
            seen = torch.cat((tokens, states[:, 1:]), dim=1)
            tokens = _attend(block, tokens, seen, hidden)
        states = block(states)
    assert tokens is not None
    pooled = visual.ln_post(tokens[0])  # (V, D)
    return pooled if visual.proj is None else pooled @ visual.proj


def _attend(block: Any, tokens: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
    """One residual block in which ``tokens`` (1, V, D) attend to ``seen`` (1, S, D) except ``hidden`` (V, S)."""
    queries, keys = block.ln_1(tokens), block.ln_1(seen)
    attended = block.attn(queries, keys, keys, attn_mask=hidden, need_weights=False)[0]
    tokens = tokens + block.ls_1(attended)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def _attention_pooling(visual: Any, pixels: Tensor, masks: Tensor, first_block: int) -> Tensor:
    maps = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))  # (1, D, h, w)
    pool = visual.attnpool
    places = _places(masks, *maps.shape[-2:])
    tokens = maps.flatten(2)[0].T  # (P, D)
    positions = pool.positional_embedding.to(tokens.dtype)
    mean = places.to(tokens.dtype) @ tokens / places.sum(dim=1, keepdim=True)  # (V, D)
    queries = (mean + positions[0])[:, None]  # (V, 1, D)
    keys = torch.cat((queries, (tokens + positions[1:]).expand(len(masks), -1, -1)), dim=1)  # (V, 1 + P, D)
    hidden = torch.cat((torch.zeros_like(places[:, :1]), ~places), dim=1)[:, None]  # (V, 1, 1 + P)
    attended, _ = F.multi_head_attention_forward(
        query=queries.transpose(0, 1), key=keys.transpose(0, 1), value=keys.transpose(0, 1),
        embed_dim_to_check=tokens.shape[1], num_heads=pool.num_heads, in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]), bias_k=None, bias_v=None,
        add_zero_attn=False, dropout_p=0.0, out_proj_weight=pool.c_proj.weight, out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True, q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight, training=False, need_weights=False,
        attn_mask=hidden.repeat_interleave(pool.num_heads, dim=0),
    )  # fmt: skip
    return attended[0]


def _average_pooling(visual: Any, pixels: Tensor, masks: Tensor, first_block: int) -> Tensor:
    maps = visual.trunk.forward_features(pixels)  # (1, D, h, w)
    share = cover(masks, *maps.shape[-2:]).to(maps.dtype)
    mean = share @ maps.flatten(2)[0].T / share.sum(dim=1, keepdim=True)  # (V, D)
    return visual.head(mean)


def _pooling(visual: Any, name: str) -> Any:
    if isinstance(getattr(getattr(visual, "transformer", None), "resblocks", None), nn.ModuleList):
        plain = visual.attn_pool is None and visual.pool_type == "tok" and not visual.final_ln_after_pool
        if plain and visual.class_embedding is not None:
            return _transformer
    elif hasattr(visual, "attnpool") and hasattr(visual, "layer4"):
        return _attention_pooling
    elif hasattr(visual, "trunk") and getattr(getattr(visual.trunk, "global_pool", None), "pool_type", "") == "avg":
        return _average_pooling
    raise UserError(
        f"{name}: regions cannot be pooled from one pass of image tower {type(visual).__name__}; set "
        "MODEL.CLIP_ADAPTER.REGION_FEATURES to crops"
    )
