"""The classifier file: class names and their features, ready for an image, a detector or a segmenter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.background.background import Background, background_of, background_vocabulary, calibrated_scale
from prompt_core.background.own_share import own_shares
from prompt_core.documents.npy_files import read_npy
from prompt_core.errors import UserError
from prompt_core.files import (
    atomic_path,
    read_safetensors,
    read_sealed_json,
    sha256_of_file,
    write_safetensors,
    write_sealed_json,
)
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder, class_names
from prompt_core.text.name_lists import keeps_underscores
from prompt_core.text.tokens import prompt_text
from prompt_core.towers.origin import content_metadata, recognise
from prompt_core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from prompt_core.clip import Clip


class TextClassifier:
    """Class features that classify by cosine.

    Attributes:
        weight: (N, E) float32, unit-norm rows.
        names: N class names.
        metadata: provenance: CLIP, prompt hash or templates, vocabulary hash.
        background: other names that a photo may show, for :meth:`own_share`; None without.
        untuned: (N, E) unit-norm features of the same names under a hand-written template, for those who compare names
            by their text; None where ``weight`` will do. Not saved.
    """

    background: Background | None = None
    untuned: Tensor | None = None

    def __init__(
        self,
        weight: Tensor,
        names: Sequence[str],
        metadata: Mapping[str, Any] | None = None,
        background: Background | None = None,
    ) -> None:
        """Raises UserError when rows and names differ in number, or a row is zero or not finite."""
        if weight.dim() != 2 or len(weight) != len(names):
            raise UserError(
                f"a weight (N, E) with N names is expected, given {tuple(weight.shape)}, {len(names)} names"
            )
        weight = weight.detach().float().cpu()
        norms = weight.norm(dim=1)
        if not bool(torch.isfinite(norms).all()) or bool((norms == 0).any()):
            row = int(torch.nonzero(~torch.isfinite(norms) | (norms == 0))[0])
            raise UserError(f"the feature of class {names[row]!r} (row {row}) is zero or not finite")
        self.weight = F.normalize(weight, dim=1)
        self.names = list(names)
        self.metadata: dict[str, Any] = dict(metadata or {})
        if background is not None and background.weight.shape[1] != weight.shape[1]:
            raise UserError(f"the background has width {background.weight.shape[1]}, the classes {weight.shape[1]}")
        self.background = background

    def __len__(self) -> int:
        return len(self.names)

    def logits(self, image_features: Tensor, logit_scale: float = 1.0) -> Tensor:
        """Cosines (B, N) of unit-norm image features (B, E), times ``logit_scale``."""
        return logit_scale * image_features @ self.weight.to(image_features).T

    def own_share(self, image_features: Tensor, logit_scale: float | None = None) -> Tensor:
        """Probability (B, N) of each class against all classes and the background.

        One minus a row's sum is the probability of "none of these".

        Args:
            image_features: (B, E) unit-norm.
            logit_scale: instead of the background's.

        Raises:
            UserError: without a background.
        """
        if self.background is None:
            raise UserError("this classifier has no background; build it with background='imagenet21k' or negatives=")
        scale = self.background.logit_scale if logit_scale is None else logit_scale
        kinds = self.background.kinds
        return own_shares(image_features, self.weight, self.background.weight, scale, kinds=kinds)

    @classmethod
    def build(
        cls,
        clip: Clip,
        vocabulary: Vocabulary | Sequence[str],
        prompt_or_templates: SoftPrompt | str | Sequence[str],
        synonyms: bool = False,
        encoder: PromptedTextEncoder | None = None,
        keep_underscores: bool | None = None,
        average_raw: bool = False,
        background: Vocabulary | Sequence[str] | str | None = None,
        negatives: Sequence[str] = (),
        logit_scale: float | None = None,
        cache: str | Path | None = None,
    ) -> TextClassifier:
        """Encode a vocabulary with a prompt, or in hand-written templates.

        Features of several templates, and with ``synonyms`` those of a class's other names, are averaged after
        normalisation and normalised again (the ensemble of CLIP, arXiv 2103.00020).

        Args:
            prompt_or_templates: a soft prompt, or one or several templates with ``{}`` for the name.
            synonyms: also encode the synonyms of each class.
            keep_underscores: those of names do not become spaces; None for what the vocabulary says. Detic's matrices
                are "a {}" with underscores kept (``tools/dump_clip_features.py``, without ``--fix_space``).
            average_raw: features of a class's names are averaged before normalisation, as with Detic's
                ``--avg_synonyms``: longer features count for more.
            background: other names that a photo may show, for :meth:`own_share`: a published vocabulary's name
                (``imagenet21k``), a file or names. Kinds of the vocabulary's words count for the words, other relatives
                are left out (:mod:`prompt_core.background.relatives`).
            negatives: further words of the background, also relatives.
            logit_scale: of own shares; None for the one calibrated for this CLIP, else the model's own.
            cache: a folder that keeps the features of ``background``, which take seconds; without it they are kept in
                this process.

        Raises:
            UserError: a template without ``{}``, a name too long, a prompt of another width; a negative word that is
                also in the vocabulary; a background with a class-specific prompt.
        """
        encoder = encoder or PromptedTextEncoder(clip)
        names = class_names(vocabulary)
        if synonyms and isinstance(prompt_or_templates, SoftPrompt) and prompt_or_templates.class_specific:
            raise UserError("a class-specific prompt has one context per class name; build it without synonyms")
        extra = getattr(vocabulary, "synonyms", None) if synonyms else None
        groups = [[name] for name in names]
        if extra is not None:
            groups = [list(dict.fromkeys([name, *more])) for name, more in zip(names, extra, strict=True)]
        keep = keeps_underscores(vocabulary) if keep_underscores is None else keep_underscores
        metadata: dict[str, Any] = {
            "clip": clip.name,
            "pretrained": Path(clip.pretrained).name if clip.pretrained else None,
            "clip_sha256": clip.fingerprint,
            "vocabulary_sha256": (vocabulary if isinstance(vocabulary, Vocabulary) else Vocabulary(names)).sha256,
            "synonyms": extra is not None,
            "average_raw": extra is not None and average_raw,
            "keep_underscores": keep,
        }
        subject: SoftPrompt | list[str]
        if isinstance(prompt_or_templates, SoftPrompt):
            subject = prompt_or_templates
            metadata["prompt_sha256"] = prompt_sha256(subject)
        else:
            subject = [prompt_or_templates] if isinstance(prompt_or_templates, str) else list(prompt_or_templates)
            metadata["templates"] = check_templates(subject)
        with torch.no_grad():
            features = _encode_groups(encoder, groups, subject, keep, metadata["average_raw"])
        classifier = cls(features, names, metadata)
        if background is None and not negatives:
            return classifier
        if isinstance(subject, SoftPrompt) and subject.class_specific:
            raise UserError(
                "a class-specific prompt has contexts for its own classes only; build it without background"
            )

        def encode(others: Vocabulary) -> Tensor:
            return cls.build(clip, others, subject, encoder=encoder, keep_underscores=keep).weight

        classifier.background = background_of(
            vocabulary if isinstance(vocabulary, Vocabulary) else Vocabulary(names),
            classifier.weight,
            background_vocabulary(background),
            negatives,
            encode,
            logit_scale or calibrated_scale(clip.name, clip.logit_scale),
            {key: metadata.get(key) for key in ("clip_sha256", "prompt_sha256", "templates", "keep_underscores")},
            cache,
        )
        return classifier

    def save(self, path: str | Path) -> None:
        """Write ``classifier.safetensors`` (names and provenance inside) or, by its ending, a ``.npy`` matrix.

        The ``.npy`` is (N, E) float32, as Detic and POMP read it; names and its sha256 go to ``PATH.names.json`` next
        to it.
        """
        path = Path(path)
        if path.suffix == ".npy":
            if self.background is not None:
                raise UserError(f"{path}: a .npy has no room for a background; save as .safetensors")
            with atomic_path(path, durable=True, size=self.weight.nbytes) as temporary:
                np.save(temporary, self.weight.numpy(), allow_pickle=False)
            notes = {"names": self.names, "metadata": self.metadata, "matrix_sha256": sha256_of_file(path)}
            write_sealed_json(path.with_suffix(".names.json"), notes, durable=True)
            return
        tensors, notes = {"weight": self.weight.contiguous()}, {**self.metadata, "names": self.names}
        if self.background is not None:
            tensors["background"] = self.background.weight.contiguous()
            notes["background"] = self.background.notes
            if self.background.kinds is not None:
                tensors["kinds"] = self.background.kinds.weight.contiguous()
        write_safetensors(path, tensors, notes)

    @classmethod
    def load(cls, path: str | Path, names: Sequence[str] | None = None) -> TextClassifier:
        """Read a classifier file, or a class matrix of Detic or POMP.

        A ``.npy`` is (N, E) float16 or float32, not necessarily normalised. Its names are taken from ``names``, else
        with its provenance from a ``.names.json`` file next to it, else they are ``class 0``, ``class 1``, …

        Raises:
            UserError: when the file is absent, truncated, of another shape, or does not match ``names``.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"classifier file {path} does not exist")
        given = [str(name) for name in class_names(names)] if names is not None else None
        background = None
        if path.suffix == ".npy":
            weight, stored, metadata = load_matrix(path)
        else:
            weight, stored, metadata, background = _load_safetensors(path)
        try:
            return cls(weight, given if given is not None else stored, metadata, background)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def prompt_sha256(prompt: SoftPrompt) -> str:
    """Hash of a prompt's tensors and position."""
    import hashlib

    digest = hashlib.sha256(prompt.position.encode())
    for tensor in (prompt.context, prompt.deep_context):
        if tensor is not None:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_templates(templates: Sequence[str]) -> list[str]:
    """Hand-written templates as a list. Raises UserError for none, or one without ``{}``."""
    if not templates:
        raise UserError("no template was given; give at least one with {} for the class name")
    for template in templates:
        if "{}" not in template:
            raise UserError(f"template {template!r} has no {{}} for the class name")
    return list(templates)


