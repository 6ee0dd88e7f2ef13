"""One step of learning as a pure function: the loss of a batch over all classes, or over sampled ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.errors import UserError
from prompt_core.hierarchy.not_negatives import BY_HIERARCHY, not_negatives
from prompt_core.losses import Correction, full_softmax_logits, local_contrast_logits
from prompt_core.methods.base import Method
from prompt_core.negatives import ClassSampler, UniformSampler, WeightedSampler
from prompt_core.ranks.balance import runs
from prompt_core.ranks.ranks import ALONE, Ranks
from prompt_core.ranks.shared_classes import class_shares, own_class_features
from prompt_core.ranks.softmax import shared_cross_entropy
from prompt_core.towers.placement import upload
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
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, and which images are classified correctly among the classes of the loss.

    With ``draws`` ``per_group``, every ``group`` images, in all their views, have a draw of their own, as those of each
    process of the published trainer; the loss is the mean over all images. The classes of all draws are encoded
    together, each once; a method whose class features differ from image to image encodes draw by draw.

    Args:
        inputs: (B, ...) as ``method.reads`` says; views are the outer, images the inner index.
        labels: (B,) rows of ``vocabulary``; on the CPU, so that no GPU is waited for to know the names.
        views: in how many views each image is in the batch.
        anchor: a term of names that are not learned on; its draw comes last, so that it changes no other.
        ranks: the processes of a job. ``inputs`` are those (b, ...) of this one's images (:func:`image_runs`), labels
            those of all; each class is encoded by one of them.

    Returns:
        scalar loss with a graph to what is learned, and (B,) booleans. Each of several ranks gives its part: the losses
        add up to that of the batch, and so do the gradients of what is learned; the booleans (b,) are of its images.
    """
    labels = labels.cpu()
    places = image_places(len(labels), views, settings, ranks)
    batch = _Batch(method, vocabulary, settings, method.image_features(inputs), labels, places, generator, ranks)
    if 0 < settings.num_classes < len(vocabulary):
        loss, right = _sampled_loss(batch, sampler, views)
    else:
        loss, right = _full_loss(batch)
    return loss if anchor is None else loss + anchor.term(method, generator, settings.chunk_size, ranks), right


def image_runs(images: int, settings: LearningSettings, ranks: Ranks) -> list[range]:
    """Which images of a step each rank takes; a group that has a draw of its own stays together."""
    return runs(images, ranks.size, settings.group if settings.draws == "per_group" else 1)


def image_places(count: int, views: int, settings: LearningSettings, ranks: Ranks) -> list[Tensor]:
    """Places in a batch of each rank's images in all their views, ascending.

    Args:
        count: B, places in the batch; the views of image i are at i, i + B / views, ...
    """
    images = count // views
    first = torch.arange(views)[:, None] * images
    return [(first + torch.arange(run.start, run.stop)).flatten() for run in image_runs(images, settings, ranks)]


