"""VPT (arXiv 2203.12119) for CLIP: learned tokens in the vision tower, a hand-written text prompt.

Shallow prompts stand at the first block alone (``depth`` 1), deep ones are new at every block. Upstream:
``trainers/vpt.py`` (8 tokens at all 12 blocks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from prompt_core.data.catalog.hand_written import PHOTO
from prompt_core.errors import UserError
from prompt_core.methods.base import Method, Reads, random_vectors
from prompt_core.methods.templates import TemplateFeatures
from prompt_core.methods.vision import check_depth, vision_prompts, vision_transformer, vision_width

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary


class VPT(Method):
    """Vision tokens (J, M, W).

    Args:
        tokens: M, per block.
        depth: J, how many blocks have tokens of their own; 0 for all.
        template: the fixed text prompt.
        seed: of the random vectors.

    Raises:
        UserError: a vision tower that is no open_clip transformer, a template without ``{}``, no tokens, or a depth
            that the tower lacks.
    """

    reads: ClassVar[Reads] = "images"

    def __init__(
        self, clip: Clip, name: str = "vpt", tokens: int = 8, depth: int = 0, template: str = PHOTO, seed: int = 0
    ) -> None:
        super().__init__(clip, name, {"tokens": tokens, "depth": depth, "template": template, "seed": seed})
        blocks = len(vision_transformer(clip).transformer.resblocks)
        layers = check_depth(depth, blocks, "vision", "METHOD.VPT.DEPTH")
        if tokens < 1:
            raise UserError(f"METHOD.VPT.TOKENS is {tokens}; expected at least 1")
        if "{}" not in template:
            raise UserError(f"template {template!r} has no {{}} in the place of the class name")
        self.tokens = nn.Parameter(random_vectors(layers, tokens, vision_width(clip), seed=seed))
        self.texts = TemplateFeatures([template])

    @classmethod
    def from_config(cls, cfg: CfgNode, clip: Clip, name: str, vocabulary: Vocabulary | None) -> VPT:
        node = cfg.METHOD.VPT
        return cls(clip, name, node.TOKENS, node.DEPTH, node.TEMPLATE, cfg.SEED)

    def image_features(self, inputs: Tensor) -> Tensor:
        with vision_prompts(self.clip, self.tokens):
            return self.clip.image_features(inputs)

    def prepare(self, vocabulary: Vocabulary | Sequence[str]) -> None:
        self.texts(self.encoder, vocabulary)

    def class_features(
        self,
        vocabulary: Vocabulary | Sequence[str],
        rows: Tensor | None = None,
        image_features: Tensor | None = None,
        chunk_size: int | None = None,
        reference: bool = False,
    ) -> Tensor:
        return self.texts(self.encoder, vocabulary, rows)
