"""What every model is to a person: its words, and what it finds in a photo."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_core.data.open_photo import as_photo, read_photo
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    import supervision
    from PIL.Image import Image
    from typing_extensions import Self

    from pomp.labelling.outputs import Outputs
    from prompt_core.photos.photo_task import PhotoTask

    Photo = str | os.PathLike[str] | Image | np.ndarray

Words = Sequence[str] | str | os.PathLike[str] | Vocabulary


class Model(abc.ABC):
    """A classifier, a detector or a segmenter, see :func:`pomp.load`.

    Attributes:
        task: ``classify``, ``detect`` or ``segment``.
    """

    task: str

    @property
    @abc.abstractmethod
    def names(self) -> list[str]:
        """The words, in the order of ``class_id``.

        Raises:
            UserError: when none are set, and the model brings none.
        """

    @property
    def asked(self) -> list[str]:
        """The words without negative ones."""
        return self.names

    def words(self, words: Words, negatives: Words = ()) -> Self:
        """Set what to look for; nothing is loaded again.

        Args:
            words: names; or a text: names joined by commas, a file with a name in each line, or a published vocabulary
                (``imagenet21k``, ``lvis``, ``coco``, ``objects365``, ``ade20k``).
            negatives: what else may be there and shall not be taken for one of the words, likewise.

        Returns:
            the model itself.

        Raises:
            UserError: blank or repeated names, an absent file.
        """
        others = os.fspath(negatives) if isinstance(negatives, str | os.PathLike) else tuple(negatives)
        self._set(os.fspath(words) if isinstance(words, str | os.PathLike) else vocabulary_of(words), others)
        return self

    def predict(self, photo: Photo) -> supervision.Detections:
        """What the photo shows, best first, in pixels of the upright photo.

        Args:
            photo: a file, a PIL image, or (H, W, 3) uint8 in RGB.

        Returns:
            ``xyxy`` (n, 4), ``confidence`` (n,), ``class_id`` (n,), ``data["class_name"]`` (n,), and ``mask``
            (n, H, W) where the model has masks. A classifier's boxes are the whole photo; without one, the photo shows
            none of the words.

        Raises:
            UserError: when the file is no photo, or the array is of another kind.
        """
        return self._detections(pixels_of(photo))

    def predict_many(self, photos: Iterable[Photo]) -> Iterator[supervision.Detections]:
        """:meth:`predict` for one photo after the other, each when it is asked for; one is in memory."""
        return map(self.predict, photos)

    def describe(self, photo: Photo) -> dict[str, Any]:
        """The same as a dictionary of plain values, as the command line writes it.

        Returns:
            ``width``, ``height``, and what the task gives: ``detections`` (COCO: ``category_id`` from 1, ``bbox`` x, y,
            width, height, ``score``, ``area``, ``segmentation``) with a ``word`` each; a classifier's ``word`` (None
            for none of them), ``own_share``, ``none_of_these`` and ``best``; a segmenter's ``classes``.

        Raises:
            UserError: as :meth:`predict`.
        """
        pixels = pixels_of(photo)
        return {"width": pixels.shape[1], "height": pixels.shape[0], **self._description(pixels)}

    @abc.abstractmethod
    def photo_task(self, outputs: Outputs) -> PhotoTask:
        """What the loop over a folder of photos does with each, with the words that are set."""

    @abc.abstractmethod
    def _set(self, words: Vocabulary | str, negatives: tuple[str, ...] | str) -> None:
        """Set words; texts are what a person gave, see :meth:`words`."""

    @abc.abstractmethod
    def _detections(self, pixels: np.ndarray) -> supervision.Detections: ...

    @abc.abstractmethod
    def _description(self, pixels: np.ndarray) -> dict[str, Any]: ...


def names_of(words: tuple[str, ...] | str) -> tuple[str, ...]:
    """Names, also of none, where a text is what a person gave, see :meth:`Model.words`."""
    return tuple(vocabulary_of(words)) if isinstance(words, str) and words else tuple(words)


def vocabulary_of(words: Words) -> Vocabulary:
    """Words as a person gives them, see :meth:`Model.words`.

    Raises:
        UserError: blank or repeated names, an absent file, no word.
    """
    if isinstance(words, Vocabulary):
        return words
    if isinstance(words, str | os.PathLike):
        return read_vocabulary(os.fspath(words))
    given = [word.strip() if isinstance(word, str) else word for word in words]
    if not given:
        raise UserError("no word was given; words are names, or a text with names joined by commas")
    return Vocabulary(given, source="words").check()


def pixels_of(photo: Photo) -> np.ndarray:
    """(H, W, 3) uint8 in RGB, upright.

    Raises:
        UserError: when the file is no photo, or the array is of another kind.
    """
    if isinstance(photo, np.ndarray):
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or photo.size == 0:
            raise UserError(f"a photo of shape (H, W, 3) in uint8 is expected, given {photo.shape} in {photo.dtype}")
        return photo
    if isinstance(photo, str | os.PathLike):
        return read_photo(Path(photo))
    return np.asarray(as_photo(photo))
