"""The soft prompt: a few learned word vectors, and the files they travel in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prompt_core.dassl.checkpoints import Learned, checkpoint_file, read_checkpoint
from prompt_core.errors import UserError
from prompt_core.files import read_safetensors, write_safetensors
from prompt_core.text.tokens import POSITIONS
from prompt_core.towers.origin import origin_by_name

if TYPE_CHECKING:
    from prompt_core.clip import Clip

PACKAGED = {"mini": "mini_prompt.safetensors"}  # prompts by the name of the model that they were learned with


class SoftPrompt(nn.Module):
    """Learned context vectors in the text tower's embedding space.

    Attributes:
        context: the parameter, (L, D), or (N, L, D) with one context per class.
        position: where the class name stands: ``end`` (after the context), ``middle`` or ``front``.
        deep_context: optional parameter (J, M, D); replaces the first M context vectors at the input of the tower's
            blocks 1..J (MaPLe, arXiv 2210.03117).
        metadata: how it was learned, as far as known; written to the file.
    """

    def __init__(
        self,
        context: Tensor,
        position: str = "end",
        deep_context: Tensor | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises UserError for a tensor of another shape or type, or an unknown position."""
        super().__init__()
        if context.dim() not in (2, 3):
            raise UserError(f"a context of shape (L, D) or (N, L, D) is expected, given {tuple(context.shape)}")
        if not context.is_floating_point() or not (deep_context is None or deep_context.is_floating_point()):
            raise UserError(f"a context of floating-point numbers is expected, given {context.dtype}")
        if position not in POSITIONS:
            raise UserError(f"unknown class token position {position!r}; expected one of {', '.join(POSITIONS)}")
        if deep_context is not None and (
            deep_context.dim() != 3
            or deep_context.shape[2] != context.shape[-1]
            or deep_context.shape[1] > context.shape[-2]
            or context.dim() != 2
            or position != "end"
        ):
            raise UserError(
                f"a deep context (J, M, D) goes with a shared context (L >= M, D) and position 'end', "
                f"given {tuple(deep_context.shape)} with context {tuple(context.shape)} and position {position!r}"
            )
        # A parameter is used as it is, so that an optimiser that already holds it keeps holding it.
        self.context = context if isinstance(context, nn.Parameter) else nn.Parameter(context.detach().clone())
        self.deep_context: nn.Parameter | None = (
            deep_context
            if deep_context is None or isinstance(deep_context, nn.Parameter)
            else nn.Parameter(deep_context.detach().clone())
        )
        self.position = position
        self.metadata: dict[str, Any] = dict(metadata or {})

    @property
    def n_ctx(self) -> int:
        """Number of context vectors L."""
        return int(self.context.shape[-2])

    @property
    def class_specific(self) -> bool:
        """Whether each class has its own context."""
        return self.context.dim() == 3

    @classmethod
    def random(
        cls,
        width: int,
        n_ctx: int = 16,
        position: str = "end",
        num_classes: int | None = None,
        std: float = 0.02,
        seed: int = 0,
    ) -> SoftPrompt:
        """Normal vectors with mean 0 and ``std`` (0.02 in the published trainer), by ``seed``."""
        generator = torch.Generator().manual_seed(seed)
        shape = (n_ctx, width) if num_classes is None else (num_classes, n_ctx, width)
        return cls(torch.randn(shape, generator=generator) * std, position)

    @classmethod
    def from_words(cls, clip: Clip, words: str, position: str = "end") -> SoftPrompt:
        """Start from the token embeddings of ``words``, one vector per word as in the published trainer.

        Raises:
            UserError: when a word is not a single token, or there is none.
        """
        from prompt_core.text.tower import TextTower

        tower = TextTower(clip)
        pieces = words.replace("_", " ").split()
        if not pieces:
            raise UserError("no initial words were given; give at least one, or start from random vectors")
        ids = [clip.tokenizer.encode(piece) for piece in pieces]
        for piece, tokens in zip(pieces, ids, strict=True):
            if len(tokens) != 1:
                raise UserError(f"initial word {piece!r} is {len(tokens)} tokens; choose words of one token each")
        flat = torch.tensor([tokens[0] for tokens in ids], device=tower.device)
        return cls(tower.token_embedding(flat).detach(), position)

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write ``prompt.safetensors``: the tensors, with metadata as JSON strings.

        Args:
            metadata: added to ``self.metadata``; numbers of NumPy and torch become plain ones, paths become text.
        """
        tensors = {"context": self.context.detach().cpu().contiguous()}
        if self.deep_context is not None:
            tensors["deep_context"] = self.deep_context.detach().cpu().contiguous()
        notes = {**self.metadata, **metadata, "position": self.position, "suffix": "."}
        write_safetensors(path, tensors, notes)

    @classmethod
    def load(cls, path: str | Path, position: str | None = None) -> SoftPrompt:
        """Read a prompt written by :meth:`save`, or a published ``.pth.tar`` checkpoint or the folder of its run.

        ``mini`` is the prompt of the package, unless a file or folder has this name.

        Published files hold ``state_dict["ctx"]``, in half or single precision, with or without the buffers of token
        embeddings and a leading ``module.``; their position is not stored and is ``end`` unless given.

        Raises:
            UserError: when the file is absent, truncated, or holds no context or one that is not finite, or when it
                holds more than a prompt (CoCoOp, MaPLe).
        """
        path = checkpoint_file(packaged_prompt(path))
        if not path.is_file():
            raise UserError(f"prompt file {path} does not exist")
        if path.suffix != ".safetensors":
            return cls.from_checkpoint(read_checkpoint(path), path, position)
        tensors, metadata = read_safetensors(path)
        if "context" not in tensors:
            raise UserError(f"{path} holds no tensor 'context'; it is not a prompt file")
        stored = metadata.pop("position", "end")
        metadata.pop("suffix", None)
        prompt = cls(tensors["context"], position or stored, tensors.get("deep_context"), metadata)
        return prompt._checked(path)

    @classmethod
    def from_checkpoint(cls, learned: Learned, path: Path, position: str | None = None) -> SoftPrompt:
        """The prompt of a published checkpoint that was read from ``path``.

        Raises:
            UserError: as for :meth:`load`.
        """
        if learned.method != "coop":
            raise UserError(
                f"{path} is a checkpoint of {learned.method}, which is more than a prompt; "
                "tools/evaluate_prompt.py --prompt scores it"
            )
        origin = origin_by_name(path)
        metadata = {"source": path.name} | ({"clip": origin.clip, "pretrained": origin.pretrained} if origin else {})
        return cls(learned.tensors["context"], position or "end", metadata=metadata)._checked(path)

    def _checked(self, path: Path) -> SoftPrompt:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters()):
            raise UserError(f"{path}: the context holds numbers that are not finite; its training diverged")
        return self.eval()


def packaged_prompt(path: str | Path) -> Path:
    """The file of a prompt of the package, by its name in :data:`PACKAGED`; any other path as it is."""
    if str(path) in PACKAGED and not Path(path).exists():
        return Path(str(resources.files("prompt_core") / "assets" / PACKAGED[str(path)]))
    return Path(path)
