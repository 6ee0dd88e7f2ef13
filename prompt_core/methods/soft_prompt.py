"""CoOp (arXiv 2109.01134) and POMP (arXiv 2304.04704): context vectors before the name, shared or one set per class.

The two differ only in the loss: CoOp's is the full softmax (``LOSS.NUM_CLASSES 0``), POMP's local contrast with
correction. Upstream: ``trainers/coop.py``, ``trainers/pomp.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.methods.base import Method, selected_names
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.text.name_lists import keeps_underscores
from prompt_core.text.tower import TextTower
from prompt_core.towers.placement import upload

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary


PROMPT_FILE = "prompt.safetensors"


class SoftPromptMethod(Method):
    """Learned context vectors.

    Raises:
        UserError: words of several tokens, or words together with class-specific contexts.
    """

    @dataclass(frozen=True)
    class Options:
        """The context vectors: how many, what they start from, and whether each class has its own."""

        n_ctx: int = 16  # L
        init: str = ""  # words to start from; then L is their number
        position: str = "end"  # where the class name stands, see SoftPrompt
        names: Sequence[str] | None = None  # the N classes, for one context per class; None for a shared one
        seed: int = 0  # of the random vectors

    options: Options

    def __init__(self, clip: Clip, name: str = "coop", **options: Any) -> None:
        super().__init__(clip, name, **options)
        chosen = self.options
        count = None if chosen.names is None else len(chosen.names)
        self.prompt = start_prompt(clip, chosen.n_ctx, chosen.init, chosen.position, count, chosen.seed)

    @classmethod
    def from_config(cls, cfg: CfgNode, clip: Clip, name: str, vocabulary: Vocabulary | None, **more: Any) -> Method:
        names = None
        if cfg.PROMPT.CLASS_SPECIFIC:
            if vocabulary is None:
                raise UserError("PROMPT.CLASS_SPECIFIC needs the classes; give DATA.TRAIN")
            names = vocabulary.names
        prompt = cfg.PROMPT
        return super().from_config(
            cfg, clip, name, vocabulary, n_ctx=prompt.N_CTX, init=prompt.INIT, position=prompt.POSITION, names=names
        )

    @classmethod
    def around(cls, encoder: PromptedTextEncoder, prompt: SoftPrompt, name: str = "coop") -> SoftPromptMethod:
        """A method that shares ``prompt``: learning it changes ``prompt``."""
        method = cls(encoder.clip, name, n_ctx=prompt.n_ctx, position=prompt.position)
        method.__dict__["encoder"] = encoder
        method.prompt = prompt
        return method

    @property
    def state_module(self) -> SoftPrompt:
        """The prompt itself, whose state dict has the published layout."""
        return self.prompt

    def save_alone(self, folder: Path, **metadata: Any) -> Path:
        """``prompt.safetensors``."""
        path = folder / PROMPT_FILE
        self.save_prompt(path, **metadata)
        return path

    def save_prompt(self, path: Path, **metadata: Any) -> None:
        """Write the prompt, with the CLIP that it was learned with."""
        loss = "POMP" if metadata.get("K") else "full softmax"
        self.prompt.save(
            path,
            clip=self.clip.name,
            pretrained=Path(self.clip.pretrained).name if self.clip.pretrained else None,
            clip_sha256=self.clip.fingerprint,
            method=loss if self.name == "pomp" else "CoOp",
            **metadata,
        )

    def identity(self) -> dict[str, Any]:
        """Nothing in addition to the configuration's keys of the prompt, which are all that older states have."""
        return {}

    def class_features(
        self,
        vocabulary: Vocabulary | Sequence[str],
        rows: Tensor | None = None,
        image_features: Tensor | None = None,
        chunk_size: int | None = None,
        reference: bool = False,
    ) -> Tensor:
        context: Tensor = self.prompt.context
        if rows is not None and self.prompt.class_specific:
            context = context[upload(rows, context.device)]
        names = selected_names(vocabulary, rows)
        bound = self.bound_names
        if rows is None and bound is not None and bound != names:
            raise UserError(
                f"method {self.name} has a context for each of the {len(bound)} classes it was learned on; these "
                f"{len(names)} are not the same, or not in the same order"
            )
        return self.encoder.encode_context(
            context,
            names,
            self.prompt.position,
            self.prompt.deep_context,
            chunk_size,
            reference,
            keeps_underscores(vocabulary),
        )


_AROUND = 4  # tokens beside the context: start, at least one of the name, full stop, end


def start_prompt(
    clip: Clip, n_ctx: int, init: str = "", position: str = "end", num_classes: int | None = None, seed: int = 0
) -> SoftPrompt:
    """Random vectors, or the embeddings of words.

    Raises:
        UserError: words of several tokens, words together with class-specific contexts, or more vectors than the text
            tower has places for.
    """
    length = TextTower(clip).context_length
    if not init and not 1 <= n_ctx <= length - _AROUND:
        raise UserError(
            f"PROMPT.N_CTX is {n_ctx}; expected 1 to {length - _AROUND}: the text tower of {clip.name} takes {length} "
            "tokens, with the class name"
        )
    if init:
        if num_classes is not None:
            raise UserError("PROMPT.INIT goes with a shared context; leave it empty or PROMPT.CLASS_SPECIFIC False")
        return SoftPrompt.from_words(clip, init, position)
    return SoftPrompt.random(TextTower(clip).width, n_ctx, position, num_classes, seed=seed)


def shared_prompt(cfg: CfgNode, method: str) -> dict[str, Any]:
    """``n_ctx`` and ``init`` for methods whose context is shared and precedes the name.

    Raises:
        UserError: for class-specific contexts or another position.
    """
    if cfg.PROMPT.CLASS_SPECIFIC or cfg.PROMPT.POSITION != "end":
        raise UserError(
            f"method {method} has a shared context before the name; leave PROMPT.CLASS_SPECIFIC False and "
            "PROMPT.POSITION end"
        )
    return {"n_ctx": cfg.PROMPT.N_CTX, "init": cfg.PROMPT.INIT}
