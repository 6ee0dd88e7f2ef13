"""Segmentation by mask proposals: with a closed list of classes, and open-vocabulary with CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from torch import Tensor

from pomp_engine.data.proposal_files import ProposalFile
from pomp_seg.best_classes import PixelScores
from pomp_seg.clip import RegionClipAdapter
from pomp_seg.ensemble import EnsembleOptions, calibration, class_maps
from pomp_seg.given_regions import given_masks
from pomp_seg.heads.predictor import Proposals
from pomp_seg.losses import MaskProposalLoss, Targets
from pomp_seg.models.segmenter import Segmenter, build_region_adapter
from pomp_seg.regions.encode import similarity_logits
from pomp_seg.vocabulary import batch_classes
from prompt_core.errors import UserError
from prompt_core.towers.placement import upload


@META_ARCH_REGISTRY.register()
class MaskFormer(Segmenter):
    """Mask classification with the classes of training (MaskFormer, arXiv 2107.06278)."""

    @configurable
    def __init__(self, *, criterion: MaskProposalLoss, resize_masks: bool = False, **options: Any) -> None:
        """
        Args:
            criterion: the losses.
            resize_masks: resize masks to the size of the output before they are weighted by class scores, instead of
                the weighted sums: finer edges, and memory for every proposal at that size.
            options: of :class:`pomp_seg.models.segmenter.Segmenter`.
        """
        super().__init__(**options)
        self.criterion, self.resize_masks = criterion, resize_masks

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Parts by configuration."""
        former = cfg.MODEL.MASK_FORMER
        return cls.parts(cfg) | {
            "criterion": MaskProposalLoss(
                cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, former.NO_OBJECT_WEIGHT, former.MASK_WEIGHT, former.DICE_WEIGHT
            ),
            "size_divisibility": former.SIZE_DIVISIBILITY,
            "resize_masks": former.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE,
        }

    def forward(self, batch: Sequence[dict[str, Any]]) -> Any:
        """Losses in training, else predictions.

        Args:
            batch: examples with ``image`` (3, H, W) in 0..255 and ``meta["dataset_name"]``; in training also
                ``instances`` with ``gt_classes`` (R,) and ``gt_masks`` (R, H, W), one region for each class; else
                ``height`` and ``width`` of the output (by default the image's own).

        Returns:
            Weighted losses by name; or for each image ``{"sem_seg": (C, height, width)}``, class scores of each pixel.
        """
        features, padded = self.features(batch)
        proposals = self.sem_seg_head(features)
        if self.training:
            logits = self.class_logits(batch, [layer.classes for layer in proposals])
            targets = [self.targets(example["instances"], padded.tensor.shape[-2:]) for example in batch]
            return self.criterion(logits, [layer.masks for layer in proposals], targets)
        return [{"sem_seg": scores.all()} for scores in self._pixel_scores(batch, proposals[-1], padded)]

    def class_logits(self, batch: Sequence[dict[str, Any]], classes: Sequence[Tensor]) -> list[Tensor]:
        """Class logits (B, Q, C + 1) from the outputs of the class head, for each supervised layer."""
        return list(classes)

    def scores(self, example: dict[str, Any], logits: Tensor, masks: Tensor) -> Tensor:
        """Class scores (Q, C) of the proposals of one image.

        Args:
            logits: (Q, C + 1).
            masks: probabilities (Q, H, W) at the size of the image.
        """
        return logits.softmax(dim=-1)[:, :-1]

    def calibration(self, example: dict[str, Any], maps: Tensor) -> Tensor | None:
        """What is taken from the scores of each class of one image, (C,) like ``maps``; None for nothing."""
        return None

    def targets(self, instances: Any, size: tuple[int, int]) -> Targets:
        """The regions of one image, whose masks are padded to the batch's ``size`` (height, width)."""
        masks: Tensor = upload(getattr(instances.gt_masks, "tensor", instances.gt_masks), self.device)
        spare = (0, size[1] - masks.shape[-1], 0, size[0] - masks.shape[-2])
        return Targets(upload(instances.gt_classes, self.device), F.pad(masks.bool(), spare))

    def pixel_scores(self, batch: Sequence[dict[str, Any]]) -> list[PixelScores]:
        """What :meth:`forward` gives in inference, for each image before it has the size of the output."""
        features, padded = self.features(batch)
        return self._pixel_scores(batch, self.sem_seg_head(features)[-1], padded)

    def _pixel_scores(
        self, batch: Sequence[dict[str, Any]], proposals: Proposals, padded: ImageList
    ) -> list[PixelScores]:
        logits = self.class_logits(batch, [proposals.classes])[0]
        masks = F.interpolate(
            proposals.masks, size=padded.tensor.shape[-2:], mode="bilinear", align_corners=False
        )  # (B, Q, H, W)
        results = []
        for example, own_logits, own_masks, size in zip(batch, logits, masks, padded.image_sizes, strict=True):
            wanted = example.get("height", size[0]), example.get("width", size[1])
            # Resized to the same size, as published: this only removes the padding.
            inside = own_masks[:, : size[0], : size[1]].sigmoid()
            scores = self.scores(example, own_logits, inside)
            if self.resize_masks:
                inside = sem_seg_postprocess(own_masks, size, *wanted).sigmoid()
            maps = class_maps(scores, inside)
            results.append(PixelScores(maps, wanted, self.calibration(example, maps)))
        return results


