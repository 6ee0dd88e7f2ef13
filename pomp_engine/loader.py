"""Loaders: endless training batches that depend only on seed, rank and iteration, and one pass for an evaluation."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pomp_engine.samplers import GroupedBatchSampler
from prompt_core.data.open_photo import UnreadableImage
from prompt_core.errors import UserError

Records = list[dict[str, Any]]
# This many unreadable photos in a row are no accident.
MOST_UNREADABLE = 10

_logger = logging.getLogger(__name__)


class TellingLoader(DataLoader[Any]):
    """A loader of lists of examples that raises an error of a reading process unchanged.

    torch would wrap it in a text with its traceback, or turn it into a RuntimeError, and a message of one line would
    become many. Here a :class:`prompt_core.errors.UserError` travels as an example, and the main process raises it when
    its batch is due.

    Args:
        dataset: of examples.
        options: of torch's ``DataLoader``.
    """

    def __init__(self, dataset: Any, **options: Any) -> None:
        super().__init__(_Caught(dataset), collate_fn=_as_list, worker_init_fn=_leave_interrupts, **options)

    def __iter__(self) -> Any:
        """Batches.

        Raises:
            UserError: of the first example of a batch that has one.
        """
        for batch in super().__iter__():
            for example in batch:
                if isinstance(example, _Refusal):
                    raise example.error
            yield batch


@dataclass(frozen=True)
class _Refusal:
    error: UserError


class _Caught(Dataset[Any]):
    """A data set that gives a :class:`_Refusal` for an example that raises a UserError."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        try:
            return self._dataset[index]
        except UserError as error:
            return _Refusal(error)


class SeededExamples(Dataset[dict[str, Any]]):
    """Records mapped to examples, with augmentations that depend on the seed and the draw number.

    The result does not depend on the number of worker processes. A photo that cannot be read is logged once per file
    and worker, and the next one of its group takes its place.

    Args:
        records: n Detectron2 records.
        mapper: record to example.
        groups: (n,) group of each record.
        seed: of the run.
    """

    def __init__(self, records: Records, mapper: Callable[[dict[str, Any]], Any], groups: Any, seed: int) -> None:
        self._records = DatasetFromList(records, copy=False)
        self._mapper = mapper
        self._groups = np.asarray(groups)
        # Read here: a freshly started worker process does not know the rank.
        self._entropy = (seed, comm.get_rank())
        self._unreadable: set[str] = set()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, drawn: tuple[int, int]) -> dict[str, Any]:
        index, draw = drawn
        with numpy_seed([*self._entropy, draw]):
            for candidate in self._candidates(index):
                try:
                    example: dict[str, Any] = self._mapper(self._records[candidate])
                    return example
                except UnreadableImage as error:
                    self._note(error)
        raise UserError(
            f"{MOST_UNREADABLE} photos in a row cannot be read, the first is {self._records[index]['file_name']}; "
            "check the data folder"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        yield index
        others = np.flatnonzero(self._groups == self._groups[index])
        place = int(np.searchsorted(others, index))
        for step in range(1, min(MOST_UNREADABLE, len(others))):
            yield int(others[(place + step) % len(others)])

    def _note(self, error: UnreadableImage) -> None:
        if error.key not in self._unreadable:
            self._unreadable.add(error.key)
            _logger.warning("photo %s cannot be used and is replaced by another: %s", error.key, error.reason)


@contextlib.contextmanager
def numpy_seed(entropy: Sequence[int]) -> Iterator[None]:
    """Seed NumPy's global generator, which Detectron2's augmentations draw from, and restore its state afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(np.random.SeedSequence([int(value) for value in entropy]).generate_state(8))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def seeded_loader(
    records: Records,
    mapper: Callable[[dict[str, Any]], Any],
    batch_sizes: int | Sequence[int],
    seed: int,
    *,
    start: int = 0,
    workers: int = 0,
    indices: Iterable[int] | None = None,
    groups: Tensor | None = None,
) -> DataLoader[Any]:
    """An endless loader of batches (lists of examples) for this rank.

    Args:
        records: n records with ``file_name``.
        mapper: record to example; it may raise :class:`prompt_core.data.open_photo.UnreadableImage`, and draws from
            NumPy's global generator, as Detectron2's augmentations do.
        batch_sizes: images in a batch of this rank, or in one of each data set; see :class:`GroupedBatchSampler`.
        seed: of the run, the same on every rank; see :func:`seed_of_run`.
        start: iteration that the run starts or continues with; the batches before it are skipped.
        workers: processes that read photos. The batches do not depend on it.
        indices: endless indices of records for this rank; None for random permutations, shared out among the ranks.
        groups: (n,) group of each record, see :func:`pomp_engine.samplers.batch_groups`; None for a single one.
    """
    indices = TrainingSampler(len(records), seed=seed) if indices is None else indices
    groups = torch.zeros(len(records), dtype=torch.int64) if groups is None else groups
    return TellingLoader(
        SeededExamples(records, mapper, groups, seed),
        batch_sampler=GroupedBatchSampler(indices, groups, batch_sizes, start),
        num_workers=workers,
        persistent_workers=False,
    )


def evaluation_loader(
    records: Records, mapper: Callable[[dict[str, Any]], Any], workers: int = 0, batch_size: int = 1
) -> DataLoader[Any]:
    """Batches (lists of examples); each record comes once, on one of the ranks.

    Args:
        records: n Detectron2 records.
        mapper: record to example; a UserError that it raises comes out of the loader as it is.
        workers: processes that read photos.
        batch_size: examples of a batch; the last one may be smaller.
    """
    examples = MapDataset(DatasetFromList(records, copy=False), mapper)
    return TellingLoader(examples, sampler=InferenceSampler(len(records)), batch_size=batch_size, num_workers=workers)


def seed_of_run(cfg: CfgNode, start: int = 0) -> int:
    """``SEED``, or if that is below 0 a random one that all processes share, of which a resumed run is warned."""
    if start and cfg.SEED < 0:
        _logger.warning("SEED is %d: the resumed run draws other batches than the interrupted one", cfg.SEED)
    return int(cfg.SEED) if cfg.SEED >= 0 else int(comm.shared_random_seed())


def images_per_rank(cfg: CfgNode) -> int:
    """``SOLVER.IMS_PER_BATCH`` shared out among the processes.

    Raises:
        UserError: when they do not divide evenly.
    """
    images, ranks = int(cfg.SOLVER.IMS_PER_BATCH), comm.get_world_size()
    if images < ranks or images % ranks:
        raise UserError(f"SOLVER.IMS_PER_BATCH {images} cannot be shared out among {ranks} processes")
    return images // ranks


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one decides when to stop, and needs photos until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_list(examples: list[Any]) -> list[Any]:
    return examples