def encode_templates(
    encoder: PromptedTextEncoder, names: Sequence[str], templates: Sequence[str], keep_underscores: bool = False
) -> Tensor:
    """Mean over templates of normalised features, normalised again: (N, E)."""
    parts = (_fill(encoder, names, template, keep_underscores) for template in check_templates(templates))
    return F.normalize(reduce(torch.add, parts), dim=1)


def _fill(encoder: PromptedTextEncoder, names: Sequence[str], template: str, keep_underscores: bool) -> Tensor:
    return encoder.encode_texts([template.replace("{}", prompt_text(name, keep_underscores)) for name in names])


def _encode_groups(
    encoder: PromptedTextEncoder,
    groups: Sequence[Sequence[str]],
    subject: SoftPrompt | list[str],
    keep_underscores: bool,
    average_raw: bool,
) -> Tensor:
    """Class features (C, E) of any norm: the mean over the names of each class."""
    names = [name for group in groups for name in group]
    owner = torch.tensor([row for row, group in enumerate(groups) for _ in group], device=encoder.clip.device)

    def sums(features: Tensor) -> Tensor:
        return features.new_zeros(len(groups), features.shape[1]).index_add_(0, owner, features)  # (N, E) to (C, E)

    if average_raw:
        encoder = PromptedTextEncoder(encoder.clip, normalise=False)
    if isinstance(subject, SoftPrompt):
        context = (subject.context, names, subject.position, subject.deep_context)
        features = encoder.encode_context(*context, keep_underscores=keep_underscores)
    elif average_raw:  # over names first, so that each template has the same weight
        parts = (_fill(encoder, names, template, keep_underscores) for template in subject)
        return reduce(torch.add, (F.normalize(sums(part), dim=1) for part in parts))
    else:
        features = encode_templates(encoder, names, subject, keep_underscores)
    return features if len(names) == len(groups) else sums(features)