@META_ARCH_REGISTRY.register()
class ZeroShotMaskFormer(MaskFormer):
    """Mask proposals classified by text features and by CLIP's view of the region (ZSSeg, arXiv 2112.14757)."""

    @configurable
    def __init__(
        self,
        *,
        clip_adapter: RegionClipAdapter,
        region_clip_adapter: RegionClipAdapter | None = None,
        ensemble: EnsembleOptions,
        proposal_file: ProposalFile | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            region_clip_adapter: another CLIP or prompt for the regions; None for the same.
            ensemble: how CLIP's classification of the regions is combined.
            proposal_file: regions from outside that CLIP alone names in inference, in the place of mask proposals.
            options: of :class:`MaskFormer`.

        Raises:
            UserError: class embeddings of another width than the text features.
        """
        super().__init__(**options)
        head: Any = self.sem_seg_head
        embedding, text = getattr(head, "embedding_dim", 0), clip_adapter.clip.embed_dim
        if embedding != text:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.EMBEDDING_DIM is {embedding}, the text features of "
                f"{clip_adapter.clip.name} have width {text}; set both to the same, with ZeroShotMaskFormerHead"
            )
        self.clip_adapter = clip_adapter
        # Published checkpoints keep a second CLIP under this name.
        self._region_clip_adapter = region_clip_adapter
        self.ensemble = ensemble
        self.proposal_file = proposal_file

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Parts by configuration."""
        node = cfg.MODEL.CLIP_ADAPTER
        return MaskFormer.from_config(cfg) | {
            "clip_adapter": build_region_adapter(cfg, node),
            "region_clip_adapter": build_region_adapter(cfg, node.REGION_CLIP_ADAPTER)
            if node.SEPERATE_ADAPTER
            else None,
            "ensemble": EnsembleOptions.from_config(node),
            "proposal_file": ProposalFile.from_config(cfg),
        }

    def forward(self, batch: Sequence[dict[str, Any]]) -> Any:
        """See :meth:`MaskFormer.forward`."""
        if self.training or self.proposal_file is None:
            return super().forward(batch)
        return [{"sem_seg": scores.all()} for scores in self.pixel_scores(batch)]

    def pixel_scores(self, batch: Sequence[dict[str, Any]]) -> list[PixelScores]:
        """See :meth:`MaskFormer.pixel_scores`."""
        if self.proposal_file is None:
            return super().pixel_scores(batch)
        return [self.named_regions(example, *given_masks(self.proposal_file, example)) for example in batch]

    @torch.no_grad()
    def named_regions(self, example: dict[str, Any], masks: Tensor, weights: Tensor | None = None) -> PixelScores:
        """Class scores of each pixel of one image by regions that are given, 0 outside all of them.

        CLIP alone names them, with this segmenter's prompt and crops: a region that is given has no learned embedding.

        Args:
            masks: probabilities (R, H, W) at the size of the image.
            weights: (R,) of the regions; None for 1.
        """
        masks = masks.to(self.device)
        logits, valid = self.region_logits(example, masks)
        scores = logits[:, :-1].softmax(dim=1)  # without "no object"
        if weights is not None:
            scores = scores * weights.to(scores)[valid, None]
        height, width = masks.shape[-2:]
        wanted = example.get("height", height), example.get("width", width)
        return PixelScores(class_maps(scores, masks[valid]), wanted)

    def class_logits(self, batch: Sequence[dict[str, Any]], classes: Sequence[Tensor]) -> list[Tensor]:
        """100 times the cosines (B, Q, C + 1) of class embeddings and text features."""
        features = self.clip_adapter.text_features(batch_classes(batch, self.classes).names)
        return [similarity_logits(embeddings, features) for embeddings in classes]

    def region_logits(self, example: dict[str, Any], masks: Tensor) -> tuple[Tensor, Tensor]:
        """CLIP's class logits of the regions of one image, see :meth:`pomp_seg.clip.RegionClipAdapter.region_logits`.

        Args:
            masks: probabilities (Q, H, W) at the size of the image.
        """
        adapter = self._region_clip_adapter or self.clip_adapter
        names = batch_classes([example], self.classes).names
        return adapter.region_logits(upload(example["image"], self.device), masks, names)

    def scores(self, example: dict[str, Any], logits: Tensor, masks: Tensor) -> Tensor:
        """See :meth:`MaskFormer.scores`."""
        query = logits.softmax(dim=-1)[:, :-1]
        if not self.ensemble.with_clip:
            return query
        regions, valid = self.region_logits(example, masks)
        # Empty proposals keep their own scores; with CLIP alone they have none.
        region = torch.zeros_like(query) if self.ensemble.clip_alone else torch.ones_like(query)
        region[valid] = self.ensemble.region_probabilities(regions, logits[valid])
        return self.ensemble.join(query, region, batch_classes([example], self.classes).seen_mask)

    def calibration(self, example: dict[str, Any], maps: Tensor) -> Tensor | None:
        """See :meth:`MaskFormer.calibration`; ZegFormer's, where its ensemble is configured."""
        seen = batch_classes([example], self.classes).seen_mask
        if self.ensemble.kind != "zegformer" or seen is None:
            return None
        return calibration(seen, self.ensemble.zegformer_gamma, maps)
