"""Frozen batch-norms as part of the convolutions before them: the same function in half the passes over memory."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn

from pomp_engine.backbones.efficientnet_lite import FrozenNormAct


@torch.no_grad()
def folded(module: nn.Module) -> nn.Module:
    """A copy of a frozen EfficientNet of timm whose convolutions do what the batch-norms behind them did.

    timm names each convolution right before its norm, and calls them in that order.
    """
    result: Any = copy.deepcopy(module)
    for parent in list(result.modules()):
        children = list(parent.named_children())
        for (_, convolution), (name, norm) in itertools.pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, FrozenNormAct):
                factor = norm.weight * (norm.running_var + norm.eps).rsqrt()  # (C,)
                shift = norm.bias - norm.running_mean * factor
                bias = shift if convolution.bias is None else shift + factor * convolution.bias
                convolution.weight.mul_(factor[:, None, None, None])
                convolution.bias = nn.Parameter(bias, requires_grad=False)
                setattr(parent, name, norm.act)
    made: nn.Module = result.to(memory_format=torch.channels_last)
    return made


class FoldedCopy:
    """Keeps the :func:`folded` copy of a frozen module, and makes it anew when the module's tensors have changed.

    The copy is no part of the module and of its state dict.
    """

    def __init__(self) -> None:
        self._made: tuple[list[tuple[Tensor, int, int]], nn.Module] | None = None

    def __call__(self, module: nn.Module) -> Any:
        """The copy for the module as it is now."""
        if torch.compiler.is_compiling():  # tensors have no values yet that could be compared; the function is the same
            return module
        # A move to another device or type changes where the values are, and everything else in place counts a version;
        # tensors made in inference mode cannot change, and do not count.
        tensors = [*module.parameters(), *module.buffers()]
        now = [(tensor, 0 if tensor.is_inference() else tensor._version, tensor.data_ptr()) for tensor in tensors]
        if self._made is not None and len(now) == len(self._made[0]):
            pairs = zip(now, self._made[0], strict=True)
            if all(one[0] is other[0] and one[1:] == other[1:] for one, other in pairs):
                return self._made[1]
        with torch.inference_mode(False):
            self._made = now, folded(module)
        return self._made[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> FoldedCopy:
        return FoldedCopy()
