"""LASP (arXiv 2210.01115): learned words that must also classify hand-written prompts of the classes.

It learns the context, one vector that is added to all text features before they are normalised, and the layer norms of
the vision tower at a tenth of the rate. The text-to-text loss treats the features of hand-written templates as images:
those of a class must be classified as that class by the learned class features. There is one group of prompts, as in
the public code (``1adrianb/lasp`` at 5b1e8d9). Its virtual classes, names without images, come with a larger
``DATA.VOCABULARY``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_core.data.catalog.hand_written import PHOTO, imagenet_templates, selected_templates
from prompt_core.data.catalog.lookup import classification_entry
from prompt_core.errors import UserError
from prompt_core.losses import full_softmax_logits
from prompt_core.methods.base import Method, Reads, selected_names
from prompt_core.methods.soft_prompt import shared_prompt, start_prompt
from prompt_core.methods.templates import TemplateFeatures
from prompt_core.methods.vision import VisionNorms
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.text.name_lists import keeps_underscores
from prompt_core.towers.placement import upload

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary


# The published templates: those of five data sets, the seven selected ones, the plain one, and these places of CLIP's.
_OF_DATA_SETS = ("oxford_flowers", "ucf101", "eurosat", "fgvc_aircraft", "dtd")
_OF_CLIP = (1, 3, 4, 5, 7, 8, 24, 26, 27, 32, 33, 34, 38, 45, 47, 48, 49, 53, 58, 59, 60, 61)


def lasp_templates() -> list[str]:
    """The 35 templates of the public configurations (one of them twice), then the others of CLIP's 80."""
    clips = imagenet_templates()
    own = [classification_entry(name).template for name in _OF_DATA_SETS]
    published = [*own, *selected_templates(), PHOTO, *(clips[place] for place in _OF_CLIP)]
    return published + [template for template in clips if template not in published]


class LASP(Method):
    """Context (L, D), text shift (E,), and layer norms of the vision tower.

    Raises:
        UserError: a vision tower that is not an open_clip transformer, or settings out of range.
    """

    @dataclass(frozen=True)
    class Options:
        """The prompt, the text-to-text loss and the rate of the layer norms."""

        n_ctx: int = 4
        init: str = "a photo of a"  # words to start from; then their number is that of the vectors
        text_weight: float = 5.0  # of the text-to-text loss; 0 leaves it out
        templates: int = 35  # T, how many of :func:`lasp_templates` it reads; 35 as published
        noise: float = 0.05  # standard deviation of what is added to the unit-norm features of the templates
        noise_probability: float = 0.5  # in which share of the steps it is added
        norm_rate: float = 0.1  # learning rate of the layer norms, as a share of the others'
        seed: int = 0  # of the random vectors

    section: ClassVar[str] = "LASP"
    reads: ClassVar[Reads] = "images"
    options: Options

    def __init__(self, clip: Clip, name: str = "lasp", **options: Any) -> None:
        super().__init__(clip, name, **options)
        known = lasp_templates()
        chosen = self.options
        if not 1 <= chosen.templates <= len(known):
            raise UserError(f"METHOD.LASP.TEMPLATES is {chosen.templates}; expected 1 to {len(known)}")
        if not 0 <= chosen.noise_probability <= 1 or min(chosen.noise, chosen.text_weight, chosen.norm_rate) < 0:
            raise UserError(
                "METHOD.LASP expects a NOISE_PROBABILITY of 0 to 1, and no negative NOISE, TEXT_WEIGHT or NORM_RATE; "
                f"given {chosen.noise_probability}, {chosen.noise}, {chosen.text_weight} and {chosen.norm_rate}"
            )
        self.norms = VisionNorms(clip)
        self.text_context = start_prompt(clip, chosen.n_ctx, chosen.init, seed=chosen.seed).context
        self.shift = nn.Parameter(
            torch.zeros(clip.embed_dim, dtype=self.text_context.dtype, device=self.text_context.device)
        )
        self.targets = TemplateFeatures(known[: chosen.templates], average=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, clip: Clip, name: str, vocabulary: Vocabulary | None, **more: Any) -> Method:
        return super().from_config(cfg, clip, name, vocabulary, **shared_prompt(cfg, name))

    @cached_property
    def open_encoder(self) -> PromptedTextEncoder:
        """The encoder that leaves the L2 norm to this method."""
        return PromptedTextEncoder(self.clip, normalise=False)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": [self.text_context, self.shift]},
            {"params": list(self.norms.parameters()), "lr_scale": self.options.norm_rate},
        ]

    def image_features(self, inputs: Tensor) -> Tensor:
        return self.norms.image_features(inputs)

    def prepare(self, vocabulary: Vocabulary | Sequence[str]) -> None:
        if self.options.text_weight:
            self.targets(self.encoder, vocabulary)

    def class_features(
        self,
        vocabulary: Vocabulary | Sequence[str],
        rows: Tensor | None = None,
        image_features: Tensor | None = None,
        chunk_size: int | None = None,
        reference: bool = False,
    ) -> Tensor:
        names = selected_names(vocabulary, rows)
        texts = self.open_encoder.encode_context(
            self.text_context,
            names,
            chunk_size=chunk_size,
            reference=reference,
            keep_underscores=keeps_underscores(vocabulary),
        )
        return F.normalize(texts + self.shift, dim=-1)

    def regulariser(
        self, vocabulary: Vocabulary, rows: Tensor | None, class_features: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """``text_weight`` times the text-to-text cross-entropy over the classes of the step.

        The features of T templates for all names of the vocabulary are kept: 4 T N E bytes.
        """
        if not self.options.text_weight:
            return None
        targets = self.targets(self.encoder, vocabulary, rows).to(class_features)  # (T, n, E)
        if float(torch.rand((), generator=generator)) < self.options.noise_probability:
            # As published, they do not get their norm back.
            noise = upload(torch.randn(targets.shape, generator=generator), targets.device)
            targets = targets + self.options.noise * noise.to(targets)
        groups = torch.from_numpy(vocabulary.name_groups)
        groups = upload(groups if rows is None else groups[rows.cpu()], targets.device)
        labels = torch.arange(targets.shape[1], device=targets.device).repeat(len(targets))  # (T n,)
        logits = full_softmax_logits(targets.flatten(0, 1), class_features, labels, self.logit_scale, groups)
        return self.options.text_weight * F.cross_entropy(logits, labels)
