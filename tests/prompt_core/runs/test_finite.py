"""States that are not finite are found before they are written, however deep they hold the number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prompt_core import UserError
from prompt_core.runs.finite import first_not_finite, refuse_not_finite


@given(place=st.integers(0, 5), value=st.sampled_from([float("nan"), float("inf"), float("-inf")]))
def test_the_tensor_is_named(place: int, value: float) -> None:
    moments = [torch.zeros(2, 3) for _ in range(6)]
    state = {
        "prompt": torch.ones(3),
        "optimizer": {"state": moments, "lr": 0.1, "no": None, "step": torch.tensor(3)},
    }
    assert first_not_finite(state) is None
    moments[place][1, 2] = value
    assert first_not_finite(state) == f"optimizer.state.{place}"
    with pytest.raises(UserError, match=rf"optimizer.state.{place} holds NaN .* and model_last.pth stands; lower RATE"):
        refuse_not_finite(state, "RATE", "model_last.pth")
