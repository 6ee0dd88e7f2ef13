"""A segmenter whose regions are perfect: what is left of its error is that of CLIP's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pomp_seg.best_classes import PixelScores
from pomp_seg.models.mask_former import ZeroShotMaskFormer
from prompt_core.errors import UserError


class OracleSegmenter(nn.Module):
    """A segmenter that is given the regions of each image, one for every class that is there.

    CLIP alone names them, with the segmenter's prompt and crops: a region that is given has no learned embedding.

    Inputs and outputs are the segmenter's in inference; each input also has ``instances`` with ``gt_masks`` (R, H, W)
    in the size of the resized image, as :func:`pomp_seg.data.semantic_mapper.build_test_mapper` gives them.

    Args:
        segmenter: a model of :func:`pomp_seg.build_segmenter`, also inside DistributedDataParallel.

    Raises:
        UserError: for a segmenter that does not look at regions.
    """

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter: Any = getattr(segmenter, "module", segmenter)
        if not isinstance(self.segmenter, ZeroShotMaskFormer):
            raise UserError(
                f"ORACLE is True, but {type(self.segmenter).__name__} cannot name given regions; use it with "
                "META_ARCHITECTURE ZeroShotMaskFormer"
            )
        self.train(self.segmenter.training)

    def forward(self, batch: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """For each image ``{"sem_seg": (C, height, width)}``, class scores of each pixel, 0 outside all regions.

        Raises:
            UserError: when an image has no ground truth.
        """
        return [{"sem_seg": scores.all()} for scores in self.pixel_scores(batch)]

    @torch.no_grad()
    def pixel_scores(self, batch: Sequence[dict[str, Any]]) -> list[PixelScores]:
        """The same, for each image before it has the size of the output."""
        results = []
        for example in batch:
            if "instances" not in example:
                raise UserError(f"image {example.get('file_name', '')} has no regions of its ground truth")
            masks = example["instances"].gt_masks.float()  # (R, H, W)
            results.append(self.segmenter.named_regions(example, masks))
        return results
