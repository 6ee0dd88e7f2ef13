"""CoCoOp (arXiv 2203.05557): a small network computes from the image a vector that is added to the context.

Upstream: ``trainers/cocoop.py``. Class features differ from image to image, so each image has a loss of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from prompt_core.errors import UserError
from prompt_core.methods.base import Method, seeded, selected_names
from prompt_core.methods.soft_prompt import shared_prompt, start_prompt
from prompt_core.text.name_lists import keeps_underscores

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary


class CoCoOp(Method):
    """Context vectors and the meta-net: E → E / ``reduction`` → ReLU → D, added to every vector.

    Raises:
        UserError: a reduction that leaves no hidden units.
    """

    @dataclass(frozen=True)
    class Options:
        """Number of vectors L, or the words that they start from; seed of the vectors and of the network."""

        n_ctx: int = 4
        init: str = "a photo of a"
        reduction: int = 16  # factor by which the hidden layer is narrower than the image features; 16 as published
        seed: int = 0

    section: ClassVar[str] = "COCOOP"
    conditional: ClassVar[bool] = True
    options: Options

    def __init__(self, clip: Clip, name: str = "cocoop", **options: Any) -> None:
        super().__init__(clip, name, **options)
        reduction = self.options.reduction
        if not 1 <= reduction <= clip.embed_dim:
            raise UserError(
                f"METHOD.COCOOP.REDUCTION is {reduction}; expected 1 to {clip.embed_dim}, the image features"
            )
        prompt = start_prompt(clip, self.options.n_ctx, self.options.init, seed=self.options.seed)
        self.text_context = prompt.context  # (L, D)
        hidden, width = clip.embed_dim // reduction, int(prompt.context.shape[1])
        with seeded(self.options.seed):
            self.meta_net = nn.Sequential(nn.Linear(clip.embed_dim, hidden), nn.ReLU(), nn.Linear(hidden, width))

    @classmethod
    def from_config(cls, cfg: CfgNode, clip: Clip, name: str, vocabulary: Vocabulary | None, **more: Any) -> Method:
        return super().from_config(cfg, clip, name, vocabulary, **shared_prompt(cfg, name))

    def contexts(self, image_features: Tensor) -> Tensor:
        """(B, L, D) contexts of unit-norm image features (B, E)."""
        shift = self.meta_net(image_features.to(self.text_context))  # (B, D)
        return self.text_context[None] + shift[:, None]

    def class_features(
        self,
        vocabulary: Vocabulary | Sequence[str],
        rows: Tensor | None = None,
        image_features: Tensor | None = None,
        chunk_size: int | None = None,
        reference: bool = False,
    ) -> Tensor:
        """(B, n, E) class features of each image."""
        if image_features is None:
            raise UserError(f"class features of method {self.name} depend on the image; give image features")
        names = selected_names(vocabulary, rows)
        return self.encoder.encode_conditional(
            self.contexts(image_features),
            names,
            chunk_size=chunk_size,
            reference=reference,
            keep_underscores=keeps_underscores(vocabulary),
        )
