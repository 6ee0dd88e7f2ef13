"""VPT (arXiv 2203.12119) for CLIP: learned tokens in the vision tower, a hand-written text prompt.

Shallow prompts are only at the first block (``depth`` 1), deep ones are new at every block. Upstream:
``trainers/vpt.py`` (8 tokens at all 12 blocks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from prompt_core.data.catalog.hand_written import PHOTO
from prompt_core.errors import UserError
from prompt_core.methods.base import Reads, random_vectors
from prompt_core.methods.templates import FixedTextMethod, TemplateFeatures
from prompt_core.methods.vision import check_depth, vision_prompts, vision_transformer, vision_width

if TYPE_CHECKING:
    from prompt_core.clip import Clip


class VPT(FixedTextMethod):
    """Vision tokens (J, M, W).

    Raises:
        UserError: a vision tower that is not an open_clip transformer, a template without ``{}``, no tokens, or more
            blocks than the tower has.
    """

    @dataclass(frozen=True)
    class Options:
        """How many tokens, at how many blocks; the fixed text prompt; the seed of the random vectors."""

        tokens: int = 8  # M, per block
        depth: int = 0  # J, how many blocks have tokens of their own; 0 for all
        template: str = PHOTO
        seed: int = 0

    section: ClassVar[str] = "VPT"
    reads: ClassVar[Reads] = "images"
    options: Options

    def __init__(self, clip: Clip, name: str = "vpt", **options: Any) -> None:
        super().__init__(clip, name, **options)
        tokens, template = self.options.tokens, self.options.template
        blocks = len(vision_transformer(clip).transformer.resblocks)
        layers = check_depth(self.options.depth, blocks, "vision", "METHOD.VPT.DEPTH")
        if tokens < 1:
            raise UserError(f"METHOD.VPT.TOKENS is {tokens}; expected at least 1")
        if "{}" not in template:
            raise UserError(f"template {template!r} has no {{}} for the class name")
        self.tokens = nn.Parameter(random_vectors(layers, tokens, vision_width(clip), seed=self.options.seed))
        self.texts = TemplateFeatures([template])

    def image_features(self, inputs: Tensor) -> Tensor:
        with vision_prompts(self.clip, self.tokens):
            return self.clip.image_features(inputs)
