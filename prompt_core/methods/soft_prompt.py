"""CoOp (arXiv 2109.01134) and POMP (arXiv 2304.04704): context vectors before the name, shared or one set per class.

The two differ in the loss alone: CoOp's is the full softmax (``LOSS.NUM_CLASSES 0``), POMP's local contrast with
correction. Upstream: ``trainers/coop.py``, ``trainers/pomp.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.methods.base import Method, selected_names
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.text.tower import TextTower

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary


class SoftPromptMethod(Method):
    """Learned context vectors.

    Args:
        n_ctx: number of vectors L.
        init: words to start from; then L is their number.
        position: where the class name stands, see :class:`SoftPrompt`.
        names: the N classes, for one context per class; None for a shared one.
        seed: of the random vectors.

    Raises:
        UserError: words of several tokens, or words together with class-specific contexts.
    """

    def __init__(
        self,
        clip: Clip,
        name: str = "coop",
        n_ctx: int = 16,
        init: str = "",
        position: str = "end",
        names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        own = list(names) if names is not None else None
        options = {"n_ctx": n_ctx, "init": init, "position": position, "names": own, "seed": seed}
        super().__init__(clip, name, options)
        self.prompt = start_prompt(clip, n_ctx, init, position, None if own is None else len(own), seed)

    @classmethod
    def from_config(cls, cfg: CfgNode, clip: Clip, name: str, vocabulary: Vocabulary | None) -> SoftPromptMethod:
        names = None
        if cfg.PROMPT.CLASS_SPECIFIC:
            if vocabulary is None:
                raise UserError("PROMPT.CLASS_SPECIFIC needs the classes; give DATA.TRAIN")
            names = vocabulary.names
        return cls(clip, name, cfg.PROMPT.N_CTX, cfg.PROMPT.INIT, cfg.PROMPT.POSITION, names, cfg.SEED)

    @classmethod
    def around(cls, encoder: PromptedTextEncoder, prompt: SoftPrompt, name: str = "coop") -> SoftPromptMethod:
        """A method that shares ``prompt``, so that what it learns is learned there."""
        method = cls(encoder.clip, name, prompt.n_ctx, position=prompt.position)
        method.__dict__["encoder"] = encoder
        method.prompt = prompt
        return method

    @property
    def bound_names(self) -> list[str] | None:
        return self.options["names"]

    @property
    def state_module(self) -> SoftPrompt:
        """The prompt itself, whose state dict is that of the published layout."""
        return self.prompt

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
            context = context[rows]
        names = selected_names(vocabulary, rows)
        if rows is None and self.bound_names not in (None, names):
            raise UserError(
                f"method {self.name} has a context for each of the {len(self.options['names'])} classes it was learned "
                f"on; these {len(names)} are not the same, or not in the same order"
            )
        return self.encoder.encode_context(
            context, names, self.prompt.position, self.prompt.deep_context, chunk_size, reference
        )


def start_prompt(
    clip: Clip, n_ctx: int, init: str = "", position: str = "end", num_classes: int | None = None, seed: int = 0
) -> SoftPrompt:
    """Random vectors, or the embeddings of words.

    Raises:
        UserError: words of several tokens, or words together with class-specific contexts.
    """
    if init:
        if num_classes is not None:
            raise UserError("PROMPT.INIT goes with a shared context; leave it empty or PROMPT.CLASS_SPECIFIC False")
        return SoftPrompt.from_words(clip, init, position)
    return SoftPrompt.random(TextTower(clip).width, n_ctx, position, num_classes, seed=seed)


def initial_prompt(cfg: CfgNode, clip: Clip, num_classes: int) -> SoftPrompt:
    """The prompt that ``cfg.PROMPT`` starts from."""
    count = num_classes if cfg.PROMPT.CLASS_SPECIFIC else None
    return start_prompt(clip, cfg.PROMPT.N_CTX, cfg.PROMPT.INIT, cfg.PROMPT.POSITION, count, cfg.SEED)


def shared_prompt(cfg: CfgNode, method: str) -> tuple[int, str]:
    """``N_CTX`` and ``INIT`` for methods whose context is shared and stands before the name.

    Raises:
        UserError: for class-specific contexts or another position.
    """
    if cfg.PROMPT.CLASS_SPECIFIC or cfg.PROMPT.POSITION != "end":
        raise UserError(
            f"method {method} has a shared context before the name; leave PROMPT.CLASS_SPECIFIC False and "
            "PROMPT.POSITION end"
        )
    return cfg.PROMPT.N_CTX, cfg.PROMPT.INIT
