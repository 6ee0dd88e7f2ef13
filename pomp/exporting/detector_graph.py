"""The embedded detector without Detectron2: a photo, words and a background in; boxes, scores and masks out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from pomp.exporting.image_graph import unit_rows
from pomp.exporting.model_graph import Graph
from pomp_det.heads.region_words import RegionWordsROIHeads
from pomp_det.heads.seen_words import SeenWordsClassifier, seen_evidence
from pomp_det.proposals.cells import CellProposals
from pomp_det.proposals.targets import level_points
from pomp_engine.backbones.nanodet import LEVELS, side_lengths
from prompt_core.errors import UserError


class DetectorGraph(nn.Module):
    """What :class:`pomp_det.model.CustomRCNN` computes with :class:`RegionWordsROIHeads`, for one square photo.

    The steps are those of :class:`CellProposals`, of the heads, and of Detectron2's mask head, on tensors alone. The
    last step of a detector, suppression within each word, is left to who knows the words' thresholds.
    """

    names_of_seen: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: Any) -> None:
        """
        Args:
            model: a detector in evaluation mode, of such heads.
        """
        super().__init__()
        heads, proposals = model.roi_heads, model.proposal_generator
        classifier: SeenWordsClassifier = heads.last_predictor.cls_score
        self.backbone, self.classifier = model.backbone, classifier
        self.mask_head = heads.mask_head if heads.mask_on else None
        self.mask_pooler = heads.mask_pooler if heads.mask_on else None
        self.mask_features = list(heads.mask_in_features) if heads.mask_on else []
        self.words_scale = heads.box_pooler.words_scale
        self.reverse = model.input_format == "BGR"
        self.has_background = classifier.other_names is not None
        self.num_seen = proposals.num_classes
        self.least, self.overlap = proposals.score_threshold, proposals.nms_threshold
        self.limit_per_level, self.limit = proposals.limit_per_level, proposals.limit
        self.register_buffer("names_of_seen", _names_of(classifier.seen_classes, self.num_seen))
        self.register_buffer("pixel_mean", model.pixel_mean.clone())
        self.register_buffer("pixel_std", model.pixel_std.clone())

    def forward(
        self,
        photo: Tensor,
        class_features: Tensor,
        background: Tensor | None = None,
        untuned_features: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """One photo.

        Args:
            photo: (1, 3, S, S) RGB in 0..255, padded to the right and below with ``pad_value``.
            class_features: (N, E) unit-norm text features of the words.
            background: (B, E) unit-norm features of what else a region may show, where the detector has it.
            untuned_features: (N, E) unit-norm features of the words in the template of the seen names, where
                ``class_features`` are those of a learned prompt.

        Returns:
            ``boxes`` (K, 4) in pixels, x0, y0, x1, y1; ``scores`` (K, N) of each box and word; with masks ``masks``
            (K, M, M), probabilities on a grid over each box.
        """
        image = photo.flip(1) if self.reverse else photo
        features = self.backbone((image - self.pixel_mean) / self.pixel_std)
        size = photo.shape[-1]
        boxes, objectness, logits = self._proposals(features, size)
        pooled = roi_align(features["words"], [boxes], 1, self.words_scale, sampling_ratio=4, aligned=True).flatten(1)
        evidence = seen_evidence(logits)
        embedding = self.classifier.embed(F.normalize(pooled, dim=1))  # (K, E)
        class_logits = self._class_logits(embedding, evidence, class_features, background, untuned_features)
        scores = (class_logits.sigmoid() * objectness[:, None]).sqrt()  # (K, N)
        if self.mask_head is None:
            return boxes, scores
        return boxes, scores, self._masks(features, boxes)

    def _proposals(self, features: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (K, 4), their probabilities (K,) and the logits (K, S) of their cells."""
        boxes, heat, logits = [], [], []
        for level in LEVELS:
            cells = features[f"cells{level}"][0]  # (S + 44, H, W)
            height, width = cells.shape[-2:]
            flat = cells.flatten(1).T  # (H * W, S + 44)
            best = flat[:, : self.num_seen].max(dim=1).values.sigmoid()
            rows = best.topk(min(self.limit_per_level, height * width)).indices
            sides = side_lengths(flat[rows, self.num_seen :]) * 2**level
            points = level_points(height, width, 2**level, cells.device)[rows]
            corner = points - sides[:, :2]
            opposite = torch.maximum(points + sides[:, 2:], corner + 0.01)
            boxes.append(torch.cat((corner, opposite), dim=1))
            heat.append(best[rows])
            logits.append(flat[rows, : self.num_seen])
        every_box, every_heat, every_logit = torch.cat(boxes), torch.cat(heat), torch.cat(logits)
        likely = (every_heat > self.least).nonzero().squeeze(1)
        kept = likely[nms(every_box[likely], every_heat[likely], self.overlap)][: self.limit]
        clipped = every_box[kept].clamp(0, size)
        inside = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(dim=1).nonzero().squeeze(1)
        kept = kept[inside]
        return clipped[inside], every_heat[kept], every_logit[kept]

    def _class_logits(
        self,
        embedding: Tensor,
        evidence: Tensor,
        class_features: Tensor,
        background: Tensor | None,
        untuned: Tensor | None,
    ) -> Tensor:
        """Logits (K, N), as :class:`SeenWordsClassifier` gives them."""
        own = self.classifier
        part, shares = self._seen_shares(class_features if untuned is None else untuned)
        cosine = own.temperature * embedding @ class_features.T  # (K, N)
        bias: Any = own.unseen_bias
        if background is not None:
            others = own.temperature * embedding @ background.T  # (K, B)
            total = torch.logaddexp(_log_sum_exp(cosine), _log_sum_exp(others))
            bias = own.share_bias - total[:, None]
        return (1 - part) * (cosine + bias) + part * (evidence @ shares.T)

    def _seen_shares(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """As :func:`pomp_det.heads.seen_words.seen_shares`, by a table of names: a scatter would fix N."""
        own = self.classifier
        cosine = F.pad(text @ own.seen_words.T, (0, 1), value=-1.0)[:, self.names_of_seen].amax(dim=2)  # (N, S)
        part = (cosine.amax(dim=1) - own.closeness.none) / (own.closeness.whole - own.closeness.none)
        return part.clamp(0, 1), (own.closeness.sharpness * cosine).softmax(dim=1)

    def _masks(self, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """Probabilities (K, M, M); a box is pooled from the level that Detectron2's pooler assigns it to."""
        pooler: Any = self.mask_pooler
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        level = torch.floor(pooler.canonical_level + torch.log2(area.sqrt() / pooler.canonical_box_size + 1e-8)).clamp(
            pooler.min_level, pooler.max_level
        )
        pooled: Any = 0
        for place, name in enumerate(self.mask_features):
            one = pooler.level_poolers[place]
            values = roi_align(
                features[name], [boxes], one.output_size, one.spatial_scale, one.sampling_ratio, aligned=True
            )
            pooled = pooled + values * (level == pooler.min_level + place)[:, None, None, None]
        head: Any = self.mask_head
        return head.layers(pooled)[:, 0].sigmoid()


def detector_graph(predictor: Any) -> Graph:
    """The graph of an :class:`pomp_det.predictor.OpenVocabularyPredictor`.

    Raises:
        UserError: a detector whose proposals or heads are of another kind.
    """
    model = predictor.model
    heads = model.roi_heads
    if not isinstance(heads, RegionWordsROIHeads) or not isinstance(model.proposal_generator, CellProposals):
        raise UserError(
            f"{type(heads).__name__} on {type(model.proposal_generator).__name__} is not exported: Detectron2 keeps "
            "its proposals and stages in Instances, which no exporter follows; exported are detectors like "
            "mini/detector, the image side of any CLIP, and class matrices for --format detic"
        )
    module = DetectorGraph(model).eval()
    side = int(predictor.cfg.INPUT.MAX_SIZE_TEST)
    mean = [float(value) for value in model.pixel_mean.flatten()]
    pad_value = mean[::-1] if module.reverse else mean
    words = module.classifier.zs_weight[:, :-1].T.contiguous()
    untuned = module.classifier.untuned
    if untuned is not None and not module.has_background:
        raise UserError("words of a learned prompt are exported with a background; set MODEL.ROI_BOX_HEAD.BACKGROUND")
    generator = torch.Generator().manual_seed(0)

    def inputs(count: int, background: int) -> dict[str, Tensor]:
        # Blobs of colour, not noise: in noise nothing is found, and nothing would be compared.
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        photo = 255 * F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
        given = {"photo": photo, "class_features": unit_rows(count, words.shape[1], generator)}
        given["class_features"][0] = words[0]
        if untuned is not None:
            background_too = {"background": unit_rows(background, words.shape[1], generator)}
            return given | background_too | {"untuned_features": given["class_features"].flip(0)}
        return given | (
            {"background": unit_rows(background, words.shape[1], generator)} if module.has_background else {}
        )

    notes = {
        "task": "detect",
        "photo": {
            "size": side,
            "resize": "the longer side to size, bilinear; at the top left",
            "pad_value": pad_value,
            "colours": "RGB, 0..255",
        },
        "class_features": {"width": words.shape[1]},
        "suppression": {"iou": float(heads.last_predictor.test_nms_thresh), "within": "each word"},
    }
    free = {"class_features": (0,), "background": (0,), "untuned_features": (0,)}
    outputs = ("boxes", "scores", *(["masks"] if module.mask_head is not None else []))
    return Graph(module, inputs(3, 5), inputs(7, 11), free, outputs, "boxes", notes)


def _names_of(classes: Tensor, count: int) -> Tensor:
    """Rows of the names of each class (S, most), filled with the row behind the last name.

    Args:
        classes: (N,) the class of each name.
    """
    rows = [(classes == number).nonzero().squeeze(1) for number in range(count)]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float(len(classes))).long()


def _log_sum_exp(logits: Tensor) -> Tensor:
    """Over columns; torch's own asks whether there are rows, which tracing cannot answer."""
    highest = logits.amax(dim=1)
    return highest + (logits - highest[:, None]).exp().sum(dim=1).log()
