"""Memory that passes over a tower use again: fresh pages cost more than many an operation that fills them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes, a cache line
# glibc's malloc gives what is freed back to the system, unless a block of about this size was freed before: from then
# on it keeps blocks up to this size (mallopt(3), M_MMAP_THRESHOLD), and results of products find pages that are there.
KEPT_BLOCK = 31 * 2**20


class Workspace:
    """Lends the memory of one pass, and keeps the largest that came back for the next.

    On a GPU, torch's own allocator keeps memory, so nothing is kept here.
    """

    def __init__(self) -> None:
        self._spare: Tensor | None = None

    def lend(self, wanted: Sequence[tuple[Sequence[int], torch.dtype]], device: torch.device) -> Loan:
        """Tensors of these shapes and types, their values arbitrary, until nobody refers to the loan."""
        sizes = [-(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT for shape, dtype in wanted]
        if self._spare is None and device.type == "cpu":
            torch.empty(KEPT_BLOCK, dtype=torch.uint8)
        memory, self._spare = self._spare, None
        if memory is None or memory.numel() < sum(sizes) or memory.device != device:
            # An ordinary tensor even in inference mode, since training may be next to use it.
            with torch.inference_mode(False):
                memory = torch.empty(sum(sizes), dtype=torch.uint8, device=device)
        tensors, start = [], 0
        for (shape, dtype), size in zip(wanted, sizes, strict=True):
            used = memory[start : start + math.prod(shape) * dtype.itemsize]
            tensors.append(used.view(dtype).view(*shape))
            start += size
        return Loan(self, memory, tensors)

    def take_back(self, memory: Tensor) -> None:
        """Keep the memory of a loan that has ended, if it is the largest."""
        kept = self._spare
        if memory.device.type == "cpu" and (kept is None or kept.numel() < memory.numel()):
            self._spare = memory


class Loan:
    """Memory on loan; its ``tensors`` must not be used after it."""

    def __init__(self, workspace: Workspace, memory: Tensor, tensors: list[Tensor]) -> None:
        self._workspace, self._memory, self.tensors = workspace, memory, tensors

    def __del__(self) -> None:
        self._workspace.take_back(self._memory)
