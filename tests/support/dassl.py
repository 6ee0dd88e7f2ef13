"""Checkpoints as the trainers on Dassl write them, of a tiny CLIP: their entries, files and folders."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prompt_core.clip import Clip

FOLDERS = {
    "coop": "prompt_learner",
    "cocoop": "prompt_learner",
    "maple": "MultiModalPromptLearner",
    "vpt": "prompt_learner",
    "ivlp": "VLPromptLearner",
}


def tokens_of(clip: Clip, names: Sequence[str], words: str) -> Tensor:
    """(N, 77) ids of "WORDS name."; the words are X X ... where context starts from random vectors."""
    return torch.as_tensor(clip.tokenizer([f"{words} {name.replace('_', ' ')}." for name in names]))


def entries(name: str, clip: Clip, n_ctx: int = 4, depth: int = 3, words: str = "") -> OrderedDict[str, Tensor]:
    """What is learned, at random, under the published names, in half precision but for what stays in single."""
    generator = torch.Generator().manual_seed(11)
    width, vision = int(clip.model.ln_final.weight.shape[0]), int(clip.model.visual.class_embedding.shape[0])  # type: ignore[union-attr, operator]

    def vectors(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.5

    learned: OrderedDict[str, Tensor] = OrderedDict()
    inner = "prompt_learner." if name in ("maple", "ivlp") else ""
    if name != "vpt":
        learned[f"{inner}ctx"] = vectors(n_ctx, width).half()
    if name == "cocoop":
        hidden = clip.embed_dim // 16
        learned["meta_net.linear1.weight"] = vectors(hidden, clip.embed_dim).half()
        learned["meta_net.linear1.bias"] = (vectors(hidden) + 1).half()
        learned["meta_net.linear2.weight"] = vectors(width, hidden).half()
        learned["meta_net.linear2.bias"] = vectors(width).half()
    if name == "maple":
        learned[f"{inner}proj.weight"], learned[f"{inner}proj.bias"] = (
            vectors(vision, width).half(),
            vectors(vision).half(),
        )
        for index in range(depth - 1):
            learned[f"{inner}compound_prompts_text.{index}"] = vectors(n_ctx, width)
            learned[f"{inner}compound_prompt_projections.{index}.weight"] = vectors(vision, width)
            learned[f"{inner}compound_prompt_projections.{index}.bias"] = vectors(vision)
    if name in ("vpt", "ivlp"):
        learned["image_encoder.VPT"] = vectors(n_ctx, vision)
        for index in range(1, depth):
            learned[f"image_encoder.transformer.resblocks.{index}.VPT_shallow"] = vectors(n_ctx, vision)
            if name == "ivlp":
                learned[f"text_encoder.transformer.resblocks.{index}.VPT_shallow"] = vectors(n_ctx, width)
    return learned


def frozen(name: str, clip: Clip, names: Sequence[str], n_ctx: int, words: str) -> OrderedDict[str, Tensor]:
    """Buffers of token embeddings, and where a trainer saves its whole model also CLIP's towers, in half precision."""
    inner = "prompt_learner." if name in ("maple", "ivlp") else ""
    rest: OrderedDict[str, Tensor] = OrderedDict()
    if name != "vpt":
        embedded = clip.model.token_embedding(tokens_of(clip, names, words)).detach().half()  # type: ignore[operator]
        rest[f"{inner}token_prefix"], rest[f"{inner}token_suffix"] = embedded[:, :1], embedded[:, 1 + n_ctx :]
    if name in ("maple", "vpt", "ivlp"):
        for key, value in clip.model.visual.state_dict().items():  # type: ignore[union-attr]
            rest[f"image_encoder.{key}"] = value.half()
        for key, value in clip.model.state_dict().items():
            if not key.startswith(("visual.", "token_embedding.")) and key != "logit_scale":
                rest[f"text_encoder.{key}"] = value.half()
        rest["logit_scale"] = clip.model.logit_scale.detach()  # type: ignore[union-attr, operator]
    return rest


def save_run(
    folder: Path, model: str, state: OrderedDict[str, Any], epoch: int = 50, best: bool = False, prefix: str = ""
) -> Path:
    """A run's folder with one checkpoint of ``model``, and the text that names it; gives the checkpoint's path."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.002, momentum=0.9)
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    checkpoint = {
        "state_dict": OrderedDict((prefix + key, value) for key, value in state.items()),
        "epoch": epoch,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"successor": successor, "warmup_epoch": 1, "cons_lr": 1e-5, "last_epoch": epoch},
        "val_result": np.float64(71.9),
    }
    path = folder / model / ("model-best.pth.tar" if best else f"model.pth.tar-{epoch}")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    (path.parent / "checkpoint").write_text(f"{path.name}\n")
    return path
