"""A model ready to be exported: tensors in, tensors out, with examples that say which sizes are free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prompt_core.errors import UserError

TOLERANCE = 1e-4  # of the largest value of an output, or of 1


@dataclass(frozen=True)
class Graph:
    """A model as other programs run it.

    Attributes:
        module: takes the inputs by position, and gives a tuple of tensors.
        inputs: an example of each input, by its name, in order.
        others: further inputs of other sizes, which exported files are checked with.
        free: the dimensions of an input that may have any size.
        outputs: names.
        unordered: the output whose rows say which row of the outputs is which, where their order is left to rounding.
        notes: what the file says of itself: preprocessing, names, provenance.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    others: Mapping[str, Tensor]
    free: Mapping[str, Sequence[int]]
    outputs: Sequence[str]
    unordered: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def expected(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of the module itself."""
        with torch.no_grad():
            return dict(zip(self.outputs, self.module(*inputs.values()), strict=True))

    def traced(self) -> torch.export.ExportedProgram:
        """The module as a program of ``torch.export``.

        Raises:
            UserError: when its control flow depends on values that tracing does not know.
        """
        sizes = {
            name: dict.fromkeys(self.free[name], torch.export.Dim.DYNAMIC) if self.free.get(name) else None
            for name in self.inputs
        }
        try:
            with torch.no_grad():
                return torch.export.export(
                    self.module, tuple(self.inputs.values()), dynamic_shapes=tuple(sizes.values()), strict=False
                )
        except Exception as error:  # tracing fails in as many ways as models are written
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(f"torch.export cannot trace this model: {reason.strip()[:300]}") from error

    def check(self, outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor], what: str) -> float:
        """The largest difference between given outputs and the module's, over the largest value of an output or 1.

        Raises:
            UserError: when it is more than :data:`TOLERANCE`, or a shape differs.
        """
        expected, worst = self.expected(inputs), 0.0
        given = dict(outputs)
        if self.unordered:
            given = _in_order_of(given, expected, self.unordered, what)
        for name, wanted in expected.items():
            if given[name].shape != wanted.shape:
                shapes = f"{tuple(given[name].shape)}, {tuple(wanted.shape)} was expected"
                raise UserError(f"{what} gives {name} of shape {shapes}; nothing was written")
            if wanted.numel():
                scale = max(1.0, float(wanted.abs().max()))
                difference = (given[name].double() - wanted.double()).abs() / scale
                worst = max(worst, float(difference.nan_to_num(nan=torch.inf).max()))
        if worst > TOLERANCE:
            raise UserError(
                f"{what} differs from the model by {worst:.2g} ({TOLERANCE:g} at most); nothing was written"
            )
        return worst


def _in_order_of(given: dict[str, Tensor], expected: Mapping[str, Tensor], name: str, what: str) -> dict[str, Tensor]:
    """Outputs with their rows in the order of the expected ones."""
    if given[name].shape != expected[name].shape:
        raise UserError(f"{what} finds {len(given[name])} {name} where the model finds {len(expected[name])}")
    if not len(expected[name]):
        return given
    rows = torch.cdist(expected[name].double(), given[name].double()).argmin(dim=1)
    return {key: value[rows] for key, value in given.items()}
