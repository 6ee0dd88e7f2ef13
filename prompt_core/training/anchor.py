"""The anchor: names that are not learned on keep the text features they had (``LOSS.ANCHOR``).

Learning lifts the names of the training classes above all others. Dynamic outlier regularization (arXiv 2410.02681)
holds the others: in each step some names of a large vocabulary are drawn, and their features under what is learned are
pulled to those of a hand-written template. The paper draws among the WordNet nouns that are nearest to the training
classes; here all names outside these classes are as likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.losses import anchor_distance
from prompt_core.methods.base import Method
from prompt_core.methods.templates import TemplateFeatures
from prompt_core.negatives import UniformSampler
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.ranks.shared_classes import class_shares
from prompt_core.vocabulary import Vocabulary, plain_name

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.training.data import TrainingData


@dataclass(frozen=True, eq=False)
class Anchor:
    """What is held, and how hard.

    Attributes:
        weight: of the term in the loss.
        names: names outside the training classes.
        count: how many of them a step draws.
        untuned: their features under a template, encoded once.
    """

    weight: float
    names: Vocabulary
    count: int
    untuned: TemplateFeatures

    def term(
        self, method: Method, generator: torch.Generator, chunk_size: int | None = None, ranks: Ranks = ALONE
    ) -> Tensor:
        """``weight`` times :func:`prompt_core.losses.anchor_distance` of a draw of names.

        Args:
            generator: of the step; on the CPU.
            chunk_size: names per pass, see :class:`prompt_core.text.encoder.PromptedTextEncoder`.
            ranks: the processes of a job; each takes its share of the names, and the terms of all add up to the whole.
        """
        rows, _ = UniformSampler(len(self.names))(self.count, generator)
        own = class_shares(method, self.names, rows, ranks)[ranks.rank]
        if not len(own):
            return torch.zeros((), device=method.device)
        rows, share = rows[own], len(own) / len(rows)
        learned = method.class_features(self.names, rows, None, chunk_size)  # (count, E)
        return (
            self.weight * share * anchor_distance(learned, self.untuned(method.encoder, self.names, rows).to(learned))
        )

    def describe(self) -> dict[str, Any]:
        """The record of it in the resumable state and in files."""
        return {
            "weight": self.weight,
            "names_per_step": self.count,
            "names": len(self.names),
            "names_sha256": self.names.sha256,
            "template": self.untuned.templates[0],
        }


def make_anchor(cfg: CfgNode, method: Method, data: TrainingData) -> Anchor | None:
    """The anchor that ``cfg.LOSS`` asks for; None for a weight of 0.

    Raises:
        UserError: a method that has no text of other names or does not learn it, a template without a place for the
            name, an unknown vocabulary, or one without other names than the training classes.
    """
    if not cfg.LOSS.ANCHOR:
        return None
    template = cfg.LOSS.ANCHOR_TEMPLATE
    if "{}" not in template:
        raise UserError(f"LOSS.ANCHOR_TEMPLATE is {template!r}; expected a text with {{}} for the name")
    if reason := _why_not(method):
        raise UserError(f"LOSS.ANCHOR holds the text of names that are not learned on; {reason}; leave LOSS.ANCHOR 0")
    learned = data.vocabulary[np.unique(data.labels)]
    names = names_outside(Vocabulary.load(cfg.LOSS.ANCHOR_VOCABULARY), learned)
    if not len(names):
        raise UserError(
            f"LOSS.ANCHOR_VOCABULARY {cfg.LOSS.ANCHOR_VOCABULARY} has no name besides the training classes; give a "
            "larger one"
        )
    return Anchor(cfg.LOSS.ANCHOR, names, min(cfg.LOSS.ANCHOR_NAMES, len(names)), TemplateFeatures([template]))


def names_outside(vocabulary: Vocabulary, classes: Vocabulary) -> Vocabulary:
    """The classes of a vocabulary that share neither id nor name with any of ``classes``."""
    ids = {str(identity) for identity in classes.ids or []}
    texts = {plain_name(name) for name in classes.names}
    of_row = vocabulary.ids if vocabulary.ids is not None else [None] * len(vocabulary)
    pairs = zip(vocabulary.names, of_row, strict=True)
    return vocabulary[[row for row, (n, i) in enumerate(pairs) if str(i) not in ids and plain_name(n) not in texts]]


def _why_not(method: Method) -> str:
    """Why a method's text of other names cannot be held; empty where it can."""
    if method.bound_names is not None:
        return f"method {method.name} knows only the classes that it learns on"
    if method.conditional:
        return f"method {method.name} has another text for each image"
    if not method.class_features(["thing"]).requires_grad:
        return f"method {method.name} learns no text"
    return ""
