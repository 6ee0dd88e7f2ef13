"""Masks on a small grid over each box, and the same in the photo: one at a time, however large the photo is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from pycocotools import mask as run_lengths
from torch import Tensor, nn

BOX_MASKS = "box_masks"  # field of Instances: (n, M, M) probabilities
THRESHOLD = 0.5
# Pixels that are interpolated at once: 16 MiB with their coordinates.
AT_ONCE = 1 << 20


class GivenMasks:
    """Masks of the whole photo that are known in run lengths, as the field ``box_masks`` of detections.

    Rows are chosen and moved as those of a tensor; the masks themselves stay where they are.

    Args:
        masks: compressed run lengths.
        rows: (n,) which of them each detection has.
    """

    def __init__(self, masks: Sequence[dict[str, Any]], rows: Tensor) -> None:
        self._masks, self._rows = masks, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> GivenMasks:
        return GivenMasks(self._masks, self._rows[rows])

    def to(self, *arguments: Any, **options: Any) -> GivenMasks:
        """As of a tensor."""
        return GivenMasks(self._masks, self._rows.to(*arguments, **options))

    def run_lengths(self) -> list[dict[str, Any]]:
        """Those of each detection."""
        return [dict(self._masks[row]) for row in self._rows.tolist()]


class BoxMaskDetector(nn.Module):
    """A detector in inference whose masks stay on their boxes, as ``box_masks``.

    Args:
        detector: with the ``inference`` of Detectron2's GeneralizedRCNN, also inside DistributedDataParallel.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector: Any = getattr(detector, "module", detector)
        self.train(self.detector.training)

    @torch.no_grad()
    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detections of each image, in the size that ``height`` and ``width`` ask for."""
        results = []
        for example, found in zip(batch, self.detector.inference(batch, do_postprocess=False), strict=True):
            height, width = found.image_size
            size = example.get("height", height), example.get("width", width)
            results.append({"instances": in_photo(found, *size)})
        return results


def with_box_masks(detector: nn.Module) -> nn.Module:
    """A two-stage detector as :class:`BoxMaskDetector`; others of Detectron2, which have no masks, as they are."""
    inner = getattr(detector, "module", detector)
    return BoxMaskDetector(detector) if callable(getattr(inner, "inference", None)) else detector


def in_photo(found: Instances, height: int, width: int) -> Instances:
    """Detections of a resized image in the photo's own pixels; masks (n, 1, M, M) become ``box_masks`` (n, M, M)."""
    if found.has("pred_masks"):
        found.set(BOX_MASKS, found.pred_masks[:, 0])
        found.remove("pred_masks")
    return detector_postprocess(found, height, width)


def paste_masks(detections: Instances) -> Tensor:
    """All masks in the photo, (n, H, W) bool: n bytes for each pixel."""
    height, width = detections.image_size
    given = detections.get(BOX_MASKS)
    if isinstance(given, GivenMasks):
        decoded = [run_lengths.decode(mask) for mask in given.run_lengths()]
        return torch.from_numpy(np.stack(decoded)).bool() if decoded else torch.zeros(0, height, width).bool()
    masks = torch.zeros((len(detections), height, width), dtype=torch.bool)
    boxes = detections.pred_boxes.tensor
    for mask, box_mask, box in zip(masks, detections.get(BOX_MASKS), boxes, strict=True):
        for (rows, columns), inside in _pasted(box_mask, box, height, width):
            mask[rows, columns] = inside
    return masks


def encode_masks(detections: Instances) -> list[dict[str, Any]]:
    """Compressed run lengths of all masks in the photo; memory holds one mask, of one byte for each of its pixels.

    Detections that share a box and its mask, as several words of one thing do, share the work.
    """
    height, width = detections.image_size
    if isinstance(detections.get(BOX_MASKS), GivenMasks):
        return detections.get(BOX_MASKS).run_lengths()
    if detections.pred_boxes.device.type != "cpu":  # Detectron2 rounds otherwise there
        pairs = zip(detections.get(BOX_MASKS).split(1), detections.pred_boxes.tensor.split(1), strict=True)
        pasted = (paste_masks_in_image(mask, box, (height, width), THRESHOLD) for mask, box in pairs)
        return [_encoded(np.asfortranarray(mask[0].cpu().numpy(), dtype=np.uint8)) for mask in pasted]
    canvas = np.zeros((height, width), dtype=np.uint8, order="F")  # as pycocotools reads it
    encoded: list[dict[str, Any]] = []
    known: dict[tuple[bytes, bytes], dict[str, Any]] = {}
    for box_mask, box in zip(detections.get(BOX_MASKS), detections.pred_boxes.tensor, strict=True):
        key = box_mask.numpy().tobytes(), box.numpy().tobytes()
        if key not in known:
            written = []
            for place, inside in _pasted(box_mask, box, height, width):
                canvas[place] = inside.numpy()
                written.append(place)
            known[key] = _encoded(canvas)
            for place in written:
                canvas[place] = 0
        encoded.append(dict(known[key]))
    return encoded


def _encoded(mask: np.ndarray) -> dict[str, Any]:
    rle = run_lengths.encode(mask[:, :, None])[0]
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def _pasted(mask: Tensor, box: Tensor, height: int, width: int) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """The part of a photo around a box, in bands of columns: where it is, and whether its pixels are in the mask.

    As Detectron2's ``paste_masks_in_image`` on the CPU: bilinear between the centres of the grid's cells, zero outside.

    Args:
        mask: (M, M) probabilities.
        box: (4,) x0, y0, x1, y1 in pixels.
    """
    x0, y0, x1, y1 = box
    left, top = (max(0, int(edge.floor()) - 1) for edge in (x0, y0))
    right, bottom = min(width, int(x1.ceil()) + 1), min(height, int(y1.ceil()) + 1)
    if right <= left or bottom <= top:
        return
    y = (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - y0) / (y1 - y0) * 2 - 1
    step = max(1, AT_ONCE // (bottom - top))
    for start in range(left, right, step):
        stop = min(right, start + step)
        x = (torch.arange(start, stop, dtype=torch.float32) + 0.5 - x0) / (x1 - x0) * 2 - 1
        grid = torch.stack([x[None, :].expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=2)  # (h, w, 2)
        values = F.grid_sample(mask.float()[None, None], grid[None], align_corners=False)[0, 0]  # (h, w)
        yield (slice(top, bottom), slice(start, stop)), values >= THRESHOLD
