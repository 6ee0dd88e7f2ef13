"""The form of the weights that the package ships."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with its floating-point tensors in half precision, detached and contiguous; others as they are."""
    return {
        key: value.detach().half().contiguous() if value.is_floating_point() else value for key, value in state.items()
    }
