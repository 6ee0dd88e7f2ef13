"""Pixels classified by what was learned from generated features: ZS3 (arXiv 1906.00817), CaGNet (arXiv 2008.06893).

Backbone and pixel embeddings are frozen, those of a segmenter that was trained on seen classes. A generator learns to
make the pixel features of a class from its word; for classes that have no labels it makes them out of theirs, and a
linear classifier learns all classes alike. Not as published: all is learned in one run, on features of norm sqrt(D);
the labels of unseen classes, by which ZS3's code places generated pixels, are never read; CaGNet's latent code does not
change the features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from pomp_seg.best_classes import PixelScores
from pomp_seg.clip import ClipAdapter
from pomp_seg.data.registration import register_configured, registered_metadata
from pomp_seg.generated.moment_matching import moments_by_class
from pomp_seg.generated.networks import (
    ContextualModule,
    Discriminator,
    FeatureGenerator,
    adversarial_losses,
    gaussian_divergence,
)
from pomp_seg.generated.pixels import at_features, some_of_each, surest_unseen
from pomp_seg.generated.word_rows import matrix_of, word_rows
from pomp_seg.models.segmenter import Segmenter, build_adapter
from pomp_seg.vocabulary import Classes, batch_classes, dataset_classes, read_class_names
from prompt_core.errors import UserError

KINDS = ("zs3", "cagnet")


@dataclass(frozen=True)
class GeneratorOptions:
    """How features are generated and learned from.

    Attributes:
        kind: ``zs3``: from a word and a random code; ``cagnet``: from a word and a code of what surrounds the pixel,
            with a discriminator.
        hidden: of the networks.
        pixels: real ones of each class in a step at most (128 in ZS3's code).
        moments, context, adversarial: weights of the losses; 50, 100 and 1 in CaGNet's files, ZS3 has the first alone.
        self_training: share of the surest pixels of each unseen class that become pseudo labels; 0 for none.
        self_training_from: iteration from which on.
    """

    kind: str = "zs3"
    hidden: int = 256
    pixels: int = 128
    moments: float = 1.0
    context: float = 100.0
    adversarial: float = 1.0
    self_training: float = 0.0
    self_training_from: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"MODEL.GENERATOR.KIND is {self.kind!r}; expected {' or '.join(KINDS)}")


@META_ARCH_REGISTRY.register()
class GeneratedFeatureModel(Segmenter):
    """A pixel classifier of all classes, learned from labels of some."""

    unseen: Tensor
    names_digest: Tensor

    @configurable
    def __init__(
        self,
        *,
        clip_adapter: ClipAdapter,
        known: Classes,
        words: str,
        features: int,
        options: GeneratorOptions,
        **segmenter: Any,
    ) -> None:
        """
        Args:
            clip_adapter: gives the words' embeddings where no matrix does.
            known: all classes, with those that training sees.
            words: see :func:`pomp_seg.generated.word_rows.word_rows`.
            features: D, numbers of a pixel's embedding.
            options: how features are generated.
            segmenter: of :class:`pomp_seg.models.segmenter.Segmenter`.
        """
        super().__init__(**segmenter)
        self.clip_adapter, self.known, self.options, self.word_file = clip_adapter, known, options, words
        assert known.seen_mask is not None
        self.register_buffer("unseen", ~known.seen_mask, persistent=False)
        digest = hashlib.sha256("\n".join(known.names).encode()).digest()
        self.register_buffer("names_digest", torch.tensor(list(digest), dtype=torch.uint8))
        width = matrix_of(words).weight.shape[1] if words else clip_adapter.clip.embed_dim
        self.generator = FeatureGenerator(width, width, features, options.hidden)
        self.classifier = nn.Linear(features, len(known.names))
        if options.kind == "cagnet":
            self.context = ContextualModule(features, width, options.hidden)
            self.discriminator = Discriminator(features, options.hidden)
        for part in (self.backbone, self.sem_seg_head, self.clip_adapter):
            part.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Parts by configuration."""
        node = cfg.MODEL.GENERATOR
        options = GeneratorOptions(
            node.KIND, node.HIDDEN, node.PIXELS, node.MOMENTS, node.CONTEXT, node.ADVERSARIAL, node.SELF_TRAINING,
            node.SELF_TRAINING_FROM,
        )  # fmt: skip
        return {
            "clip_adapter": build_adapter(cfg.MODEL.CLIP_ADAPTER),
            "known": known_classes(cfg),
            "words": node.EMBEDDINGS,
            "features": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "options": options,
            **cls.parts(cfg),
        }

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        given = state.get(f"{prefix}names_digest")
        if given is not None and not torch.equal(given.cpu(), self.names_digest.cpu()):
            raise UserError(
                f"the weights were learned for other classes, or in another order, than these {len(self.known.names)}; "
                "give the MODEL.GENERATOR.CLASSES of their training"
            )
        super()._load_from_state_dict(state, prefix, *arguments)

    def train(self, mode: bool = True) -> GeneratedFeatureModel:
        """As for any module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in (self.backbone, self.sem_seg_head):
            part.eval()
        return self

    def forward(self, batch: Sequence[dict[str, Any]]) -> Any:
        """The losses in training, else predictions; input and output as for :class:`pomp_seg.models.MaskFormer`.

        Args:
            batch: in training with ``sem_seg`` (H, W), indices of the seen classes and ``IGNORE_VALUE``.
        """
        if not self.training:
            return [{"sem_seg": scores.all()} for scores in self.pixel_scores(batch)]
        features, _ = self.pixel_features(batch)
        head: Any = self.sem_seg_head
        ignored = int(head.ignore_value)
        padded = ImageList.from_tensors([x["sem_seg"].to(self.device) for x in batch], self.size_divisibility, ignored)
        height, width = features.shape[-2:]
        labels = at_features(padded.tensor, (height, width))
        return self.losses(features, self._known_labels(labels, ignored), ignored)

    @torch.no_grad()
    def pixel_features(self, batch: Sequence[dict[str, Any]]) -> tuple[Tensor, ImageList]:
        """Frozen features (B, D, h, w) of norm sqrt(D), for which the bandwidths are made, and the padded images."""
        maps, padded = self.features(batch)
        embeddings: Tensor = self.sem_seg_head(maps)
        return F.normalize(embeddings.float(), dim=1) * embeddings.shape[1] ** 0.5, padded

    def losses(self, features: Tensor, labels: Tensor, ignored: int) -> dict[str, Tensor]:
        """Losses of a batch, weighted.

        Args:
            features: (B, D, h, w).
            labels: (B, h, w) indices of :attr:`known`, seen ones alone, or ``ignored``.
        """
        options, of_pixel = self.options, labels.flatten()
        pixels = features.permute(0, 2, 3, 1).flatten(0, 2)  # (P, D)
        chosen = some_of_each(of_pixel, options.pixels, ignored)
        seen, real = of_pixel[chosen], pixels[chosen]
        losses = {}
        if options.kind == "cagnet":
            mean, log_variance = self.context(features)
            losses["loss_context"] = options.context * gaussian_divergence(mean, log_variance)
            drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            latent = drawn.permute(0, 2, 3, 1).flatten(0, 2)[chosen]
        else:
            latent = self._noise(len(chosen))
        words = self.words
        generated = self.generator(words[seen], latent)
        losses["loss_moments"] = options.moments * moments_by_class(generated, real, seen)
        if options.kind == "cagnet":
            enough = len(chosen) > 0
            both = adversarial_losses(self.discriminator, generated, real) if enough else (generated.sum() * 0,) * 2
            losses["loss_adversarial"], losses["loss_discriminator"] = options.adversarial * both[0], both[1]
        # As many for each as a seen class has on the average of all: with more, unseen classes were likelier answers.
        unseen = torch.nonzero(self.unseen)[:, 0]
        share = round(len(chosen) / (len(self.unseen) - len(unseen)))
        absent = unseen.repeat_interleave(max(1, share))
        with torch.no_grad():
            made = self.generator(words[absent], self._noise(len(absent)))
        targets = torch.cat([seen, absent])
        losses["loss_classes"] = F.cross_entropy(self.classifier(torch.cat([real, made])), targets)
        if options.self_training and get_event_storage().iter >= options.self_training_from:
            losses["loss_pseudo"] = self._pseudo_loss(pixels[of_pixel == ignored])
        return losses

    def _pseudo_loss(self, pixels: Tensor) -> Tensor:
        """Cross entropy of the surest pixels (P, D) without a label."""
        logits = self.classifier(pixels)
        places, answers = surest_unseen(logits, self.unseen, self.options.self_training)
        return F.cross_entropy(logits[places], answers) if len(places) else logits.sum() * 0

    @cached_property
    def words(self) -> Tensor:
        """(C, W) embeddings of all classes; only training needs them."""
        with torch.no_grad():
            return word_rows(self.known.names, self.word_file, self.clip_adapter.text_features).to(self.device)

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, self.words.shape[1], device=self.device)

    def _known_labels(self, labels: Tensor, ignored: int) -> Tensor:
        """Indices of the training set's classes as indices of :attr:`known`."""
        seen = torch.nonzero(~self.unseen)[:, 0]
        return torch.where(labels == ignored, ignored, seen[labels.clamp(max=len(seen) - 1)])

    @torch.no_grad()
    def pixel_scores(self, batch: Sequence[dict[str, Any]]) -> list[PixelScores]:
        """What :meth:`forward` gives in inference; probabilities of the asked classes, in the size of the output.

        Raises:
            UserError: a class that was not among those of the training.
        """
        features, padded = self.pixel_features(batch)
        names = batch_classes(batch, self.classes).names
        place = {name: row for row, name in enumerate(self.known.names)}
        strange = next((name for name in names if name not in place), None)
        if strange is not None:
            raise UserError(
                f"the classifier was learned for {len(place)} classes, {strange!r} is none of them; train with it "
                "among MODEL.GENERATOR.CLASSES"
            )
        logits = self.classifier(features.permute(0, 2, 3, 1))[..., [place[name] for name in names]]
        logits = logits.permute(0, 3, 1, 2)  # (B, C, h, w)
        full = F.interpolate(logits, size=padded.tensor.shape[-2:], mode="bilinear", align_corners=False)
        results = []
        for example, own, size in zip(batch, full, padded.image_sizes, strict=True):
            wanted = example.get("height", size[0]), example.get("width", size[1])
            results.append(PixelScores(sem_seg_postprocess(own, size, *wanted).softmax(dim=0), wanted))
        return results


def known_classes(cfg: CfgNode) -> Classes:
    """All classes of ``MODEL.GENERATOR.CLASSES``, or if that is empty of the first test set; seen are the training's.

    Raises:
        UserError: no data set, a training class that is not among them, classes in another order, or none unseen.
    """
    if not cfg.DATASETS.TRAIN or not (cfg.MODEL.GENERATOR.CLASSES or cfg.DATASETS.TEST):
        raise UserError(
            "MODEL.GENERATOR needs DATASETS.TRAIN, and all classes: DATASETS.TEST or MODEL.GENERATOR.CLASSES"
        )
    given = cfg.MODEL.GENERATOR.CLASSES
    if any(name not in DatasetCatalog.list() for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        register_configured(cfg)
    names = tuple(read_class_names(given)) if given else dataset_classes(cfg.DATASETS.TEST[0]).names
    registered_metadata(cfg.DATASETS.TRAIN[0])
    trained = dataset_classes(cfg.DATASETS.TRAIN[0]).names
    seen = tuple(name in trained for name in names)
    if [name for name, is_seen in zip(names, seen, strict=True) if is_seen] != list(trained):
        absent = next((name for name in trained if name not in names), None)
        why = f"{absent!r} is not among them" if absent else "their order differs"
        raise UserError(f"the {len(names)} classes of MODEL.GENERATOR have to contain those of the training set: {why}")
    if all(seen):
        raise UserError("training sees all classes, so that there are none to generate; name the unseen ones too")
    return Classes(names, seen)
