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

from pomp_seg.clip import RegionClipAdapter
from pomp_seg.ensemble import EnsembleOptions, calibrate, class_maps
from pomp_seg.heads.predictor import Proposals
from pomp_seg.losses import MaskProposalLoss, Targets
from pomp_seg.models.segmenter import Segmenter, build_region_adapter
from pomp_seg.regions.encode import similarity_logits
from pomp_seg.vocabulary import batch_classes
from prompt_core.errors import UserError


@META_ARCH_REGISTRY.register()
class MaskFormer(Segmenter):
    """Mask classification with the classes of training (MaskFormer, arXiv 2107.06278)."""

    @configurable
    def __init__(
        self,
        *,
        criterion: MaskProposalLoss,
        **options: Any,
    ) -> None:
        """
        Args:
            criterion: the losses.
            options: of :class:`pomp_seg.models.segmenter.Segmenter`.
        """
        super().__init__(**options)
        self.criterion = criterion

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Parts by configuration."""
        former = cfg.MODEL.MASK_FORMER
        if former.TEST.PANOPTIC_ON:
            raise UserError("MODEL.MASK_FORMER.TEST.PANOPTIC_ON is True; only semantic segmentation is built")
        return cls.parts(cfg) | {
            "criterion": MaskProposalLoss(
                cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, former.NO_OBJECT_WEIGHT, former.MASK_WEIGHT, former.DICE_WEIGHT
            ),
            "size_divisibility": former.SIZE_DIVISIBILITY,
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
        return self._predict(batch, proposals[-1], padded)

    def class_logits(self, batch: Sequence[dict[str, Any]], classes: Sequence[Tensor]) -> list[Tensor]:
        """Class logits (B, Q, C + 1) from the outputs of the class head, for each supervised layer."""
        return list(classes)

    def scores(self, example: dict[str, Any], logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores (Q', C) of the proposals of one image, and their mask probabilities (Q', H, W).

        Args:
            logits: (Q, C + 1).
            masks: probabilities (Q, H, W) at the size of the image.
        """
        return logits.softmax(dim=-1)[:, :-1], masks

    def maps(self, example: dict[str, Any], logits: Tensor, masks: Tensor) -> Tensor:
        """Class scores (C, H, W) of the pixels of one image; arguments of :meth:`scores`."""
        return class_maps(*self.scores(example, logits, masks))

    def targets(self, instances: Any, size: tuple[int, int]) -> Targets:
        """The regions of one image, whose masks are padded to the batch's ``size`` (height, width)."""
        masks: Tensor = getattr(instances.gt_masks, "tensor", instances.gt_masks).to(self.device)
        spare = (0, size[1] - masks.shape[-1], 0, size[0] - masks.shape[-2])
        return Targets(instances.gt_classes.to(self.device), F.pad(masks.bool(), spare))

    def _predict(
        self, batch: Sequence[dict[str, Any]], proposals: Proposals, padded: ImageList
    ) -> list[dict[str, Tensor]]:
        logits = self.class_logits(batch, [proposals.classes])[0]
        masks = F.interpolate(
            proposals.masks, size=padded.tensor.shape[-2:], mode="bilinear", align_corners=False
        )  # (B, Q, H, W)
        results = []
        for example, own_logits, own_masks, (height, width) in zip(
            batch, logits, masks, padded.image_sizes, strict=True
        ):
            # Resized to the same size, as published: this only removes the padding.
            inside = own_masks[:, :height, :width].sigmoid()
            maps = self.maps(example, own_logits, inside)
            wanted = example.get("height", height), example.get("width", width)
            results.append({"sem_seg": sem_seg_postprocess(maps, (height, width), *wanted)})
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
        **options: Any,
    ) -> None:
        """
        Args:
            region_clip_adapter: another CLIP or prompt for the regions; None for the same.
            ensemble: how CLIP's classification of the regions is combined.
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
        }

    def class_logits(self, batch: Sequence[dict[str, Any]], classes: Sequence[Tensor]) -> list[Tensor]:
        """100 times the cosines (B, Q, C + 1) of class embeddings and text features."""
        features = self.clip_adapter.text_features(batch_classes(batch, self.classes).names)
        return [similarity_logits(embeddings, features) for embeddings in classes]

    def scores(self, example: dict[str, Any], logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`MaskFormer.scores`; with CLIP alone, only the proposals that are not empty."""
        query = logits.softmax(dim=-1)[:, :-1]
        if not self.ensemble.with_clip:
            return query, masks
        classes = batch_classes([example], self.classes)
        adapter = self._region_clip_adapter or self.clip_adapter
        regions, valid = adapter.region_logits(example["image"].to(self.device), masks, classes.names)
        opinion = self.ensemble.region_probabilities(regions, logits[valid])
        if self.ensemble.weight <= 0 and self.ensemble.kind == "zsseg":
            return opinion, masks[valid]
        region = torch.ones_like(query)
        region[valid] = opinion
        return self.ensemble.join(query, region, classes.seen_mask), masks

    def maps(self, example: dict[str, Any], logits: Tensor, masks: Tensor) -> Tensor:
        """See :meth:`MaskFormer.maps`; with ZegFormer's calibration where its ensemble is configured."""
        maps = super().maps(example, logits, masks)
        if self.ensemble.kind != "zegformer":
            return maps
        return calibrate(maps, batch_classes([example], self.classes).seen_mask, self.ensemble.zegformer_gamma)
