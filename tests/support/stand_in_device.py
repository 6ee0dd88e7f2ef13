"""A stand-in for a GPU, where there is none: tensors that say they are on a device of their own, and have values.

Every operation on them is computed on the CPU, so that a model on this device has to give what it gives on the CPU. On
the way an operation is refused that mixes devices where CUDA refuses it, and each place is counted at which the host
would wait for a GPU. The device is not CUDA, whose autograd aborts where torch is built without it, but one that is
registered for this. It stays registered, and autograd makes its threads in the first backward pass of a process, so
this is for programs of their own.

What CUDA refuses: most operations take tensors of one device (``c10/core/Device``'s common-device check); those of
single elements also numbers of the CPU, tensors without dimensions (``TensorIterator``); indices may come from the CPU
(``IndexingUtils.h``). What waits is what ``torch.cuda.set_sync_debug_mode`` reports: whatever the host reads, what has
a size that depends on values, and copies from memory that is not pinned.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

NAME = "stand_in"
ROOT = Path(__file__).resolve().parents[2]

# Operations whose result has a size that the host must know, or that look at values themselves.
LOOKS_AT_VALUES = {
    "_linalg_check_errors", "_unique2", "bincount", "equal", "masked_select", "multinomial", "nms", "nonzero",
    "unique_consecutive", "unique_dim",
}  # fmt: skip
COPIES = {"copy_", "_to_copy"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
FILLED = {"index_fill", "index_fill_", "masked_fill", "masked_fill_"}
TAKE_NUMBERS = FILLED | {"fill", "fill_", "where"}  # besides those that torch calls pointwise
# It copies from pinned memory where there is a GPU.
PINNED = ("prompt_core/towers/placement.py", "upload")


class MixedDevices(RuntimeError):
    """What CUDA refuses."""


@dataclass(frozen=True, order=True)
class Wait:
    """A place at which the host waits for the device.

    Attributes:
        file: of this project, from its root; empty where none is on the way, as in torch's own backward passes.
        function: in it.
        through: the function of another package in between, if any.
        why: the operation; ``read`` and ``write`` are copies from and to the device.
    """

    file: str
    function: str
    through: str
    why: str

    def __str__(self) -> str:
        through = f" via {self.through}" if self.through else ""
        return f"{self.file} {self.function}{through}: {self.why}"


class There(Tensor):
    """A tensor on the device; :attr:`held` has its values."""

    held: Tensor
    from_number: bool = False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        device = torch.device(NAME, 0)
        with torch.inference_mode(False):  # in that mode torch has ways for views that subclasses cannot go
            result: There = Tensor._make_wrapper_subclass(cls, held.shape, device=device, **layout)
        result.held = held
        return result

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of the stand-in")

    def tolist(self) -> Any:
        return self.cpu().tolist()  # torch's own refuses subclasses

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __deepcopy__(self, memo: Any) -> Any:
        copied: Tensor = There(self.held.clone())
        memo[id(self)] = nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().cpu().__reduce_ex__(protocol)  # files hold it as if it had been on the CPU


class StandIn(TorchDispatchMode):
    """Within it there is the device ``stand_in``; :attr:`waits` counts how often the host waited, and where."""

    now: ClassVar[StandIn]

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[Wait] = Counter()
        StandIn.now = self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        makes = any(isinstance(leaf, torch.device) and leaf.type == NAME for leaf in leaves)
        if not makes and not any(isinstance(leaf, There) for leaf in leaves):
            return func(*args, **kwargs)
        if func._can_decompose():  # in inference mode, where nothing has done it before
            with self:
                return func.decompose(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        _refuse_mixed(func, name, leaves)
        for why in _reasons_to_wait(name, args, kwargs, makes):
            self.wait(why)
        given = {**kwargs, "pin_memory": False} if "pin_memory" in kwargs else kwargs
        result = func(*tree_map(_held, args), **tree_map(_held, given))
        if name == "copy_" and not isinstance(args[0], There):
            return args[0]
        if "device" in kwargs and not makes and kwargs["device"] is not None:
            return result  # on the CPU
        result = tree_map(lambda leaf: There(leaf) if isinstance(leaf, Tensor) else leaf, result)
        if name == "scalar_tensor":
            result.from_number = True
        return return_and_correct_aliasing(func, args, kwargs, result)

    def wait(self, why: str) -> None:
        """Count that the host waits for the device, with the place in this project that the running call comes from."""
        frame, through, place = sys._getframe(1), "", ("", "")
        while frame.f_back is not None:
            frame = frame.f_back
            file = frame.f_code.co_filename
            if "site-packages" in file:
                named = re.search(r"/site-packages/torch(vision)?/", file) is None
                through = through or (frame.f_code.co_qualname if named else "")
            elif file.startswith(str(ROOT)) and file != __file__:
                place = file[len(str(ROOT)) + 1 :], frame.f_code.co_qualname.replace(".<locals>", "")
                break
        if why != "write" or place != PINNED:
            self.waits[Wait(*place, through, why)] += 1


def _held(leaf: Any) -> Any:
    if isinstance(leaf, torch.device) and leaf.type == NAME:
        return torch.device("cpu")
    return leaf.held if isinstance(leaf, There) else leaf


def _refuse_mixed(func: Any, name: str, leaves: list[Any]) -> None:
    """Raise MixedDevices for what CUDA refuses."""
    if any(isinstance(leaf, torch.Generator) and leaf.device.type == "cpu" for leaf in leaves):
        raise MixedDevices(f"{func} on the device draws from a generator of the CPU")
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    strangers = [tensor for tensor in tensors if not isinstance(tensor, There)]
    if not strangers or len(strangers) == len(tensors) or name in COPIES:
        return
    if name in INDEXED:
        values = tensors[-1] if "put" in name else tensors[0]
        allowed = isinstance(tensors[0], There) and (isinstance(values, There) or values.dim() == 0)
    else:
        takes_numbers = name in TAKE_NUMBERS or torch.Tag.pointwise in func.tags
        changes_stranger = func._schema.is_mutable and not isinstance(tensors[0], There)
        allowed = takes_numbers and not changes_stranger and all(tensor.dim() == 0 for tensor in strangers)
    if not allowed:
        shapes = ", ".join(f"{tuple(tensor.shape)} on {tensor.device.type}" for tensor in tensors)
        raise MixedDevices(f"{func} takes tensors of two devices: {shapes}")


def _reasons_to_wait(name: str, args: Any, kwargs: dict[str, Any], makes: bool) -> Iterator[str]:
    """Why the host waits, once for each time."""
    if name in LOOKS_AT_VALUES or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        yield name
    elif name == "_local_scalar_dense" or (name in FILLED and isinstance(args[-1], There)):
        yield "item"
    elif name in COPIES:
        source = args[1] if name == "copy_" else args[0]
        there = isinstance(args[0], There) if name == "copy_" else makes or not kwargs.get("device")
        at_once = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,)))
        if isinstance(source, There) and not there:
            yield "read"
        elif not isinstance(source, There) and there and at_once:
            yield "write"
    elif name in INDEXED:
        indices = [index for index in args[1] if index is not None]
        masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
        # A mask that a number is put at is filled.
        number = "put" in name and (args[2].from_number if isinstance(args[2], There) else args[2].dim() == 0)
        if not (number and len(indices) == len(masks) == 1 and isinstance(masks[0], There)):
            yield from ("mask" for mask in masks if isinstance(mask, There))
            yield from ("write" for index in indices if not isinstance(index, There))


def register() -> None:
    """Make the device known to torch, before the first backward pass of the process."""
    module = backend_registration._DummyBackendModule()
    module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]  # type: ignore[attr-defined]
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
    # torch.tensor and indices that are lists work below all modes.
    _kernels.impl("empty_strided", _empty_strided, "PrivateUse1")
    _kernels.impl("_copy_from", _copy_from, "PrivateUse1")
    _kernels.impl("_local_scalar_dense", _item, "PrivateUse1")


_kernels = torch.library.Library("aten", "IMPL")


def _empty_strided(size: Any, stride: Any, dtype: Any = None, **rest: Any) -> Tensor:
    return There(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, to: There, non_blocking: bool = False) -> Tensor:
    StandIn.now.wait("write")
    to.held.copy_(source)
    return to


def _item(number: There) -> Any:
    StandIn.now.wait("item")
    return number.held.item()
