"""Parquet parts: written whole or not at all, read one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pomp.formats.labelled import LabelledObject, LabelledPhoto
from pomp.labelling.labelled_records import region, words_of_answer
from pomp.shards.part_rows import arrow, columns
from prompt_core.data.open_photo import opened_image
from prompt_core.errors import UserError
from prompt_core.files import atomic_path
from prompt_core.visible import visible_path

# Rows that are written, and read, at once; a label map or the masks of a photo take some 100 kB.
AT_ONCE = 64


def part_name(number: int) -> str:
    """Of a shard's file: ``part-00012.parquet``."""
    return f"part-{number:05d}.parquet"


def write_part(path: Path, task: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows, :data:`AT_ONCE` of them in memory; a reader never sees half of the file."""
    pa = arrow()
    import pyarrow.parquet as parquet

    schema, waiting = columns(task), iter(rows)
    with atomic_path(path, durable=True) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        while some := list(islice(waiting, AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema))


def read_parts(folder: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of all parts in a folder, in the order of the photos; see :func:`pomp.shards.part_rows.columns`.

    Raises:
        UserError: for a folder without parts, or a part that is damaged.
    """
    arrow()
    import pyarrow
    import pyarrow.parquet as parquet

    parts = sorted(Path(folder).glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{visible_path(folder)} holds no part-00000.parquet and so on; is it the --output of a run?")
    for part in parts:
        try:
            with parquet.ParquetFile(part) as file:
                for batch in file.iter_batches(AT_ONCE):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{visible_path(part)} cannot be read; delete it and run its shard again") from error


def labelled_parts(folder: str | Path) -> Iterator[LabelledPhoto]:
    """What parts say of the photos that were read, for :func:`pomp.formats.formats.write_formats`.

    Raises:
        UserError: as :func:`read_parts`.
    """
    for row in read_parts(folder):
        if row["error"] is None:
            words, scores = _words(row)
            none = row.get("none_of_these")
            size = row["width"], row["height"]
            yield LabelledPhoto(row["file_name"], *size, _objects(row), words, scores, none_share=none)


def _words(row: dict[str, Any]) -> tuple[tuple[str, ...] | None, tuple[float, ...]]:
    if "own_share" not in row:
        return None, ()
    return words_of_answer(row)


def _objects(row: dict[str, Any]) -> tuple[LabelledObject, ...]:
    if "detections" in row:
        found = row["detections"]
        return tuple(LabelledObject(one["word"], tuple(one["bbox"]), one["score"], one["mask"]) for one in found)
    if "label_map" not in row:
        return ()
    with opened_image(row["label_map"]) as image:
        labels = np.asarray(image)  # (H, W)
    asked = [entry for entry in row["words"] if not entry["negative"]]
    return tuple(region(labels, entry["index"], entry["word"], entry["score"]) for entry in asked)
