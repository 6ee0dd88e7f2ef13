"""Before a state replaces an earlier one: are its numbers finite?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prompt_core.errors import UserError


def first_not_finite(state: Any, name: str = "") -> str | None:
    """The first tensor or number that holds NaN or infinity.

    Args:
        state: mappings, lists and tuples of tensors, nested as an optimiser's state is; anything else counts as finite.
        name: of the state itself; the answer begins with it.

    Returns:
        its name, with dots; None where all are finite.
    """
    if isinstance(state, Mapping):
        parts = [(f"{name}.{key}" if name else str(key), value) for key, value in state.items()]
    elif isinstance(state, (list, tuple)):
        parts = [(f"{name}.{place}", value) for place, value in enumerate(state)]
    elif isinstance(state, Tensor):
        return None if bool(torch.isfinite(state).all()) else name
    else:
        return None
    return next((found for part, value in parts if (found := first_not_finite(value, part)) is not None), None)


def refuse_not_finite(state: Any, lower: str, stands: str = "") -> None:
    """Refuse to write a state whose numbers are not finite.

    Args:
        state: as :func:`first_not_finite` takes it.
        lower: the setting of the learning rate, for the message.
        stands: what remains of the run, such as ``the state of epoch 3``.

    Raises:
        UserError: naming the first tensor that is not finite.
    """
    found = first_not_finite(state)
    if found is not None:
        raise UserError(
            f"training diverged: {found} holds NaN or infinity, so nothing was written"
            + (f" and {stands} stands" if stands else "")
            + f"; lower {lower}, and start again in another --output"
        )
