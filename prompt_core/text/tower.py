"""A uniform view of open_clip's text towers, and which encoding paths each of them allows.

The shared-prefix encoder needs a causal tower that pools at the end-of-text token. Whether a tower is causal is
probed, not read from its configuration: changing a suffix token must not change the states of the prefix.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_core.errors import UserError
from prompt_core.text.workspace import Workspace

if TYPE_CHECKING:
    from prompt_core.clip import Clip


_PARTS = ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection")


def learned_context_obstacle(clip: Clip) -> str | None:
    """Why a text tower takes hand-written templates but no learned context, or None when it takes both.

    Context vectors stand among the token embeddings of a prompt. Their place is known for open_clip's own text
    transformer with CLIP's byte-pair tokenizer; other towers encode finished texts only.
    """
    module: Any = getattr(clip.model, "text", clip.model)
    if not all(hasattr(module, part) for part in _PARTS) or not hasattr(module.transformer, "resblocks"):
        reason = f"its text tower {type(module).__name__} is not open_clip's own text transformer"
    elif not clip.has_byte_pairs:
        reason = "its tokenizer is not CLIP's byte-pair encoding"
    else:
        return None
    return (
        f"{clip.name} takes hand-written templates only, {reason}; give templates such as 'a photo of a {{}}.', or use "
        "an architecture that takes learned prompts (python -m prompt_core.doctor --towers lists them)"
    )


class TextTower:
    """The parts of a text tower, by their open_clip names.

    ``open_clip.CLIP`` carries them itself, ``CustomTextCLIP`` and ``CoCa`` in ``model.text``.

    Args:
        normalise: whether features leave the tower with unit norm.

    Raises:
        UserError: for a tower that :func:`learned_context_obstacle` has something against.
    """

    def __init__(self, clip: Clip, normalise: bool = True) -> None:
        obstacle = learned_context_obstacle(clip)
        if obstacle is not None:
            raise UserError(obstacle)
        module: Any = getattr(clip.model, "text", clip.model)
        self.clip = clip
        self.normalise = normalise
        self.module = module
        self.token_embedding: nn.Embedding = module.token_embedding
        self.blocks: nn.ModuleList = module.transformer.resblocks
        self.ln_final: nn.Module = module.ln_final
        self.context_length: int = int(clip.tokenizer.context_length)
        self.width: int = int(self.token_embedding.weight.shape[1])
        self.heads: int = int(getattr(getattr(self.blocks[0], "attn", None), "num_heads", 0))
        self.hidden: int = int(module.transformer.resblocks[0].mlp.c_fc.out_features)
        self.workspace = Workspace()
        self._casts: dict[int, tuple[tuple[int, int], Tensor]] = {}

    @property
    def positional_embedding(self) -> Tensor:
        """(77, D), in the dtype of the blocks."""
        return self.module.positional_embedding.to(self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Computing type of the blocks."""
        return self.module.transformer.get_cast_dtype()

    @property
    def product_dtype(self) -> torch.dtype:
        """What the products of the blocks are computed in."""
        return torch.bfloat16 if self.clip.precision == "bfloat16" else self.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.token_embedding.weight.device

    @property
    def embed_dim(self) -> int:
        """Width E of the joint embedding space."""
        return self.clip.embed_dim

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings (..., D) of ids (...)."""
        return self.token_embedding(ids).to(self.dtype)

    def project(self, states: Tensor) -> Tensor:
        """Final norm, projection and L2 norm of end-of-text states (..., D) → (..., E), float32 or float64.

        Without :attr:`normalise` the L2 norm is left out.
        """
        projection = self.module.text_projection
        features = self.ln_final(states)
        if isinstance(projection, nn.Linear):
            features = projection(features)
        elif projection is not None:
            features = features @ projection
        features = features if features.dtype == torch.float64 else features.float()
        return F.normalize(features, dim=-1) if self.normalise else features

    @cached_property
    def is_causal(self) -> bool:
        """Probe: changing a suffix token must not change the states of the prefix."""
        tokenizer = self.clip.tokenizer
        ids = torch.zeros(2, self.context_length, dtype=torch.long, device=self.device)
        letters = [tokenizer.encode(letter)[0] for letter in "abcdefgh"]
        ids[:, 0] = tokenizer.sot_token_id
        ids[:, 1:7] = torch.tensor(letters[:6], device=self.device)
        ids[1, 6] = letters[6]
        ids[:, 7] = tokenizer.eot_token_id
        seen: list[Tensor] = []

        def keep_states(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.append(output.detach().double())

        handle = self.blocks[-1].register_forward_hook(keep_states)
        try:
            with torch.no_grad():
                self.clip.model.encode_text(ids)  # type: ignore[operator]
        finally:
            handle.remove()
        states = seen[0]
        moved = (states[0, :6] - states[1, :6]).abs().max()
        return bool(moved <= 1e-3 * (states[0, 6] - states[1, 6]).abs().max())

    @cached_property
    def truncation_obstacle(self) -> str | None:
        """Why sequences may not be cut after their end-of-text token, or None when they may."""
        if getattr(self.module, "cls_emb", None) is not None:
            return "it pools an appended class token"
        pool = getattr(self.module, "pool_type", getattr(self.module, "text_pool_type", "argmax"))
        eos = getattr(self.module, "eos_id", getattr(self.module, "text_eos_id", None))
        if pool != "argmax" and not (pool == "eos" and eos == self.clip.tokenizer.eot_token_id):
            return f"it pools by {pool!r}, not at the end-of-text token"
        if not self.is_causal:
            return "it is not causal"
        return None

    @cached_property
    def sharing_obstacle(self) -> str | None:
        """Why the shared prefix may not be encoded once, or None when it may."""
        if self.truncation_obstacle is not None:
            return self.truncation_obstacle
        for block in self.blocks:
            attention = getattr(block, "attn", None)
            plain = (
                isinstance(attention, nn.MultiheadAttention)
                and attention.in_proj_weight is not None
                and attention.bias_k is None
                and not attention.add_zero_attn
                and attention.batch_first
                and not hasattr(block, "ln_1_kv")
                and all(isinstance(norm, nn.LayerNorm) for norm in (block.ln_1, block.ln_2))
            )
            if not plain:
                return f"its blocks are {type(block).__name__} with {type(attention).__name__}"
        return None

    def cast(self, weight: Tensor) -> Tensor:
        """A weight of a block in the type that products are computed in; that of a parameter is remembered."""
        if weight.dtype == self.product_dtype:
            return weight
        known = self._casts.get(id(weight))
        if known is not None and known[0] == (weight.data_ptr(), weight._version):
            return known[1]
        cast = weight.to(self.product_dtype)
        if isinstance(weight, nn.Parameter):
            self._casts[id(weight)] = (weight.data_ptr(), weight._version), cast
        return cast
