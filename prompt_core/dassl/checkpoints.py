"""Checkpoints of trainers on Dassl, in its folders: what was learned, under this toolkit's names.

A run's folder holds one folder for each model that the trainer registers: ``prompt_learner`` (CoOp, CoCoOp, VPT, POMP),
``MultiModalPromptLearner`` (MaPLe) or ``VLPromptLearner`` (IVLP, PromptSRC). In it are ``model.pth.tar-EPOCH``, perhaps
``model-best.pth.tar``, and ``checkpoint``, a text that names the last file written. A file is a dictionary of
``state_dict``, ``epoch``, ``optimizer``, ``scheduler`` and ``val_result``. (Dassl, ``dassl/engine/trainer.py``,
``dassl/utils/torchtools.py``.)

Entries of ``state_dict``; L, M tokens, D, W, E widths of text, vision and joint space, J blocks, N classes:

============ =========================================================================================================
CoOp, POMP   ``ctx`` (L, D) or (N, L, D)
CoCoOp       ``ctx`` (L, D), ``meta_net.linear1.weight`` (E / 16, E) and ``.bias``, ``meta_net.linear2.weight``
             (D, E / 16) and ``.bias``
MaPLe        ``prompt_learner.ctx`` (M, D), ``.proj.weight`` (W, D) and ``.bias``; for i from 0 to J - 2:
             ``.compound_prompts_text.i`` (M, D), ``.compound_prompt_projections.i.weight`` (W, D) and ``.bias``
VPT          ``image_encoder.VPT`` (M, W); for i from 1 to J - 1:
             ``image_encoder.transformer.resblocks.i.VPT_shallow`` (M, W)
IVLP         those of VPT, ``prompt_learner.ctx`` (M, D), ``text_encoder.transformer.resblocks.i.VPT_shallow`` (M, D)
all          ``token_prefix`` (N, 1, D), ``token_suffix`` (N, 76 - L, D), POMP's with ``train_`` and ``test_`` before
============ =========================================================================================================

The last four have all of CLIP in their files, as ``image_encoder``, ``text_encoder`` and ``logit_scale``. MaPLe's first
layer is in half precision, its others are in single. (``trainers/`` of ``KaiyangZhou/CoOp`` at ff61507,
``muzairkhattak/multimodal-prompt-learning`` at 69bce21, ``muzairkhattak/PromptSRC`` at bb95c77,
``amazon-science/prompt-pretraining`` at 24bca56.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.safe_load import load_restricted

BEST, LAST = "model-best.pth.tar", "checkpoint"
_EPOCH = re.compile(r"model\.pth\.tar-(\d+)")
_BUFFER = re.compile(r"(train_|test_)?token_(prefix|suffix)")
_FROZEN = ("image_encoder", "text_encoder", "ZS_image_encoder", "logit_scale")
_MOST_VECTORS = 75  # of a context in 77 tokens; a bare tensor of more rows is features of classes
_DEEP = re.compile(r"(image|text)_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow")


@dataclass(frozen=True)
class Learned:
    """What a checkpoint holds.

    Attributes:
        method: ``coop`` (POMP's too), ``cocoop``, ``maple``, ``vpt`` or ``ivlp``.
        tensors: float32, by the names in the state of that method.
        options: those options of the method that shapes tell.
        clip_parts: tensors that must be those of the CLIP it is used with: parts of ``image_encoder`` and
            ``text_encoder`` by their names in it, ``token_prefix`` and ``token_suffix`` of a few classes.
    """

    method: str
    tensors: dict[str, Tensor]
    options: dict[str, Any]
    clip_parts: dict[str, Tensor]


def checkpoint_file(path: str | Path) -> Path:
    """The file itself, or that of a run's folder: the best epoch where one is marked, else the last.

    Raises:
        UserError: a folder without a checkpoint, or with those of several models.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    folders = [folder for folder in (path, *sorted(path.iterdir())) if folder.is_dir() and _choose(folder)]
    if len(folders) != 1:
        found = ", ".join(str(folder) for folder in folders) or "none"
        raise UserError(f"{path} is a folder; one with checkpoints ({BEST}, model.pth.tar-EPOCH) is expected: {found}")
    return folders[0] / _choose(folders[0])


def _choose(folder: Path) -> str:
    """Name of the file in a model's folder; empty for none."""
    if (folder / BEST).is_file():
        return BEST
    if (folder / LAST).is_file():
        last = Path((folder / LAST).read_text(encoding="utf-8", errors="replace").strip()).name
        if last and (folder / last).is_file():
            return last
    epochs = [match for file in folder.iterdir() if (match := _EPOCH.fullmatch(file.name))]
    return max(epochs, key=lambda match: int(match[1])).string if epochs else ""


def read_checkpoint(path: str | Path) -> Learned:
    """Read a checkpoint with a restricted unpickler, in half or single precision.

    A leading ``module.`` (of DataParallel) is dropped. Buffers of token embeddings may be absent.

    Raises:
        UserError: an absent or truncated file, or one whose tensors are of none of these trainers.
    """
    path = Path(path)
    checkpoint = load_restricted(path)
    if isinstance(checkpoint, Tensor) and checkpoint.dim() == 2 and len(checkpoint) <= _MOST_VECTORS:
        checkpoint = {"ctx": checkpoint}  # DetPro's NAME_prompt.pth (dyabel/detpro, prompt/trainer.py)
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    tensors = state.items() if isinstance(state, Mapping) else ()
    named = {str(key).removeprefix("module."): value for key, value in tensors if isinstance(value, Tensor)}
    learned, clip_parts = {}, {}
    for key, value in named.items():
        inner = key.removeprefix("prompt_learner.")
        if _BUFFER.fullmatch(inner):
            clip_parts[inner.removeprefix("train_").removeprefix("test_")] = value[:8]
        elif key == "image_encoder.VPT" or _DEEP.fullmatch(key):
            learned[key] = value.float()
        elif inner.startswith(_FROZEN):
            clip_parts[inner] = value
        else:
            learned[inner] = value.float()
    method = _method_of(learned)
    if method is None:
        contexts = sum(key.split(".")[-1] == "ctx" and value.dim() in (2, 3) for key, value in learned.items())
        raise UserError(
            f"{path} holds {contexts} context tensors named 'ctx' of shape (L, D) or (N, L, D); one was expected, or a "
            "checkpoint of CoOp, POMP, CoCoOp, MaPLe, VPT, IVLP or PromptSRC"
        )
    try:
        ours, options = _OURS[method](learned)
    except (KeyError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{path} is a checkpoint of {method}, but its tensors do not belong together: {error}"
        ) from error
    return Learned(method, ours, options, clip_parts)


def _method_of(learned: Mapping[str, Tensor]) -> str | None:
    contexts = [key for key, value in learned.items() if key.split(".")[-1] == "ctx" and value.dim() in (2, 3)]
    if any(key.startswith("meta_net.") for key in learned):
        return "cocoop"
    if any(key.startswith(("proj.", "compound_prompt")) for key in learned):
        return "maple"
    if any(key == "image_encoder.VPT" or _DEEP.fullmatch(key) for key in learned):
        return "ivlp" if "ctx" in learned else "vpt"
    return "coop" if len(contexts) == 1 else None


def _coop(learned: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    (context,) = (value for key, value in learned.items() if key.split(".")[-1] == "ctx" and value.dim() in (2, 3))
    return {"context": context}, {"n_ctx": context.shape[-2]}


def _cocoop(learned: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    ours = {"text_context": learned["ctx"]}
    for place, layer in ((0, "linear1"), (2, "linear2")):
        for part in ("weight", "bias"):
            ours[f"meta_net.{place}.{part}"] = learned[f"meta_net.{layer}.{part}"]
    hidden, width = learned["meta_net.linear1.weight"].shape
    reduction = 16 if width // 16 == hidden else width // hidden
    return ours, {"n_ctx": len(learned["ctx"]), "init": "", "reduction": reduction}


def _maple(learned: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    context = learned["ctx"]  # (M, D)
    deeper = sum(key.startswith("compound_prompts_text.") for key in learned)
    ours = {"text_context": context}
    ours["deep_text_context"] = _stacked([learned[f"compound_prompts_text.{i}"] for i in range(deeper)], context)
    layers = ["proj", *(f"compound_prompt_projections.{i}" for i in range(deeper))]
    for place, layer in enumerate(layers):
        for part in ("weight", "bias"):
            ours[f"to_vision.{place}.{part}"] = learned[f"{layer}.{part}"]
    return ours, {"n_ctx": len(context), "depth": 1 + deeper}


def _vpt(learned: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tokens = torch.stack([learned["image_encoder.VPT"], *_deep(learned, "image")])
    return {"tokens": tokens}, {"tokens": tokens.shape[1], "depth": len(tokens)}


def _ivlp(learned: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    context, deep = learned["ctx"], _deep(learned, "text")
    ours = {"text_context": context, "deep_text_context": _stacked(deep, context)}
    options = {"n_ctx": len(context), "depth": 1 + len(deep), "tokens": 0}
    if "image_encoder.VPT" in learned:
        vision, of_vision = _vpt(learned)
        ours |= vision
        options |= {"tokens": of_vision["tokens"], "vision_depth": of_vision["depth"]}
    return ours, options


def _deep(learned: dict[str, Tensor], tower: str) -> list[Tensor]:
    """Tokens of blocks 1, 2, ... of a tower."""
    count = sum(key.startswith(f"{tower}_encoder.transformer.") for key in learned)
    return [learned[f"{tower}_encoder.transformer.resblocks.{i}.VPT_shallow"] for i in range(1, count + 1)]


def _stacked(parts: list[Tensor], like: Tensor) -> Tensor:
    """(J - 1, M, D), also of none."""
    return torch.stack(parts) if parts else like.new_zeros(0, *like.shape)


_OURS: dict[str, Any] = {"coop": _coop, "cocoop": _cocoop, "maple": _maple, "vpt": _vpt, "ivlp": _ivlp}
