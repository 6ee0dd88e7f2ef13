"""Label images with one class index per pixel, read with checks that name the file and the fault."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prompt_core.data.open_photo import UnreadableImage, opened_image, orientation, upright
from prompt_core.errors import UserError
from prompt_core.files import atomic_path

_PNG = b"\x89PNG\r\n\x1a\n"


def read_label_map(path: str | Path) -> np.ndarray:
    """Class indices of a label image of 8 or 16 bits, (H, W) int32. Images with a palette give their indices.

    Raises:
        UserError: when the file is missing, damaged or not an image, or has colours instead of indices.
    """
    if not Path(path).is_file():
        raise UserError(f"label file {path} does not exist; prepare the data set, or correct the folder of its labels")
    try:
        with opened_image(path) as image:
            labels = np.asarray(upright(image, orientation(image)))
    except UnreadableImage as error:
        raise UserError(f"cannot read label file {path}: {error.reason}; prepare it again") from error
    if not _fits_checksums(path):
        raise UserError(f"cannot read label file {path}: it does not fit its checksums; prepare it again")
    if labels.ndim != 2 or labels.dtype.kind not in "uib":
        raise UserError(
            f"label file {path} has {labels.shape[2] if labels.ndim > 2 else 1} channels of {labels.dtype}; expected "
            "one of class indices, such as a PNG of 8 or 16 bits"
        )
    return labels.astype(np.int32)


def _fits_checksums(path: str | Path) -> bool:
    """Whether a PNG is what the CRC-32 of its chunks say, which Pillow does not check for pixels; True for others."""
    with open(path, "rb") as stream:
        if stream.read(len(_PNG)) != _PNG:
            return True
        while len(header := stream.read(8)) == 8:
            digest, left = zlib.crc32(header[4:]), int.from_bytes(header[:4], "big")
            while left and (part := stream.read(min(left, 1 << 20))):
                digest, left = zlib.crc32(part, digest), left - len(part)
            if digest != int.from_bytes(stream.read(4), "big"):
                return False
            if header[4:] == b"IEND":
                return True
    return False


def write_label_map(path: Path, labels: np.ndarray, num_classes: int) -> None:
    """A label map as PNG, of 8 bits where all of ``num_classes`` and the ignored value 255 fit, else of 16 bits."""
    kind = np.uint8 if num_classes <= 255 else np.uint16
    with atomic_path(path) as temporary:
        Image.fromarray(labels.astype(kind)).save(temporary, "PNG")


def check_label_values(labels: np.ndarray, path: str | Path, num_classes: int, ignore_label: int) -> None:
    """Check that a label map has only class indices and the ignored value.

    Args:
        labels: (H, W) integers.
        path: of the file, for the message.

    Raises:
        UserError: for the first other value, with the file.
    """
    outside = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_label)
    if outside.any():
        raise UserError(
            f"label file {path} has the value {labels[outside][0]}; expected 0..{num_classes - 1}, or {ignore_label} "
            "for pixels to ignore; prepare the labels for this list of classes"
        )


def read_record_labels(
    record: dict[str, Any], image_shape: Sequence[int], num_classes: int, ignore_label: int
) -> np.ndarray:
    """The label map of a record, (H, W) int32, checked against its photo and its classes.

    Args:
        record: with ``sem_seg_file_name``, and ``file_name`` for messages.
        image_shape: (H, W, …) of the photo in pixels.

    Raises:
        UserError: when the file is missing or not a label map, its size is not the photo's, or it has values other than
            the classes and ``ignore_label``.
    """
    if "sem_seg_file_name" not in record:
        raise UserError(f"image {record['file_name']} has no 'sem_seg_file_name'; give a data set with semantic labels")
    path = record["sem_seg_file_name"]
    labels = read_label_map(path)
    if labels.shape != tuple(image_shape[:2]):
        raise UserError(
            f"label file {path} is {labels.shape[1]} x {labels.shape[0]} pixels (width x height), its photo "
            f"{record['file_name']} {image_shape[1]} x {image_shape[0]}; both must have the same size"
        )
    check_label_values(labels, path, num_classes, ignore_label)
    return labels


def present_classes(labels: np.ndarray, ignore_label: int) -> np.ndarray:
    """Class indices that occur in a checked label map, ascending, without ``ignore_label``: (K,) int64."""
    classes = np.flatnonzero(np.bincount(labels.ravel()))
    return classes[classes != ignore_label]


def check_ignore_label(num_classes: int, ignore_label: int) -> None:
    """Check that the ignored value is not a class.

    Raises:
        UserError: when it is, or when there is no class at all.
    """
    if num_classes < 1:
        raise UserError(f"{num_classes} classes for semantic labels; expected at least one")
    if 0 <= ignore_label < num_classes:
        raise UserError(
            f"ignored value {ignore_label} is also one of {num_classes} classes; use a greater one, such as 65535 for "
            "more than 255 classes"
        )