def image_groups(count: int, views: int, size: int) -> list[Tensor]:
    """Places in a batch of each ``size`` images, the rest in a last group.

    Args:
        count: B, places in the batch; the views of image i are at i, i + B / views, ...
    """
    of_place = torch.arange(count) % (count // views) // size
    return [torch.nonzero(of_place == group)[:, 0] for group in range(int(of_place.max()) + 1)]


def check_ranks(method: Method, images: int, settings: LearningSettings, ranks: Ranks) -> None:
    """Check that the processes of a job can share out a step.

    Raises:
        UserError: fewer images in a step than ranks, by a method that learns nothing on a rank without an image; or one
            whose additional loss cannot be split.
    """
    own_work = method.conditional or method.reads == "images"
    if own_work and not all(image_runs(images, settings, ranks)):
        raise UserError(
            f"{ranks.size} processes share the {images} images of a step, and method {method.name} needs one in each "
            "(a LOSS.GROUP with LOSS.DRAWS per_group); raise OPTIM.BATCH or start fewer"
        )
    if ranks.size > 1 and method.conditional and not _has_plain_loss(method):
        raise UserError(f"method {method.name} adds a loss of all images of a step; start one process")


@dataclass(frozen=True)
class _Batch:
    """What a step is made of: image features (b, E) of this rank, labels (B,) of all, on the CPU."""

    method: Method
    vocabulary: Vocabulary
    settings: LearningSettings
    images: Tensor
    labels: Tensor
    places: Sequence[Tensor]  # in the batch, of each rank's images
    generator: torch.Generator
    ranks: Ranks

    @property
    def own(self) -> Tensor:
        """(b,) places in the batch of this rank's images."""
        return self.places[self.ranks.rank]

    def here(self, values: Tensor) -> Tensor:
        """Values on the device of the images."""
        return upload(values, self.images.device)

    def shared_classes(self, rows: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Class features (n_r, E) of this rank's share of ``rows``, and the shares of all, places in ``rows``."""
        shares = class_shares(self.method, self.vocabulary, rows, self.ranks)
        chunk_size = self.settings.chunk_size
        part = own_class_features(self.method, self.vocabulary, rows, shares, chunk_size, self.ranks)
        return part.to(self.images.dtype), shares

    def classes_of_images(self, images: Tensor, rows: Tensor | None) -> Tensor:
        """Class features (b, n, E) of some image features (b, E), by a conditional method."""
        features = self.method.class_features(self.vocabulary, rows, images, self.settings.chunk_size)
        return features.to(images.dtype)

    def with_regulariser(self, loss: Tensor, rows: Tensor | None, classes: Tensor) -> Tensor:
        """The loss and the method's own term of all classes (n, E), which counts once for all ranks."""
        term = self.method.regulariser(self.vocabulary, rows, classes, self.generator)
        return loss if term is None else loss + term / self.ranks.size


def _has_plain_loss(method: Method) -> bool:
    return type(method).regulariser is Method.regulariser


def _full_loss(batch: _Batch) -> tuple[Tensor, Tensor]:
    """Over all classes: each rank scores the images of all against its share of the classes."""
    method, ranks, count = batch.method, batch.ranks, len(batch.labels)
    scale, rejected = method.logit_scale, _rejected(batch.vocabulary, batch.settings, batch.images)
    if method.conditional:
        labels, classes = batch.here(batch.labels[batch.own]), batch.classes_of_images(batch.images, None)
        of_each = zip(batch.images.split(1), classes, labels.split(1), strict=True)
        logits = torch.cat([full_softmax_logits(*image, scale, **rejected) for image in of_each])  # (b, N)
        loss = F.cross_entropy(logits, labels, reduction="sum") / count
        return batch.with_regulariser(loss, None, classes), logits.argmax(dim=1) == labels
    part, shares = batch.shared_classes(None)
    images, labels = ranks.gather_rows(batch.images, batch.places), batch.here(batch.labels)  # (B, E), (B,)
    columns = batch.here(shares[ranks.rank])
    logits = full_softmax_logits(images, part, labels, scale, columns=columns, **rejected)  # (B, N / ranks)
    loss, right = shared_cross_entropy(logits, columns, labels, batch.here(batch.own), ranks)
    classes = part if _has_plain_loss(method) else ranks.gather_rows(part, shares)
    return batch.with_regulariser(loss / count, None, classes), right


@dataclass(frozen=True)
class Draw:
    """Sampled classes that some images of a batch share.

    Attributes:
        images: (b,) which of this rank's images share them.
        ids: (K - 1,) sampled rows of the vocabulary.
        log_inclusion: (K - 1,) log of each one's probability to be drawn, None if uniform.
    """

    images: Tensor
    ids: Tensor
    log_inclusion: Tensor | None


def _sampled_loss(batch: _Batch, sampler: ClassSampler, views: int) -> tuple[Tensor, Tensor]:
    """Over sampled classes: each rank scores its images; the classes of all draws are shared out."""
    draws = _draws(batch, sampler, views)
    if batch.method.conditional:
        draws = [draw for draw in draws if len(draw.images)]
        results = [_conditional_logits(batch, draw) for draw in draws]
        logits = torch.cat([result[0] for result in results])  # (b, K)
        additional = torch.stack([result[1] for result in results]).mean()
    else:
        wanted = torch.cat([batch.labels, *(draw.ids for draw in draws)])
        rows, where = torch.unique(wanted, return_inverse=True)  # (n,) distinct classes, and where each is
        of_labels, *of_ids = where.split([len(batch.labels), *(len(draw.ids) for draw in draws)])
        of_labels = of_labels[batch.own]
        part, shares = batch.shared_classes(rows)
        classes = batch.ranks.gather_rows(part, shares)  # (n, E)
        logits = torch.cat(
            [
                _logits(batch, draw, draw.images, classes, of_labels[draw.images], drawn)
                for draw, drawn in zip(draws, of_ids, strict=True)
            ]
        )
        additional = batch.with_regulariser(logits.new_zeros(()), rows, classes)
    losses = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device), reduction="sum")
    members = batch.here(torch.cat([draw.images for draw in draws]))
    right = torch.empty(len(logits), dtype=torch.bool, device=logits.device)
    return losses / len(batch.labels) + additional, right.index_copy_(0, members, logits.argmax(dim=1) == 0)


