"""Masks from outside (``MODEL.PROPOSALS.FILE``) in the size of the image that a segmenter looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pycocotools import mask as run_lengths
from torch import Tensor

from pomp_engine.data.proposal_files import ProposalFile, compressed


def given_masks(file: ProposalFile, example: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The regions of a photo, best first; none where the file has no entry of it.

    Args:
        example: ``image`` (3, h, w), with ``image_id`` or ``file_name``; ``photo_size``, else ``height`` and ``width``,
            of the photo where it was resized.

    Returns:
        shares (R, h, w) of each pixel in 0..1, of the box where regions have no masks; and scores (R,) in 0..1.
    """
    image = example["image"]
    size = tuple(image.shape[-2:])
    height, width = example.get("photo_size") or (example.get("height", size[0]), example.get("width", size[1]))
    regions = file.regions(example, height, width)
    if regions is None or len(regions.boxes) == 0:
        return torch.zeros(0, *size), torch.zeros(0)
    masks = regions.masks or [
        compressed([[x0, y0, x1, y0, x1, y1, x0, y1]], height, width) for x0, y0, x1, y1 in regions.boxes.tolist()
    ]
    resized = torch.empty(len(masks), *size)
    for row, mask in enumerate(masks):  # one at a time in the size of the photo
        whole = torch.from_numpy(run_lengths.decode(mask))[None, None].float()
        resized[row] = F.interpolate(whole, size=size, mode="bilinear", align_corners=False)[0, 0]
    return resized, torch.from_numpy(regions.scores)
