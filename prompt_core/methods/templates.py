"""Hand-written prompts: zero-shot CLIP (arXiv 2103.00020) with one template, and ensembles of templates.

Upstream: ``trainers/zsclip.py``, whose second class is POMP's ensemble of seven selected templates and the data set's
own template, except for the ImageNet family.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prompt_core.classifier import encode_templates
from prompt_core.data.catalog.hand_written import PHOTO, imagenet_templates, selected_templates
from prompt_core.errors import UserError, nearest
from prompt_core.methods.base import LearnedBy, Method
from prompt_core.text.encoder import PromptedTextEncoder, class_names
from prompt_core.text.name_lists import keeps_underscores
from prompt_core.towers.placement import upload

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary

OWN = "data_set"  # instead of a template: each data set's own one
ENSEMBLES = ("selected", "selected_own", "imagenet")
_OWN_PHOTOS = ("folder", "csv", "webdataset")  # kinds of sources that are not a published layout
_WITHIN = ("train", "val", "test", "validation", "images", "data")


class FixedTextMethod(Method):
    """A method whose class features are those of hand-written templates, ``texts``."""

    texts: TemplateFeatures

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


class TemplateMethod(FixedTextMethod):
    """Class features of templates: mean of unit-norm features, normalised again. Nothing is learned.

    Raises:
        UserError: no templates, or one without ``{}``.
    """

    @dataclass(frozen=True)
    class Options:
        """The texts."""

        templates: Sequence[str] = (PHOTO,)  # with {} for the name; data_set stands for the data set's own template
        own_unless_imagenet: bool = False  # add the data set's own template, except in the ImageNet family

    learned_by: ClassVar[LearnedBy] = "nothing"
    options: Options

    def __init__(self, clip: Clip, name: str = "zero_shot", **options: Any) -> None:
        super().__init__(clip, name, **options)
        templates = self.options.templates
        if not templates:
            raise UserError("no template was given; give at least one with {} for the class name")
        for template in templates:
            if template != OWN and "{}" not in template:
                raise UserError(f"template {template!r} has no {{}} for the class name")
        self.templates = [PHOTO if template == OWN else template for template in templates]
        self.texts = TemplateFeatures(self.templates)

    @classmethod
    def from_config(cls, cfg: CfgNode, clip: Clip, name: str, vocabulary: Vocabulary | None, **more: Any) -> Method:
        if name == "zero_shot":
            return cls(clip, name, templates=[cfg.METHOD.ZERO_SHOT.TEMPLATE])
        return cls.ensemble(clip, cfg.METHOD.ENSEMBLE.TEMPLATES)

    @classmethod
    def ensemble(cls, clip: Clip, which: str) -> TemplateMethod:
        """``selected`` (seven), ``selected_own`` (seven and the data set's own, as published) or ``imagenet`` (80).

        Raises:
            UserError: for any other value.
        """
        if which not in ENSEMBLES:
            raise UserError(
                f"unknown ensemble {which!r}; expected one of {', '.join(ENSEMBLES)}{nearest(which, ENSEMBLES)}"
            )
        templates = imagenet_templates() if which == "imagenet" else selected_templates()
        return cls(clip, "ensemble", templates=templates, own_unless_imagenet=which == "selected_own")

    def for_data_set(self, source: str) -> TemplateMethod:
        """With the data set's own template where ``templates`` or ``own_unless_imagenet`` ask for it.

        Args:
            source: how the data set was opened: its name, ``KIND:PATH`` or a path.
        """
        own_text, imagenet = own_template(source)
        templates = [own_text if template == OWN else template for template in self.options.templates]
        if self.options.own_unless_imagenet and not imagenet:
            templates.append(own_text)
        if templates == self.templates:
            return self
        other = TemplateMethod(self.clip, self.name, templates=templates)
        other.__dict__["encoder"] = self.encoder
        return other


class TemplateFeatures:
    """Features of filled-in templates, encoded once for a list of names and cached."""

    def __init__(self, templates: Sequence[str], average: bool = True) -> None:
        self.templates, self.average = list(templates), average
        self._names: tuple[list[str], bool] | None = None
        self._features = torch.zeros(0)

    def __call__(
        self, encoder: PromptedTextEncoder, vocabulary: Vocabulary | Sequence[str], rows: Tensor | None = None
    ) -> Tensor:
        """(n, E) unit-norm; or (T, n, E), one per template, where they are not averaged."""
        names, keep = class_names(vocabulary), keeps_underscores(vocabulary)
        if (names, keep) != self._names:
            with torch.no_grad():
                if self.average:
                    self._features = encode_templates(encoder, names, self.templates, keep)
                else:
                    self._features = torch.stack(
                        [encode_templates(encoder, names, [template], keep) for template in self.templates]
                    )
            self._names = names, keep
        return self._features if rows is None else self._features.index_select(-2, upload(rows, self._features.device))


def own_template(source: str) -> tuple[str, bool]:
    """A data set's own template, and whether it belongs to the ImageNet family, by the names in its source.

    Args:
        source: how the data set was opened: its name, ``KIND:PATH`` or a path. A set that the catalogue does not know
            gets "a photo of a {}.".
    """
    from prompt_core.data.catalog.lookup import find_entry

    kind, colon, rest = source.partition(":")
    path = [part for part in re.split("[/#]", rest if colon else source) if part not in ("", ".", "..")]
    # Names of split files and of folders within a data set do not identify it.
    while len(path) > 1 and (path[-1] in _WITHIN or "." in path[-1]):
        path.pop()
    # Folders above it may have any name; one level is that of archives with a top-level folder.
    words = [kind] if colon else []
    words += path[-1:] if kind in _OWN_PHOTOS and colon else list(reversed(path[-2:]))
    for word in words:
        entry = find_entry(word)
        if entry is not None:
            return entry.template, "imagenet" in entry.name
    return PHOTO, any("imagenet" in word.lower() for word in words)
