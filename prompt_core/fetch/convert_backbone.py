"""A backbone as its authors publish it, written as Detectron2 and Detic expect one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from prompt_core.errors import UserError
from prompt_core.files import atomic_path


def convert_backbone(source: Path, target: Path) -> int:
    """Write the state dict of ``source`` (``.pth``) as a ``.pkl`` of arrays whose keys are matched by their endings.

    The format is that of Detectron2's backbones (``model``, ``__author__``, ``matching_heuristics``); Detic's converter
    (tools/convert-thirdparty-pretrained-model-to-d2.py) pickles tensors of torch in the place of the arrays.

    Returns:
        The number of arrays.

    Raises:
        UserError: when the source is absent, damaged, or holds no tensors.
    """
    from torch import Tensor

    from prompt_core.safe_load import load_restricted

    loaded: Any = load_restricted(source)
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    tensors = (
        {key: value for key, value in loaded.items() if isinstance(value, Tensor)} if isinstance(loaded, dict) else {}
    )
    if not tensors:
        raise UserError(f"{source} holds no tensors; the weights of a backbone are expected")
    arrays = {key: value.numpy() for key, value in tensors.items()}
    with atomic_path(target) as temporary, open(temporary, "wb") as stream:
        pickle.dump({"model": arrays, "__author__": "third_party", "matching_heuristics": True}, stream, protocol=4)
    return len(arrays)
