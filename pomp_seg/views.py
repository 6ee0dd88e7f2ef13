"""A photo looked at more than once in a test: at several sizes, mirrored, in windows, and refined by its colours.

The switches are ZSSeg's (``TEST.AUG``, ``TEST.SLIDING_WINDOW``, ``TEST.DENSE_CRF``), which all its published files have
off. Source: its ``mask_former/test_time_augmentation.py`` on Detectron2's ``DatasetMapperTTA``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from torch import Tensor, nn

from pomp_seg.best_classes import PixelScores
from pomp_seg.dense_crf import crf_package, refine
from pomp_seg.sliding_windows import by_windows, window_side
from prompt_core.data.open_photo import read_photo
from prompt_core.errors import UserError


@dataclass(frozen=True)
class ViewOptions:
    """What is looked at.

    Attributes:
        sizes: shorter sides; none takes the size of the example.
        longest: of the longer side, for ``sizes``.
        mirrored: also flipped from left to right, for ``sizes``.
        window: side of windows, 0 for that of the table, None for whole photos.
        overlap: of windows.
        crf: refine by colours.
    """

    sizes: tuple[int, ...] = ()
    longest: int = 4000
    mirrored: bool = True
    window: int | None = None
    overlap: float = 2 / 3
    crf: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ViewOptions:
        """By ``TEST``.

        Raises:
            UserError: for combinations that have no meaning: regions that are given for one size, and a CRF of shares.
        """
        test = cfg.TEST
        options = cls(
            tuple(test.AUG.MIN_SIZES) if test.AUG.ENABLED else (),
            test.AUG.MAX_SIZE if test.AUG.ENABLED else cls.longest,
            bool(test.AUG.FLIP) if test.AUG.ENABLED else cls.mirrored,
            int(test.SLIDING_TILE_SIZE) if test.SLIDING_WINDOW else None,
            float(test.SLIDING_OVERLAP),
            bool(test.DENSE_CRF),
        )
        if cfg.ORACLE and (options.sizes or options.window is not None):
            raise UserError("ORACLE gives regions of whole photos; leave TEST.AUG.ENABLED and SLIDING_WINDOW False")
        if test.AUG.ENABLED and not options.sizes:
            raise UserError("TEST.AUG.ENABLED needs TEST.AUG.MIN_SIZES; give one size at least")
        if options.crf and cfg.MODEL.SEM_SEG_HEAD.BACKGROUND:
            raise UserError(
                "TEST.DENSE_CRF gives probabilities among the words alone; leave MODEL.SEM_SEG_HEAD.BACKGROUND empty, "
                "or TEST.DENSE_CRF False"
            )
        if options.crf:
            crf_package()
        return options

    @property
    def name(self) -> str:
        """For folders and protocols: ``sizes_windows_crf``, or empty for one look at a whole photo."""
        chosen = {"sizes": bool(self.sizes), "windows": self.window is not None, "crf": self.crf}
        return "_".join(name for name, is_on in chosen.items() if is_on)


class SeveralViews(nn.Module):
    """A segmenter whose scores are the mean over several views of each photo.

    Inputs and outputs are the segmenter's in inference. All scores of a photo are in memory, (C, H, W) in its size.

    Args:
        segmenter: with ``pixel_scores(batch)``, also inside DistributedDataParallel.
    """

    def __init__(self, segmenter: nn.Module, options: ViewOptions) -> None:
        super().__init__()
        self.segmenter: Any = getattr(segmenter, "module", segmenter)
        self.options = options
        self.train(self.segmenter.training)

    def forward(self, batch: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """For each image ``{"sem_seg": (C, height, width)}``."""
        return [{"sem_seg": scores.all()} for scores in self.pixel_scores(batch)]

    @torch.no_grad()
    def pixel_scores(self, batch: Sequence[dict[str, Any]]) -> list[PixelScores]:
        """The same, as other segmenters give them; ``photo`` (H, W, 3) uint8 in RGB of an example, else its file, is
        what the CRF looks at."""
        results = []
        for example in batch:
            height, width = example["image"].shape[-2:]
            size = int(example.get("height", height)), int(example.get("width", width))
            views = views_of(example["image"], self.options)
            total, count = torch.zeros(0), 0
            for image, mirrored in views:
                scores = self._scores(example | {"image": image}, size)
                scores = scores.flip(-1) if mirrored else scores
                total, count = (total + scores if count else scores), count + 1
            mean = total / count if count > 1 else total
            if self.options.crf:
                given = example.get("photo")
                mean = refine(mean, read_photo(example["file_name"]) if given is None else given)
            results.append(PixelScores(mean, size))
        return results

    def _scores(self, example: dict[str, Any], size: tuple[int, int]) -> Tensor:
        """(C, height, width) of one view."""
        if self.options.window is None:
            (scores,) = self.segmenter.pixel_scores([example | {"height": size[0], "width": size[1]}])
            return scores.all()
        plain = {key: value for key, value in example.items() if key not in ("height", "width")}

        def of_window(window: Tensor) -> Tensor:
            (scores,) = self.segmenter.pixel_scores([plain | {"image": window}])
            return scores.all()

        image = example["image"]
        height, width = image.shape[-2:]
        side = window_side(height, width, self.options.window)
        return PixelScores(by_windows(image, of_window, side, self.options.overlap), size).all()


def views_of(image: Tensor, options: ViewOptions) -> Iterator[tuple[Tensor, bool]]:
    """An image (3, h, w) uint8 at each size, plain and mirrored, with whether it is; or as it is.

    As published, the sizes are made from the image that the test's mapper has resized, not from the photo.
    """
    if not options.sizes:
        yield image, False
        return
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    for size in options.sizes:
        resized = ResizeShortestEdge(size, options.longest).get_transform(pixels).apply_image(pixels)
        view = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        yield view, False
        if options.mirrored:
            yield view.flip(-1), True


def with_views(segmenter: nn.Module, cfg: CfgNode) -> nn.Module:
    """The segmenter with the views that ``TEST`` asks for; itself where it asks for none.

    Raises:
        UserError: as :meth:`ViewOptions.from_config`.
    """
    options = ViewOptions.from_config(cfg)
    return SeveralViews(segmenter, options) if options.name else segmenter
