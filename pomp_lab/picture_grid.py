"""A grid of photos, true labels and segmenters' predictions, for documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pomp_seg.data.label_maps import read_record_labels
from pomp_seg.data.registration import check_labels, registered_metadata
from pomp_seg.pictures import INK, class_shares, draw_labels, draw_legend, side_by_side, text_font
from pomp_seg.predictor import OpenVocabularySegmenter
from prompt_core.data.open_photo import read_photo
from prompt_core.errors import UserError, nearest

CELL, GAP, LETTERS, SMALL_LETTERS = 300, 8, 13, 11  # pixels


@dataclass(frozen=True)
class GridRow:
    """One photo of a grid.

    Attributes:
        maps: label maps (H, W), one for each column of labels; values beyond the classes have no class.
        photo: (H, W, 3) uint8 in RGB; None to leave it out.
    """

    maps: Sequence[np.ndarray]
    photo: np.ndarray | None = None


def choose_records(dataset: str, images: str) -> list[dict[str, Any]]:
    """Records of a data set: N of them, evenly spread over the sorted set, or those with the given ids.

    Args:
        images: a number, or ids joined by commas (an id that is itself a number needs a comma after it).

    Raises:
        UserError: an unknown data set or id; more images than there are.
    """
    # Sets of one record for each class name an image more than once.
    records = {str(record["image_id"]): record for record in check_labels(dataset)}
    if images.isdecimal():
        count = int(images)
        if not 1 <= count <= len(records):
            raise UserError(f"--images is {count}; data set {dataset!r} has {len(records)}, expected 1..{len(records)}")
        keys = list(records)
        return [records[keys[(2 * place + 1) * len(keys) // (2 * count)]] for place in range(count)]
    wanted = [key.strip() for key in images.split(",") if key.strip()]
    for key in wanted:
        if key not in records:
            raise UserError(f"data set {dataset!r} has no image {key!r}{nearest(key, records)}")
    if not wanted:
        raise UserError(f"--images is {images!r}; a number of images or their ids are expected")
    return [records[key] for key in wanted]


def read_rows(dataset: str, records: Sequence[dict[str, Any]]) -> list[GridRow]:
    """Photos and true labels of records.

    Raises:
        UserError: an unreadable file, or labels of another size or other classes.
    """
    metadata = registered_metadata(dataset)
    rows = []
    for record in records:
        photo = read_photo(record["file_name"])
        truth = read_record_labels(record, photo.shape, len(metadata.stuff_classes), metadata.ignore_label)
        rows.append(GridRow([np.where(truth == metadata.ignore_label, -1, truth)], photo))
    return rows


def add_predictions(rows: Sequence[GridRow], predictor: OpenVocabularySegmenter, dataset: str) -> list[GridRow]:
    """The rows with one more column: a segmenter's predictions among the classes of the data set."""
    predictor.set_dataset(dataset)
    longer = []
    for row in rows:
        assert row.photo is not None
        longer.append(GridRow([*row.maps, predictor(row.photo).labels], row.photo))
    return longer


def draw_grid(rows: Sequence[GridRow], columns: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """Rows of pictures below the names of their columns, each with a legend of its classes.

    Colours are those of :func:`pomp_seg.pictures.class_colour`. The legend has the classes of the first label map, most
    pixels first, then those only in other maps. Pixels without a class are grey.

    Args:
        rows: with a photo in all or in none.
        columns: names of the photo's column, where there is one, and of those of the label maps.
        class_names: C names.

    Returns:
        (H, W, 3) uint8.
    """
    lines = [_headings(columns)]
    for row in rows:
        cells = [] if row.photo is None else [_resize(row.photo, Image.Resampling.BICUBIC)]
        # Resized before they are coloured: a blend of two classes' colours could be a third class's.
        maps = [_resize(labels.astype(np.int32), Image.Resampling.NEAREST) for labels in row.maps]
        cells += [draw_labels(labels, class_names, SMALL_LETTERS) for labels in maps]
        if len(cells) != len(columns):
            raise UserError(f"a row of {len(cells)} pictures was given with {len(columns)} names of columns")
        lines.append(side_by_side([*cells, _legend(row, class_names, len(cells[0]))], GAP))
    width = max(line.shape[1] for line in lines)
    grid = np.full((sum(len(line) + GAP for line in lines) - GAP, width, 3), 255, dtype=np.uint8)
    top = 0
    for line in lines:
        grid[top : top + len(line), : line.shape[1]] = line
        top += len(line) + GAP
    return grid


def _legend(row: GridRow, class_names: Sequence[str], height: int) -> np.ndarray:
    """The classes of a row, as many as fit next to pictures of the given height in pixels."""
    shares = [share for labels in row.maps for share in class_shares(labels, len(class_names))]
    present = list(dict.fromkeys(index for index, _ in shares))
    most = max(1, height // round(1.5 * LETTERS) - 2)
    entries: list[tuple[int | None, str]] = [(index, class_names[index]) for index in present[:most]]
    if present[most:]:
        entries.append((None, f"{len(present) - most} more"))
    return draw_legend(entries, class_names, LETTERS)


def _resize(pixels: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
    """To the width of a cell."""
    height = max(1, round(pixels.shape[0] * CELL / pixels.shape[1]))
    return np.asarray(Image.fromarray(pixels).resize((CELL, height), resampling))


def _headings(columns: Sequence[str]) -> np.ndarray:
    image = Image.new("RGB", ((CELL + GAP) * len(columns), 2 * LETTERS), "white")
    canvas, font = ImageDraw.Draw(image), text_font(LETTERS)
    for place, name in enumerate(columns):
        canvas.text(((CELL + GAP) * place + CELL / 2, LETTERS), name, fill=INK, font=font, anchor="mm")
    return np.asarray(image)
