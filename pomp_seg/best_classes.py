"""The best class of each pixel, in memory that does not grow with the number of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# torch's bilinear resizing on the CPU rounds three classes together otherwise than one by one, and where the sum of
# height and width is at most this any number of classes. Those stay together, up to 128 MiB in float32.
SMALL, SMALL_AT_ONCE = 128, 2**25


@dataclass(frozen=True)
class PixelScores:
    """Class scores of the pixels of one image before they have its size: all of a photo's take gigabytes.

    Attributes:
        maps: (C, h, w).
        size: H, W of the image.
        less: (C,) what the score of each class is lowered by at the image's size, or None.
    """

    maps: Tensor
    size: tuple[int, int]
    less: Tensor | None = None

    def all(self) -> Tensor:
        """All of them in the image's size, (C, H, W): the plain reference."""
        if self.maps.shape[-2:] == self.size and self.less is None:
            return self.maps
        return self._resized(0, len(self.maps))

    @torch.no_grad()
    def best(self) -> tuple[Tensor, Tensor]:
        """The first of the classes with the greatest score, as of :meth:`all`.

        Memory for a photo of N pixels is 13 N bytes (24 N of three classes), whatever the number of classes.

        Returns:
            Class indices (H, W) int32 and their scores (H, W), on the device of the maps.
        """
        labels = torch.zeros(self.size, dtype=torch.int32, device=self.maps.device)
        best = torch.full(self.size, -torch.inf, dtype=self.maps.dtype, device=self.maps.device)
        step = self._together()
        for start in range(0, len(self.maps), step):
            for row, scores in enumerate(self._resized(start, start + step), start):
                better = scores > best
                torch.where(better, scores, best, out=best)
                labels.masked_fill_(better, row)
                del scores, better  # before the next ones are made
        return labels, best

    def _together(self) -> int:
        """Classes that are resized at once."""
        if sum(self.size) <= SMALL:
            return max(1, SMALL_AT_ONCE // (self.size[0] * self.size[1]))
        return 3 if len(self.maps) == 3 else 1

    def _resized(self, start: int, stop: int) -> Tensor:
        """Some classes in the image's size, (n, H, W)."""
        part = F.interpolate(self.maps[None, start:stop], size=self.size, mode="bilinear", align_corners=False)[0]
        return part if self.less is None else part - self.less[start:stop, None, None]


class BestClasses(nn.Module):
    """A segmenter in inference that gives class indices (H, W) int32 as ``sem_seg``, instead of all scores.

    Args:
        segmenter: with ``pixel_scores(batch)``, also inside DistributedDataParallel.
    """

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter: Any = getattr(segmenter, "module", segmenter)
        self.train(self.segmenter.training)

    @torch.no_grad()
    def forward(self, batch: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Predictions for a batch."""
        return [{"sem_seg": scores.best()[0]} for scores in self.segmenter.pixel_scores(batch)]


def best_classes(maps: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The best class of each pixel at another size, on the CPU.

    Args:
        maps: class scores (C, h, w).
        size: H, W.

    Returns:
        Class indices (H, W) int32 and their scores (H, W) float32.
    """
    labels, best = PixelScores(maps, size).best()
    return labels.cpu(), best.float().cpu()