def _load_safetensors(path: Path) -> tuple[Tensor, list[str], dict[str, Any], Background | None]:
    tensors, metadata = read_safetensors(path)
    names = metadata.pop("names", None)
    if "weight" not in tensors or not isinstance(names, list):
        raise UserError(f"{path} holds no tensor 'weight' with a list 'names'; it is not a classifier file")
    background = None
    if "background" in tensors:
        notes = metadata.pop("background", None)
        background = Background.from_notes(tensors["background"], notes, path, tensors.get("kinds"), len(names))
    return tensors["weight"], names, content_metadata(tensors["weight"], metadata), background


def load_matrix(path: Path) -> tuple[Tensor, list[str], dict[str, Any]]:
    """Rows (N, E) float32 of a ``.npy``, of any norm, with names and provenance from ``NAME.names.json`` next to it.

    Where that does not say which CLIP made them, the metadata say so for published matrices and what was made with
    their towers (:func:`prompt_core.towers.origin.recognise`).

    Raises:
        UserError: when the file is truncated or of another shape, or it or its ``.names.json`` is damaged.
    """
    matrix = read_npy(path)
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise UserError(f"{path}: a floating-point matrix (N, E) is expected, given {matrix.dtype} {matrix.shape}")
    rows = torch.from_numpy(matrix.astype(np.float32))
    if recognise(rows) is None and recognise(rows.T) is not None:
        raise UserError(
            f"{path} is a class matrix on its side, {matrix.shape}: one row per class is expected; save it as .T"
        )
    names = [f"class {row}" for row in range(len(matrix))]
    metadata: dict[str, Any] = {}
    names_file = path.with_suffix(".names.json")
    if names_file.is_file():
        notes = read_sealed_json(names_file)
        if not isinstance(notes, dict) or not isinstance(notes.get("names"), list):
            raise UserError(f"{names_file}: an object with a list 'names' is expected; mend or remove it")
        if notes.get("matrix_sha256", sha256_of_file(path)) != sha256_of_file(path):
            raise UserError(f"{path} is damaged: {names_file.name} is of a matrix of other bytes; build both again")
        names, metadata = notes["names"], dict(notes.get("metadata") or {})
    return rows, names, content_metadata(rows, metadata) | {"source": path.name}
