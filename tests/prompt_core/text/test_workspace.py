"""Memory is lent to one pass at a time, and used again after it."""

from __future__ import annotations

import torch

from prompt_core.text.workspace import Workspace

CPU = torch.device("cpu")


def test_memory_comes_back_with_its_loan() -> None:
    workspace = Workspace()
    loan = workspace.lend([((3, 4), torch.float32), ((5,), torch.float64), ((2,), torch.bfloat16)], CPU)
    for number, tensor in enumerate(loan.tensors):
        tensor.fill_(number)
    assert [tensor.unique().tolist() for tensor in loan.tensors] == [[0], [1], [2]]
    place = loan.tensors[0].data_ptr()
    other = workspace.lend([((3,), torch.float32)], CPU)
    assert other.tensors[0].data_ptr() != place, "lent twice at once"
    del loan, other, tensor
    assert workspace.lend([((4,), torch.float64)], CPU).tensors[0].data_ptr() == place, "the larger is kept"


def test_memory_of_inference_can_be_learned_in() -> None:
    workspace = Workspace()
    with torch.inference_mode():
        workspace.lend([((3,), torch.float32)], CPU)
    tensor = workspace.lend([((3,), torch.float32)], CPU).tensors[0]
    tensor.zero_()
    assert not tensor.is_inference()
