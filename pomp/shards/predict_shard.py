"""A shard as other engines have it: a list of paths in, a table out, with the columns of Parquet parts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pomp.labelling.outputs import Outputs
from pomp.models.load import load
from pomp.models.photo_model import Words
from pomp.shards.part_rows import arrow, columns, part_rows
from prompt_core.errors import UserError
from prompt_core.photos.photo_list import NamedFile, photos_in
from prompt_core.photos.photo_loop import predicted_photos

if TYPE_CHECKING:
    import pyarrow


class ShardPredictor:
    """Labels batches of paths; an actor of Ray Data (``map_batches``) or a loop of one's own loads the model once.

    Args:
        words: what to look for; None for the model's own.
        negatives: what else may be there.
        model, task, options: as :func:`pomp.load` takes them.

    Raises:
        UserError: without pyarrow, or what :func:`pomp.load` refuses.
    """

    def __init__(
        self,
        model: str = "mini",
        task: str = "detect",
        words: Words | None = None,
        negatives: Words = (),
        **options: Any,
    ) -> None:
        arrow()
        self.model = load(model, task, **options)
        if words is not None:
            self.model.words(words, negatives)
        self._task = self.model.photo_task(Outputs(pictures=False))

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> pyarrow.Table:
        """The rows of a batch with a column ``path``, see :meth:`table`."""
        return self.table([str(path) for path in batch["path"]])

    def table(self, paths: Sequence[str]) -> pyarrow.Table:
        """A row for each photo, in their order; ``file_name`` is the path as it was given.

        A video stands for its frames, an archive for the photos in it. Photos that cannot be read have an ``error``.

        Raises:
            UserError: for a video or an archive that cannot be read.
        """
        photos = photos_in([NamedFile(Path(path), path) for path in paths])
        with (
            tempfile.TemporaryDirectory() as folder,
            predicted_photos(self._task, photos, Path(folder)) as (records, skipped),
        ):
            rows = list(part_rows(self.model.task, photos, records, skipped, self.model.asked, Path(folder)))
        return arrow().Table.from_pylist(rows, columns(self.model.task))


def predict_shard(paths: Sequence[str], model: str = "mini", **options: Any) -> pyarrow.Table:
    """The table of :class:`ShardPredictor` for paths, with a model of its own.

    Args:
        options: of :class:`ShardPredictor`.

    Raises:
        UserError: as there; without paths.
    """
    if not paths:
        raise UserError("a shard without photos; give paths")
    return ShardPredictor(model, **options).table(paths)
