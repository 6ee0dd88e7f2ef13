"""The embedded detector's weights: where they start, and what is shipped."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from pomp_det import build_detector, load_weights
from pomp_engine.backbones.nanodet import NanoDet
from pomp_engine.config import value_of
from pomp_lab.mini_detector.seen_names import seen_names
from pomp_lab.shipped_weights import half_precision
from prompt_core.classifier import TextClassifier
from prompt_core.clip import load_clip
from prompt_core.errors import UserError
from prompt_core.files import read_safetensors, write_safetensors
from prompt_core.vocabulary import read_vocabulary

LEARNED = "roi_heads.mask_head."  # what the training adds


def start_weights(cfg: CfgNode, network: NanoDet, seed: int = 0) -> dict[str, Tensor]:
    """State dict of a detector that finds and names, with masks that are still random.

    Args:
        cfg: of ``configs/mini/detector.yaml``, whose vocabulary is that of the network's classes.
        network: trained for these classes.

    Raises:
        UserError: when ``MODEL.WORDS`` counts other classes or names.
    """
    vocabulary = read_vocabulary(cfg.MODEL.VOCABULARY)
    names, classes = seen_names(vocabulary.names)
    found = {"MODEL.WORDS.SEEN_CLASSES": len(vocabulary), "MODEL.WORDS.SEEN_NAMES": len(names)}
    for key, value in found.items():
        if value_of(cfg, key) != value:
            raise UserError(f"{key} is {value_of(cfg, key)}; {cfg.MODEL.VOCABULARY} has {value}")
    torch.manual_seed(seed)
    model: Any = build_detector(cfg)
    clip: Any = load_clip(cfg.MODEL.CLIP.NAME)
    tower = clip.model.visual
    backbone = model.backbone
    backbone.detection.load_state_dict(network.state_dict())
    trunk = {key: value for key, value in tower.trunk.state_dict().items() if not key.endswith("num_batches_tracked")}
    backbone.image_tower.load_state_dict(trunk)
    backbone.projection.load_state_dict(
        {"weight": tower.head.proj.weight[:, :, None, None], "bias": tower.head.proj.bias}
    )
    classifier = model.roi_heads.box_predictor[0].cls_score
    classifier.seen_words.copy_(TextClassifier.build(clip, names, cfg.MODEL.PROMPT).weight)
    classifier.seen_classes.copy_(torch.tensor(classes))
    state: dict[str, Tensor] = model.state_dict()
    return state


def finished_weights(cfg: CfgNode, start: Path, trained: Path) -> dict[str, Tensor]:
    """What is shipped: the start, with what was learned, in half precision.

    Args:
        start: file of :func:`start_weights`.
        trained: checkpoint of the training that began there.
    """
    model = build_detector(cfg)
    load_weights(model, trained)
    # The next file is loaded into the same tensors.
    learned = {key: value.clone() for key, value in model.state_dict().items() if key.startswith(LEARNED)}
    load_weights(model, start)
    return half_precision(model.state_dict() | learned)


def write_weights(state: dict[str, Tensor], path: Path, metadata: dict[str, Any]) -> None:
    """Write them with where they come from."""
    write_safetensors(path, {key: value.detach().contiguous() for key, value in state.items()}, metadata)


def write_background(cfg: CfgNode, output: Path) -> Path:
    """The features of the detector's background names, as the package keeps them: half precision.

    Returns:
        the file, which belongs into ``prompt_core/assets/backgrounds``.
    """
    clip = load_clip(cfg.MODEL.CLIP.NAME)
    background = cfg.MODEL.ROI_BOX_HEAD.BACKGROUND
    with tempfile.TemporaryDirectory() as folder:
        TextClassifier.build(clip, ["thing"], cfg.MODEL.PROMPT, background=background, cache=folder)
        (file,) = Path(folder).iterdir()
        tensors, notes = read_safetensors(file)
    write_safetensors(output / file.name, half_precision(tensors), notes)
    return output / file.name
