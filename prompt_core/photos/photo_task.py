"""What a classifier, a detector or a segmenter does with a user's photos, for the loop over them."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prompt_core.photos.json_lists import write_json_lists
from prompt_core.photos.photo_list import NamedPhoto

# A function that gives the records again and again, from the beginning.
Records = Callable[[], Iterator[tuple[NamedPhoto, dict[str, Any]]]]


class PhotoTask(abc.ABC):
    """What is done with each photo: prepare, predict, write a record.

    Attributes:
        document: file name of the document about all photos.
        batch: how many photos are predicted at once; more than one where ``prepare`` makes them small.
    """

    document: str
    batch: int = 1

    @abc.abstractmethod
    def identity(self) -> dict[str, Any]:
        """What predictions depend on besides the photo: plain values by names that a user understands."""

    def prepare(self, pixels: np.ndarray) -> Any:
        """What is kept of (H, W, 3) uint8 in RGB until its batch is full; may be called by several threads."""
        return pixels

    def predict_batch(self, prepared: Sequence[Any]) -> list[Any]:
        """The prediction of each; a :class:`UserError` where a photo is the cause."""
        return [self.predict(photo) for photo in prepared]

    def predict(self, prepared: Any) -> Any:
        """The prediction of one photo; a :class:`UserError` where it is the cause."""
        return self.predict_batch([prepared])[0]

    def predict_named(self, prepared: Any, name: str) -> Any:
        """The same for a task that looks something up by the photo's name, such as its regions in a file."""
        return self.predict(prepared)

    @abc.abstractmethod
    def write(self, photo: NamedPhoto, prepared: Any, prediction: Any, folder: Path) -> dict[str, Any]:
        """Write the files about a photo; returns its record, JSON."""

    def finish(self, records: Records, folder: Path) -> None:
        """Write the document about all photos."""
        write_json_lists(folder / self.document, self.lists(records))

    def lists(self, records: Records) -> Mapping[str, Iterable[Any]]:
        """The document's lists, from the records, where it is JSON."""
        raise NotImplementedError

    @abc.abstractmethod
    def summary(self, records: Records) -> str:
        """What was found, in words."""
