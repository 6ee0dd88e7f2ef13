"""Scoring methods on image sets: class features for each set's vocabulary, image features by the method's own tower."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from prompt_core.errors import UserError
from prompt_core.evaluation.evaluate import TestSet
from prompt_core.methods.base import Method
from prompt_core.methods.registry import load_method, method_file_metadata
from prompt_core.methods.templates import OWN, TemplateMethod
from prompt_core.metrics import Accuracy, zero_shot_accuracy

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip

MakeMethod = Callable[["Clip"], Method]


def resolve_method(arguments: argparse.Namespace) -> tuple[CfgNode, MakeMethod] | None:
    """The configuration with the CLIP filled in, and how to make the method that the command line names.

    Methods are named by ``--prompt method.safetensors``, by ``--ensemble``, or by a ``--template data_set``; other
    prompts and templates give None.
    """
    from prompt_core.config import load_config

    metadata = method_file_metadata(arguments.prompt) if arguments.prompt else None
    if metadata is None and not arguments.ensemble and OWN not in arguments.template:
        return None
    cfg = load_config(arguments.config, arguments.overrides).clone()
    cfg.defrost()
    if metadata is not None:
        if not arguments.config and not arguments.clip:
            cfg.MODEL.NAME = metadata["clip"]
            cfg.MODEL.PRETRAINED = cfg.MODEL.PRETRAINED or _tag(metadata["clip"], metadata["pretrained"])
        make: MakeMethod = lambda clip: load_method(arguments.prompt, clip)  # noqa: E731
    elif arguments.ensemble:
        make = lambda clip: TemplateMethod.ensemble(clip, arguments.ensemble)  # noqa: E731
    else:
        make = lambda clip: TemplateMethod(clip, "ensemble", arguments.template)  # noqa: E731
    cfg.MODEL.NAME = arguments.clip or cfg.MODEL.NAME
    cfg.MODEL.PRETRAINED = arguments.pretrained or cfg.MODEL.PRETRAINED
    return cfg, make


def merges_namesakes(method: Method, merge: bool) -> bool:
    """Classes of one name count as one, but for methods that know classes by more than their names."""
    return merge and method.bound_names is None


def score_method(method: Method, test_set: TestSet, merge_namesakes: bool = True, batch: int = 8) -> Accuracy:
    """Accuracy of a method on a test set.

    Args:
        test_set: its features are those of :func:`prompt_core.methods.image_towers.image_tower`.
        batch: images whose class features are held at once, where they differ from image to image.

    Raises:
        UserError: no images, or classes that a bound method does not know.
    """
    candidates = test_set.candidates
    groups = candidates.name_groups if merges_namesakes(method, merge_namesakes) else None
    with torch.no_grad():
        features = torch.from_numpy(test_set.features).to(method.device)
        if method.reads != "images":
            features = method.image_features(features)
        if not method.conditional:
            classes = method.class_features(candidates).cpu()
            return zero_shot_accuracy(features.cpu(), test_set.labels, classes, groups)
        each: list[Accuracy] = []
        for start in range(0, len(features), batch):
            chosen = features[start : start + batch]
            own = method.class_features(candidates, None, chosen).cpu()  # (b, N, E)
            labels = test_set.labels[start : start + batch]
            each += [
                zero_shot_accuracy(image[None], label[None], classes, groups)
                for image, label, classes in zip(chosen.cpu(), labels, own, strict=True)
            ]
    return _together(each)


def _together(each: list[Accuracy]) -> Accuracy:
    """Accuracies of single images as one."""
    if not each:
        raise UserError("there are no images to score")
    by_class: dict[int, list[float]] = {}
    for one in each:
        for row, value in one.by_class.items():
            by_class.setdefault(row, []).append(value)
    means = {row: float(np.mean(values)) for row, values in sorted(by_class.items())}
    return Accuracy(
        float(np.mean([one.top1 for one in each])),
        float(np.mean([one.top5 for one in each])),
        float(np.mean(list(means.values()))),
        len(each),
        each[0].candidates,
        means,
    )


def _tag(name: str, pretrained: str | None) -> str:
    """The tag of open_clip's weights that a file names; weights that came from a file must be given."""
    import open_clip

    known = open_clip.list_pretrained_tags_by_model(name) if name in open_clip.list_models() else []
    return pretrained if pretrained is not None and pretrained in known else ""
