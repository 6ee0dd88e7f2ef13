"""The whole detector: backbone, proposals, heads; batches of boxes, of image labels and of captions."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import Instances
from torch import Tensor, nn

from pomp_det.clip_towers import CaptionEncoder, RegionEmbedder
from pomp_det.data.mapper import ANNOTATION_KINDS
from pomp_det.heads.distillation import Distillation, best_regions
from pomp_det.heads.weak_batches import WeakTargets
from pomp_det.heads.zero_shot import ZeroShotClassifier, same_classes
from pomp_det.proposals.given import given_proposals, named_regions
from pomp_engine.data.proposal_files import ProposalFile
from pomp_engine.half_precision import backbone_features
from prompt_core.errors import UserError

PRECOMPUTED = "PrecomputedProposals"  # Detectron2's name for no proposal generator

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class CustomRCNN(GeneralizedRCNN):
    """Detectron2's two-stage detector with weakly labelled batches (Detic, arXiv 2201.02605).

    Inputs are Detectron2's, and in training with ``WITH_IMAGE_LABELS`` also

    * ``ann_type``: ``box`` (the default), ``image``, ``caption`` or ``captiontag``; the same for a whole batch,
    * ``pos_category_ids``: class ids of the image, unless it has boxes,
    * ``captions``: list of texts, of which one is drawn.

    With ``DISTILLATION_FILE`` box examples have ``regions``: ``proposal_boxes`` and ``embeddings`` (R, E).
    """

    @configurable
    def __init__(
        self,
        *,
        half_precision: bool = False,
        with_image_labels: bool = False,
        caption_encoder: CaptionEncoder | None = None,
        caption_batch_ratio: int = 4,
        region_embedder: RegionEmbedder | None = None,
        distillation_proposals: int = 32,
        proposal_file: ProposalFile | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            half_precision: run the backbone in half precision on a GPU, as published; the CPU stays in float32.
            with_image_labels: look at ``ann_type``.
            caption_encoder: turns captions into features; no part of the state dict.
            caption_batch_ratio: images of a caption batch for each image of a box batch.
            region_embedder: gives the image embeddings that box batches are distilled from (ViLD, arXiv 2104.13921);
                no part of the state dict.
            distillation_proposals: the best proposals of an image that are embedded.
            proposal_file: regions from outside that are named in inference, as they are, in the place of proposals.
            options: of Detectron2's ``GeneralizedRCNN``.
        """
        super().__init__(**options)
        self.half_precision = half_precision
        self.with_image_labels = with_image_labels
        self.caption_encoder = caption_encoder
        self.caption_batch_ratio = caption_batch_ratio
        self.region_embedder = region_embedder
        self.distillation_proposals = distillation_proposals
        self.proposal_file = proposal_file

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        options = super().from_config(cfg)
        return options | {
            "half_precision": cfg.FP16,
            "with_image_labels": cfg.WITH_IMAGE_LABELS,
            "caption_encoder": CaptionEncoder.from_config(cfg) if cfg.MODEL.WITH_CAPTION else None,
            "caption_batch_ratio": cfg.MODEL.CAP_BATCH_RATIO,
            "region_embedder": _region_embedder(cfg, options["roi_heads"]),
            "distillation_proposals": cfg.MODEL.ROI_BOX_HEAD.DISTILLATION_PROPOSALS,
            "proposal_file": ProposalFile.from_config(cfg),
        }

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid of normalised images (B, 3, H, W), in float32."""
        return backbone_features(self.backbone, images, self.half_precision)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Detections of each image, or in training the losses."""
        if not self.training:
            return self.inference(batched_inputs)
        if self.proposal_generator is None:
            raise UserError(f"MODEL.PROPOSAL_GENERATOR.NAME {PRECOMPUTED} is for tests and predictions; nothing learns")
        images = self.preprocess_image(batched_inputs)
        kind = self._annotation_kind(batched_inputs)
        targets = [example["instances"].to(self.device) for example in batched_inputs]
        features = self.features(images.tensor)
        proposals, losses = self.proposal_generator(images, features, targets)
        captions, first = self._captions(kind, batched_inputs)
        weak_targets = None
        if kind != "box":
            # The losses must be there, with their graph, on every process; without boxes they mean nothing.
            losses = {name: loss * 0 for name, loss in losses.items()}
            labels = [example.get("pos_category_ids", []) for example in batched_inputs]
            weak_targets = WeakTargets(kind, labels, captions, first)
        extra: dict[str, Any] = {} if weak_targets is None else {"weak_targets": weak_targets}
        if self.region_embedder is not None and kind == "box":
            extra["distillation"] = self._distillation(self.region_embedder, batched_inputs, proposals)
        elif kind == "box" and all("regions" in example for example in batched_inputs):
            regions = [example["regions"].to(self.device) for example in batched_inputs]
            extra["distillation"] = Distillation(regions, torch.cat([image.embeddings for image in regions]))
        _, head_losses = self.roi_heads(images, features, proposals, targets, **extra)
        return losses | head_losses

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> Any:
        """Detections; the arguments are Detectron2's."""
        assert not self.training
        images = self.preprocess_image(batched_inputs)
        features = self.features(images.tensor)
        if detected_instances is None and self.proposal_file is not None:
            results = named_regions(
                self.roi_heads, features, *given_proposals(self.proposal_file, batched_inputs, images)
            )
        elif detected_instances is None:
            if self.proposal_generator is None:
                raise UserError(f"MODEL.PROPOSAL_GENERATOR.NAME is {PRECOMPUTED}; name a file in MODEL.PROPOSALS.FILE")
            proposals, _ = self.proposal_generator(images, features, None)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            detected = [image.to(self.device) for image in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, detected)
        return self._postprocess(results, batched_inputs, images.image_sizes) if do_postprocess else results

    def _annotation_kind(self, batched_inputs: list[dict[str, Any]]) -> str:
        if not self.with_image_labels:
            return "box"
        kinds = {example.get("ann_type", "box") for example in batched_inputs}
        if len(kinds) > 1 or not kinds <= set(ANNOTATION_KINDS):
            raise UserError(
                f"a batch mixes or misnames annotations: {sorted(kinds)}; one of {', '.join(ANNOTATION_KINDS)} is "
                "expected, the same for the whole batch (DATALOADER.MULTI_DATASET_GROUPING True)"
            )
        return kinds.pop()

    def _distillation(
        self, embedder: RegionEmbedder, batched_inputs: list[dict[str, Any]], proposals: list[Instances]
    ) -> Distillation:
        """The best proposals of the photos as the network sees them, with their image embeddings."""
        regions = best_regions(proposals, self.distillation_proposals)
        photos = [example["image"].to(self.device) for example in batched_inputs]
        if self.input_format == "BGR":
            photos = [photo.flip(0) for photo in photos]
        return Distillation(regions, embedder(photos, [image.proposal_boxes.tensor for image in regions]))

    def _captions(self, kind: str, batched_inputs: list[dict[str, Any]]) -> tuple[Tensor | None, int]:
        """Features of the batch's captions, one drawn for each image; see :class:`CaptionEncoder`."""
        if self.caption_encoder is None:
            return None, 0
        texts = []
        for example in batched_inputs if kind.startswith("caption") else []:
            if not example.get("captions"):
                raise UserError(f"image {example.get('file_name', '?')} of a caption batch has no captions")
            texts.append(example["captions"][int(torch.randint(len(example["captions"]), ()))])
        absent = len(batched_inputs) * (self.caption_batch_ratio if kind == "box" else 1)
        return self.caption_encoder(texts, self.device, absent)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        self._log_checkpoint_classes(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _log_checkpoint_classes(self, state_dict: dict[str, Any], prefix: str) -> None:
        """One line when loading is about to replace a configured class matrix by another one."""
        for name, module in self.named_modules():
            given = state_dict.get(f"{prefix}{name}.zs_weight")
            if isinstance(module, ZeroShotClassifier) and given is not None:
                if module.source != "random" and not same_classes(module.zs_weight, given):
                    logger.warning(
                        "the class matrix of this state dict (%d classes) replaces the configured one (%s, %d "
                        "classes); pomp_det.load_weights keeps the configured one",
                        given.shape[1] - 1, module.source, module.num_classes,
                    )  # fmt: skip
                    self.roi_heads.class_names = [f"class {row}" for row in range(given.shape[1] - 1)]
                return


def _region_embedder(cfg: CfgNode, roi_heads: nn.Module) -> RegionEmbedder | None:
    node, clip = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.DISTILLATION_CLIP
    if node.DISTILLATION_FILE and node.DISTILLATION_WEIGHT == 0:
        raise UserError("MODEL.ROI_BOX_HEAD.DISTILLATION_FILE is set, and DISTILLATION_WEIGHT is 0; set it too")
    if node.DISTILLATION_WEIGHT == 0:
        return None
    if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
        raise UserError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; regions are distilled from RGB or BGR photos")
    classifier = next((module for module in roi_heads.modules() if isinstance(module, ZeroShotClassifier)), None)
    if classifier is None:
        raise UserError("MODEL.ROI_BOX_HEAD.DISTILLATION_WEIGHT needs the projection of USE_ZEROSHOT_CLS True")
    width = classifier.linear.out_features
    if node.DISTILLATION_FILE:
        return None
    return RegionEmbedder(clip.NAME, clip.PRETRAINED or None, width, half_precision=cfg.FP16)
