"""Linear probe: one linear layer on image features before their L2 norm, bound to its classes.

Upstream: POMP's ``trainers/mlp.py``, which is not an MLP, learned by SGD; in half precision there, in single here.
A class's row and bias of the layer are its "class feature", and a 1 is appended to image features, so that the probe
has the same interface as all methods, including sampled losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prompt_core.errors import UserError
from prompt_core.methods.base import Method, NamedRows, Reads, seeded
from prompt_core.text.encoder import class_names
from prompt_core.towers.placement import upload

if TYPE_CHECKING:
    from prompt_core.clip import Clip
    from prompt_core.vocabulary import Vocabulary


class LinearProbe(Method):
    """A layer E → N.

    Raises:
        UserError: no classes.
    """

    @dataclass(frozen=True)
    class Options:
        """The N classes, and the seed of the layer's first values, torch's own."""

        names: Sequence[str] = ()
        seed: int = 0

    reads: ClassVar[Reads] = "raw_features"
    options: Options

    def __init__(self, clip: Clip, name: str = "linear_probe", **options: Any) -> None:
        super().__init__(clip, name, **options)
        self.names = list(self.options.names)
        if not self.names:
            raise UserError(f"method {name} is bound to its classes, but none were given")
        with seeded(self.options.seed):
            self.layer = nn.Linear(clip.embed_dim, len(self.names))
        self._rows = NamedRows(self.names)

    @property
    def logit_scale(self) -> float:
        return 1.0

    def image_features(self, inputs: Tensor) -> Tensor:
        """(B, E + 1): outputs of the projection, and a 1."""
        return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)

    def class_features(
        self,
        vocabulary: Vocabulary | Sequence[str],
        rows: Tensor | None = None,
        image_features: Tensor | None = None,
        chunk_size: int | None = None,
        reference: bool = False,
    ) -> Tensor:
        """(n, E + 1) rows of the layer with their bias; not of unit norm."""
        names = class_names(vocabulary)
        features = torch.cat([self.layer.weight, self.layer.bias[:, None]], dim=1)  # (N, E + 1)
        if names != self.names:
            places = self._rows.find(names, f"method {self.name} was learned")
            features = features[upload(places, features.device)]
        return features if rows is None else features[upload(rows, features.device)]
