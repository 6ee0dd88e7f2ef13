"""Copies to the device of a model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def upload(values: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """The values on a device. A copy to a GPU goes through pinned memory, so that the host does not wait for it."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
