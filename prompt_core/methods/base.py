"""The interface of methods: options, what is learned, and how image and class features are computed.

The training loop, evaluation and reports know only this interface. The loss (full softmax, or local contrast with K
sampled classes) is a setting apart from the method: CoOp and POMP are one method with different losses. How to add a
method, inside the toolkit or outside: docs/add_a_method.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from prompt_core.config import keyword_options
from prompt_core.errors import UserError, nearest
from prompt_core.files import hash_tensors, plain_value, write_safetensors
from prompt_core.text.encoder import PromptedTextEncoder, class_names
from prompt_core.vocabulary import plain_name

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary

Reads = Literal["features", "raw_features", "images"]
LearnedBy = Literal["steps", "fit", "nothing"]


class Method(nn.Module):
    """Base of all methods.

    The frozen CLIP is an attribute, but not a submodule: parameters and state are only what is learned.

    Attributes:
        Options: a dataclass of what rebuilds the method together with the CLIP; written to its file. A field ``seed``
            is ``SEED``; a field ``names`` holds the classes, and a method that has some is bound to them.
        section: where a configuration has the other options: ``METHOD.<section>``, keys in capitals.
        reads: what :meth:`image_features` takes: unit-norm ``features`` (B, E) of the frozen tower, its
            ``raw_features`` before the L2 norm, or preprocessed ``images`` (B, 3, S, S).
        learned_by: ``steps`` of the training loop, a :meth:`fit` of its own, or ``nothing``.
        conditional: whether class features differ from image to image.
        name: its name in configurations and files.
        clip: the frozen model.
        options: its :attr:`Options`.
    """

    @dataclass(frozen=True)
    class Options:
        """No options."""

    section: ClassVar[str] = "OPTIONS"
    reads: ClassVar[Reads] = "features"
    learned_by: ClassVar[LearnedBy] = "steps"
    conditional: ClassVar[bool] = False
    options: Any

    def __init__(self, clip: Clip, name: str, **options: Any) -> None:
        super().__init__()
        self.name = name
        self.clip = clip
        self.options = self.Options(**options)

    @classmethod
    def from_config(cls, cfg: CfgNode, clip: Clip, name: str, vocabulary: Vocabulary | None, **more: Any) -> Method:
        """Build from a configuration.

        Args:
            vocabulary: the classes, for methods that are bound to them.
            more: options that are not in the method's section.

        Raises:
            UserError: settings that do not fit the method or the model.
        """
        fields = {field.name for field in dataclasses.fields(cls.Options)}
        if "seed" in fields:
            more["seed"] = cfg.SEED
        if "names" in fields and "names" not in more:
            if vocabulary is None:
                raise UserError(f"method {name} needs the classes; give DATA.TRAIN")
            more["names"] = vocabulary.names
        return cls(clip, name, **keyword_options(cfg, f"METHOD.{cls.section}", cls.Options, more), **more)

    @cached_property
    def encoder(self) -> PromptedTextEncoder:
        """Encodes class names. Raises UserError for text towers that are not supported."""
        return PromptedTextEncoder(self.clip)

    @property
    def logit_scale(self) -> float:
        """The factor of image features · class features."""
        return self.clip.logit_scale

    @property
    def device(self) -> torch.device:
        """Device of the learned parameters."""
        first = next(self.parameters(), None)
        return self.clip.device if first is None else first.device

    @property
    def bound_names(self) -> list[str] | None:
        """The class names that the method is bound to, or None when it takes any."""
        names = getattr(self.options, "names", None)
        return None if names is None else list(names)

    @property
    def state_module(self) -> nn.Module:
        """The module whose state dict is kept in training states and files."""
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For the optimiser; a key ``lr_scale`` multiplies the learning rate of its group after the warm-up."""
        return [{"params": list(self.parameters())}]

    def image_features(self, inputs: Tensor) -> Tensor:
        """(B, E) unit-norm features of what :attr:`reads` names, differentiable in what is learned."""
        return inputs

    def class_features(
        self,
        vocabulary: Vocabulary | Sequence[str],
        rows: Tensor | None = None,
        image_features: Tensor | None = None,
        chunk_size: int | None = None,
        reference: bool = False,
    ) -> Tensor:
        """Class features, differentiable in what is learned.

        Args:
            vocabulary: N class names.
            rows: (n,) int64, the classes that are needed; None for all.
            image_features: (B, E), needed by methods that are :attr:`conditional`.
            chunk_size: classes per pass, see :class:`PromptedTextEncoder`.
            reference: run all 77 tokens through open_clip's own tower.

        Returns:
            (n, E) unit-norm, or (B, n, E) where they are conditional.

        Raises:
            UserError: names that do not fit into the text tower, or that a bound method does not know.
        """
        raise NotImplementedError

    def regulariser(
        self, vocabulary: Vocabulary, rows: Tensor | None, class_features: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """A term that is added to the loss of a step, or None.

        Args:
            rows: (n,) classes of the step, None for all.
            class_features: (n, E), what :meth:`class_features` returned for them.
            generator: of the step; on the CPU.
        """
        return None

    def prepare(self, vocabulary: Vocabulary | Sequence[str]) -> None:
        """Compute what is constant over all steps; otherwise the first step does it."""
        return

    @property
    def validation_split(self) -> str:
        """For methods that are learned by :meth:`fit`: the split whose images choose its settings."""
        return "val"

    def fit(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        validation_features: np.ndarray,
        validation_labels: np.ndarray,
        report: Callable[[str], None] = print,
    ) -> dict[str, Any]:
        """Learn at once, on features of the frozen tower.

        Args:
            features: (n, E) as :attr:`reads` says.
            labels: (n,) rows of the method's classes.
            validation_features: (m, E).
            validation_labels: (m,).
            report: called with a line about each attempt.

        Returns:
            ``validation_accuracy`` in [0, 1], and anything else that the file should record about the fit.
        """
        raise NotImplementedError

    def logits(self, inputs: Tensor, vocabulary: Vocabulary | Sequence[str], chunk_size: int | None = None) -> Tensor:
        """(B, N) logits of a batch over all classes, for inputs as :attr:`reads` says."""
        images = self.image_features(inputs)
        classes = self.class_features(vocabulary, None, images, chunk_size).to(images.dtype)
        return class_logits(images, classes, self.logit_scale)

    def for_data_set(self, source: str) -> Method:
        """The method for scoring one data set; only hand-written templates differ between data sets."""
        return self

    def sha256(self) -> str:
        """Hash of the method, its options and its tensors."""
        options = dataclasses.asdict(self.options)
        digest = hashlib.sha256(json.dumps([self.name, options], sort_keys=True, default=plain_value).encode())
        hash_tensors(digest, self.state_module.state_dict())
        return digest.hexdigest()

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write ``method.safetensors``: the learned tensors, with metadata as JSON strings.

        Args:
            metadata: added to the method's name, options and the CLIP that it was learned with.
        """
        tensors = {key: value.detach().cpu().contiguous() for key, value in self.state_module.state_dict().items()}
        notes = {
            **metadata,
            "method": self.name,
            "options": dataclasses.asdict(self.options),
            "clip": self.clip.name,
            "pretrained": Path(self.clip.pretrained).name if self.clip.pretrained else None,
            "clip_sha256": self.clip.fingerprint,
        }
        write_safetensors(path, tensors, notes)

    def save_alone(self, folder: Path, **metadata: Any) -> Path | None:
        """Write what is learned as a file that is usable without the method, if there is one (a soft prompt)."""
        return None

    def identity(self) -> dict[str, Any]:
        """What a resumed run must agree in, in addition to the configuration's keys of the prompt and of learning."""
        options = {key: value for key, value in dataclasses.asdict(self.options).items() if key != "names"}
        return {"method": self.name, "options": options}

    def load_tensors(self, tensors: Mapping[str, Tensor], origin: str | Path) -> None:
        """Load what :meth:`save` wrote.

        Raises:
            UserError: tensors of other names or shapes, or that are not finite.
        """
        expected = self.state_module.state_dict()
        wrong = sorted({key for key in {*expected, *tensors} if key not in expected or key not in tensors})
        wrong += [key for key in expected if key in tensors and expected[key].shape != tensors[key].shape]
        if wrong:
            raise UserError(
                f"{origin} does not hold the tensors of method {self.name} for {self.clip.name} ({', '.join(wrong)} "
                "differ); use the CLIP that it was learned with"
            )
        if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
            raise UserError(f"{origin} holds numbers that are not finite; its training diverged")
        self.state_module.load_state_dict(dict(tensors))


def class_logits(image_features: Tensor, class_features: Tensor, logit_scale: float) -> Tensor:
    """(B, n) logits of (B, E) images under (n, E) classes, or under (B, n, E) ones of their own."""
    if class_features.dim() == 3:
        return logit_scale * (class_features @ image_features[:, :, None]).squeeze(2)
    return logit_scale * image_features @ class_features.T


def selected_names(vocabulary: Vocabulary | Sequence[str], rows: Tensor | None) -> list[str]:
    """Names of a vocabulary, or those at ``rows``."""
    names = class_names(vocabulary)
    return names if rows is None else [names[row] for row in rows.tolist()]


class NamedRows:
    """Rows that are found by the names of their classes; of several namesakes the first."""

    def __init__(self, names: Sequence[str]) -> None:
        self._count = len(names)
        self._row_of = {plain_name(name): row for row, name in reversed(list(enumerate(names)))}

    def find(self, names: Sequence[str], what: str) -> Tensor:
        """(n,) int64, the row of each name.

        Raises:
            UserError: a name that is not there; ``what`` begins the message.
        """
        rows = [self._row_of.get(plain_name(name)) for name in names]
        if None in rows:
            unknown = names[rows.index(None)]
            raise UserError(
                f"{what} without the class {unknown!r}, it knows its own {self._count} only"
                f"{nearest(plain_name(unknown), self._row_of)}"
            )
        return torch.tensor(rows, dtype=torch.long)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's own initialisations with ``seed``; the global generator of the CPU is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def random_vectors(*shape: int, seed: int, std: float = 0.02) -> Tensor:
    """Normal vectors with mean 0 and ``std`` (0.02 in all published trainers), by ``seed``."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std