def _draws(batch: _Batch, sampler: ClassSampler, views: int) -> list[Draw]:
    """The draws of a step, with this rank's images of each."""
    settings, own = batch.settings, batch.own
    # Those that depend on images depend on the images of all ranks, and are made by one, so that all have the same.
    looks = not isinstance(sampler, (UniformSampler, WeightedSampler))
    seen = batch.ranks.gather_rows(batch.images.detach(), batch.places) if looks else None
    draws = []
    size = settings.group if settings.draws == "per_group" else len(batch.labels)
    for members in image_groups(len(batch.labels), views, size):
        shown = None if seen is None else seen[batch.here(members)]
        drawn = sampler(settings.num_classes - 1, batch.generator, shown)
        ids, log_inclusion = batch.ranks.from_leader(drawn) if looks else drawn
        images = torch.searchsorted(own, members[torch.isin(members, own)])
        draws.append(Draw(images, ids.cpu(), None if log_inclusion is None else batch.here(log_inclusion)))
    return draws


def _conditional_logits(batch: _Batch, draw: Draw) -> tuple[Tensor, Tensor]:
    """(b, K) logits of images whose class features are their own, and what the method adds to their loss."""
    labels = batch.labels[batch.own][draw.images]
    rows, where = torch.unique(torch.cat([labels, draw.ids]), return_inverse=True)
    of_labels, drawn = where.split([len(labels), len(draw.ids)])
    classes = batch.classes_of_images(batch.images[batch.here(draw.images)], rows)  # (b, n, E)
    of_each = zip(draw.images.split(1), classes, of_labels.split(1), strict=True)
    logits = torch.cat([_logits(batch, draw, image, features, label, drawn) for image, features, label in of_each])
    return logits, batch.with_regulariser(logits.new_zeros(()), rows, classes)


def _logits(batch: _Batch, draw: Draw, chosen: Tensor, classes: Tensor, own: Tensor, drawn: Tensor) -> Tensor:
    """(b, K) logits of some of a draw's images.

    Args:
        chosen: (b,) which of this rank's images.
        classes: (n, E) class features, of which ``own`` (b,) are those of the images, ``drawn`` (K - 1,) the sampled.
    """
    images = batch.images[batch.here(chosen)]
    return local_contrast_logits(
        images,
        classes.index_select(0, batch.here(own)),  # its gradient, unlike that of an index, is added in one order
        classes.index_select(0, batch.here(drawn)),
        batch.here(batch.labels[batch.own][chosen]),
        batch.here(draw.ids),
        len(batch.vocabulary),
        batch.method.logit_scale,
        batch.settings.correction,
        log_inclusion=draw.log_inclusion,
        **_rejected(batch.vocabulary, batch.settings, images),
    )


def _rejected(vocabulary: Vocabulary, settings: LearningSettings, images: Tensor) -> dict[str, Any]:
    """What the losses are told about classes that are no negatives of an image, besides its own."""
    if settings.reject in BY_HIERARCHY:
        return {"not_negatives": not_negatives(vocabulary, settings.reject)}
    if settings.reject == "name":
        return {"name_groups": upload(vocabulary.name_groups, images.device)}
    return {}
