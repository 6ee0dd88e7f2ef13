"""One step of learning as a pure function: the loss of a batch over all classes, or over sampled ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.hierarchy.not_negatives import BY_HIERARCHY, not_negatives
from prompt_core.losses import Correction, full_softmax_logits, local_contrast_logits
from prompt_core.methods.base import Method
from prompt_core.negatives import ClassSampler
from prompt_core.training.anchor import Anchor
from prompt_core.vocabulary import Vocabulary

DRAWS = ("batch", "per_group")


@dataclass(frozen=True)
class LearningSettings:
    """Settings of a step and of the loop; the defaults are those of POMP's trainer on one GPU."""

    num_classes: int = 1000  # K; 0 for the full softmax
    correction: Correction = "log10"
    reject: str = "name"
    draws: str = "batch"  # one draw of K - 1 classes for all images of a step, or one for each group of images
    group: int = 32  # images of a group, before views
    chunk_size: int | None = None
    epochs: int = 20
    batch: int = 32
    views: int = 4
    learning_rate: float = 0.002
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: int = 1
    warmup_learning_rate: float = 1e-5
    hard_refresh: int = 50
    seed: int = 42


@dataclass(frozen=True)
class Draw:
    """Sampled classes that some images of a batch share.

    Attributes:
        members: (b,) places of the images in the batch.
        ids: (K - 1,) sampled rows of the vocabulary.
        log_inclusion: (K - 1,) log of each one's probability to be drawn, None if uniform.
    """

    members: Tensor
    ids: Tensor
    log_inclusion: Tensor | None


def method_step(
    method: Method,
    vocabulary: Vocabulary,
    inputs: Tensor,
    labels: Tensor,
    settings: LearningSettings,
    sampler: ClassSampler,
    generator: torch.Generator,
    views: int = 1,
    anchor: Anchor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, and which images are classified correctly among the classes of the loss.

    With ``draws`` ``per_group``, every ``group`` images, in all their views, have a draw of their own, as those of each
    process of the published trainer; the loss is the mean over all images. The classes of all draws are encoded
    together, each once; a method whose class features differ from image to image encodes draw by draw.

    Args:
        inputs: (B, ...) as ``method.reads`` says; views are the outer, images the inner index.
        labels: (B,) rows of ``vocabulary``.
        views: in how many views each image is in the batch.
        anchor: a term of names that are not learned on; its draw comes last, so that it changes no other.

    Returns:
        scalar loss with a graph to what is learned, and (B,) booleans.
    """
    loss, right = _batch_loss(method, vocabulary, inputs, labels, settings, sampler, generator, views)
    return (loss if anchor is None else loss + anchor.term(method, generator, settings.chunk_size)), right


def _batch_loss(
    method: Method,
    vocabulary: Vocabulary,
    inputs: Tensor,
    labels: Tensor,
    settings: LearningSettings,
    sampler: ClassSampler,
    generator: torch.Generator,
    views: int,
) -> tuple[Tensor, Tensor]:
    images = method.image_features(inputs)  # (B, E)
    if not 0 < settings.num_classes < len(vocabulary):
        classes = method.class_features(vocabulary, None, images, settings.chunk_size).to(images.dtype)
        logits = _full_logits(images, classes, labels, method.logit_scale, _rejected(vocabulary, settings, images))
        loss, right = F.cross_entropy(logits, labels), logits.argmax(dim=1) == labels
        term = method.regulariser(vocabulary, None, classes, generator)
        return loss if term is None else loss + term, right

    size = settings.group if settings.draws == "per_group" else len(labels)
    draws = []
    for members in image_groups(len(labels), views, size):
        members = members.to(images.device)
        ids, log_inclusion = sampler(settings.num_classes - 1, generator, images[members])
        weights = None if log_inclusion is None else log_inclusion.to(images.device)
        draws.append(Draw(members, ids.to(images.device), weights))
    shared = [[draw] for draw in draws] if method.conditional else [draws]
    results = [_sampled_logits(method, vocabulary, images, labels, settings, part, generator) for part in shared]
    logits = torch.cat([result[0] for result in results])  # (B, K)
    members = torch.cat([draw.members for draw in draws])
    loss = F.cross_entropy(logits, torch.zeros_like(labels))
    terms = [term for _, term in results if term is not None]
    right = torch.empty_like(labels, dtype=torch.bool).index_copy_(0, members, logits.argmax(dim=1) == 0)
    return loss + torch.stack(terms).mean() if terms else loss, right


def image_groups(count: int, views: int, size: int) -> list[Tensor]:
    """Places in a batch of each ``size`` images, the rest in a last group.

    Args:
        count: B, places in the batch; the views of image i are at i, i + B / views, ...
    """
    of_place = torch.arange(count) % (count // views) // size
    return [torch.nonzero(of_place == group)[:, 0] for group in range(int(of_place.max()) + 1)]


def _sampled_logits(
    method: Method,
    vocabulary: Vocabulary,
    images: Tensor,
    labels: Tensor,
    settings: LearningSettings,
    draws: Sequence[Draw],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor | None]:
    """(b, K) logits of the images of some draws, in their order, and the regulariser of their classes."""
    members = torch.cat([draw.members for draw in draws])  # (b,)
    wanted = [labels[draw.members] for draw in draws] + [draw.ids for draw in draws]
    rows, places = torch.unique(torch.cat(wanted), return_inverse=True)  # (n,) distinct classes, and where each is
    classes = method.class_features(vocabulary, rows, images[members], settings.chunk_size).to(images.dtype)
    rejected = _rejected(vocabulary, settings, images)
    parts = places.split([len(part) for part in wanted])

    def logits(draw: Draw, images: Tensor, classes: Tensor, own: Tensor, drawn: Tensor, labels: Tensor) -> Tensor:
        if classes.dim() == 3:
            of_each = zip(images.split(1), classes, own.split(1), labels.split(1), strict=True)
            return torch.cat([logits(draw, x, features, place, drawn, y) for x, features, place, y in of_each])
        return local_contrast_logits(
            images,
            classes.index_select(0, own),  # its gradient, unlike that of an index, is added in one order
            classes.index_select(0, drawn),
            labels,
            draw.ids,
            len(vocabulary),
            method.logit_scale,
            settings.correction,
            log_inclusion=draw.log_inclusion,
            **rejected,
        )

    of_draws = [
        logits(draw, images[draw.members], classes, own, drawn, labels[draw.members])
        for draw, own, drawn in zip(draws, parts[: len(draws)], parts[len(draws) :], strict=True)
    ]
    return torch.cat(of_draws), method.regulariser(vocabulary, rows, classes, generator)


def _full_logits(
    images: Tensor, classes: Tensor, labels: Tensor, logit_scale: float, rejected: dict[str, Any]
) -> Tensor:
    if classes.dim() == 2:
        return full_softmax_logits(images, classes, labels, logit_scale, **rejected)  # (B, N)
    of_each = zip(images.split(1), classes, labels.split(1), strict=True)
    return torch.cat([full_softmax_logits(*image, logit_scale, **rejected) for image in of_each])


def _rejected(vocabulary: Vocabulary, settings: LearningSettings, images: Tensor) -> dict[str, Any]:
    """What the losses are told about classes that are no negatives of an image, besides its own."""
    if settings.reject in BY_HIERARCHY:
        return {"not_negatives": not_negatives(vocabulary, settings.reject)}
    if settings.reject == "name":
        return {"name_groups": torch.from_numpy(vocabulary.name_groups).to(images.device)}
    return {}
