"""From a record to a test example: the photo resized as in evaluation, with the size of the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from pomp_engine.data.photos import read_record_photo
from prompt_core.errors import UserError


class EvaluationMapper:
    """Examples for evaluation: the record, and ``image``, (3, h, w) uint8, resized.

    ``height`` and ``width`` are those of the original photo, which predictions are brought back to. Label files are not
    read: the evaluator reads them in their own size.

    Args:
        short_side: pixels that the shorter side gets, unless the longer one would exceed ``longest``; 0 keeps the size.
        longest: pixels.
        image_format: order of the channels.

    Raises:
        UserError: when a size is negative.
    """

    def __init__(self, short_side: int, longest: int, image_format: str = "RGB") -> None:
        if short_side < 0 or longest < 1:
            raise UserError(
                f"INPUT.MIN_SIZE_TEST is {short_side}, INPUT.MAX_SIZE_TEST {longest}; expected positive numbers of "
                "pixels"
            )
        self.resize = T.ResizeShortestEdge(short_side, longest)
        self.image_format = image_format

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Read and resize the photo of a record, which is left as it is.

        Raises:
            UnreadableImage: a UserError that names the file, when the photo cannot be read or has another size than the
                record says.
        """
        example = dict(record)
        augmented = T.AugInput(read_record_photo(example, self.image_format))  # also sets height and width
        self.resize(augmented)
        example["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))  # (3, h, w)
        return example


def build_test_mapper(cfg: CfgNode) -> EvaluationMapper:
    """The mapper of an evaluation by ``INPUT``, as published files set it.

    Raises:
        UserError: as :class:`EvaluationMapper`.
    """
    return EvaluationMapper(int(cfg.INPUT.MIN_SIZE_TEST), int(cfg.INPUT.MAX_SIZE_TEST), cfg.INPUT.FORMAT)
