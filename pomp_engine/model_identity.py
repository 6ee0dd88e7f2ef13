"""What tells a model from another: its weights and its settings."""

from __future__ import annotations

import hashlib

import torch
from detectron2.config import CfgNode
from torch import nn

from prompt_core.files import hash_tensors, sha256_of_json
from prompt_core.runs.identity import identity_of


def model_identity(model: nn.Module, cfg: CfgNode) -> dict[str, str]:
    """Digests of a model's weights and of its settings; where its weights lie does not matter."""
    digest = hashlib.sha256()
    hash_tensors(digest, {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)})
    settings = identity_of(cfg, free=("MODEL.WEIGHTS", "OUTPUT_DIR"))
    return {"weights": digest.hexdigest(), "configuration": sha256_of_json(settings)}
