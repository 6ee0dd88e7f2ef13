"""How often each class occurs in the training data, or why that is not known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from prompt_core.documents.schema import Count, Int64, check_each
from prompt_core.errors import UserError
from prompt_core.files import read_json


@dataclass(frozen=True)
class ClassCounts:
    """Data of a box loss on its C classes.

    A file of counts that is absent or of other classes is no error of a model that only predicts, so the reason is kept
    and raised by what needs the counts.

    Attributes:
        weights: (C,) a power of each class's training images, zeros where they are missing; None for a loss that does
            not go by them.
        held_out: (C,) true for classes that take no part in the box loss; None for none.
        missing: why the counts, or the frequencies that ``held_out`` goes by, are not there; empty where they are.
    """

    weights: Tensor | None = None
    held_out: Tensor | None = None
    missing: str = ""

    @classmethod
    def read(
        cls, path: str | Path, num_classes: int, power: float = 0.5, held_out: str = "", more_classes: bool = False
    ) -> ClassCounts:
        """From a JSON list of category objects with ``id``, ``image_count`` and, where known, ``frequency``.

        Args:
            power: of the image count.
            held_out: frequency letters of the classes that are held out.
            more_classes: the detector may have classes behind those of the file; they have no images.
        """
        try:
            counts, frequencies = _read(path, num_classes, more_classes)
        except UserError as error:
            missing = f"{error} (MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH)"
            return cls(torch.zeros(num_classes).pow(power), missing=missing)
        weights = counts.pow(power)
        rows = torch.tensor([bool(letter) and letter in held_out for letter in frequencies])
        if bool(rows.any()):
            return cls(weights, rows)
        if not held_out:
            return cls(weights)
        return cls(
            weights,
            missing=f"no class in {path} has a frequency of MODEL.ROI_BOX_HEAD.HELD_OUT_FREQUENCIES ({held_out!r})",
        )

    def of(self, num_classes: int) -> ClassCounts:
        """Of a detector that has ``num_classes`` now: those of another number of classes say nothing about them."""
        if self.weights is None or len(self.weights) == num_classes:
            return self
        missing = f"they are of {len(self.weights)} classes, the detector has {num_classes} now"
        return ClassCounts(self.weights.new_zeros(num_classes), missing=missing)

    def federated_weights(self) -> Tensor:
        """(C,) weights that classes are drawn by, 0 for those that are held out.

        Raises:
            UserError: why they are not known.
        """
        if self.missing:
            raise UserError(f"this loss needs the images per class: {self.missing}")
        assert self.weights is not None, "a loss that goes by counts has weights"
        return self.weights if self.held_out is None else self.weights.masked_fill(self.held_out, 0)

    def held_out_of(self, num_classes: int) -> Tensor:
        """(C,) true for the classes that the box loss was asked to leave out.

        Raises:
            UserError: why they are not known.
        """
        if self.missing:
            raise UserError(f"held-out classes need the frequency of each class: {self.missing}")
        if self.held_out is None or len(self.held_out) != num_classes:
            count = 0 if self.held_out is None else len(self.held_out)
            raise UserError(f"held-out classes are known among {count} classes, the detector has {num_classes} now")
        return self.held_out


class CategoryCount(msgspec.Struct):
    """Training images of a class, and LVIS's letter of its frequency."""

    id: Int64
    image_count: Count
    frequency: str | None = None


def _read(path: str | Path, num_classes: int, more_classes: bool) -> tuple[Tensor, list[str]]:
    """Training images (C,) and frequency letters of the classes, in order of their ids."""
    categories: Any = read_json(path)
    if not isinstance(categories, list):
        raise UserError(f"class counts {path}: a JSON list of category objects is expected")
    check_each(categories, CategoryCount, f"class counts {path}", "")
    more = max(num_classes - len(categories), 0) if more_classes else 0
    if len(categories) + more != num_classes:
        raise UserError(f"class counts {path} are of {len(categories)} classes; the detector has {num_classes}")
    categories = sorted(categories, key=lambda category: category["id"])
    counts = torch.tensor([float(category["image_count"]) for category in categories] + [0.0] * more)
    return counts, [str(category.get("frequency") or "") for category in categories] + [""] * more
