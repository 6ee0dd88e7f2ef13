"""A few records of each class, for tuning the prompt on masked regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from prompt_core.errors import UserError


def sample_per_class(records: Sequence[Mapping[str, Any]], count: int, seed: int = 0) -> list[Any]:
    """``count`` records of each class that has as many, all records of the other classes (ZSSeg).

    As published, the ``count`` are drawn WITH replacement, so that some come twice and others never. The draw of a
    class depends on its own records and the seed only, and not on their order.

    Args:
        records: with ``category_id`` and ``file_name``.
        count: of each class.
        seed: of the draw; published runs use 0.

    Returns:
        records in the order of their classes.

    Raises:
        UserError: when ``count`` is below 1, or a record has no ``category_id``.
    """
    if count < 1:
        raise UserError(f"DATASETS.SAMPLE_PER_CLASS is {count}; expected a positive number, or -1 for all records")
    by_class: dict[int, list[Mapping[str, Any]]] = {}
    for record in records:
        if "category_id" not in record:
            raise UserError(
                f"image {record['file_name']} has no class (category_id); DATASETS.SAMPLE_PER_CLASS needs a data set "
                "of one class a record (…_classification), or set it to -1"
            )
        by_class.setdefault(int(record["category_id"]), []).append(record)
    sampled: list[Mapping[str, Any]] = []
    for category in sorted(by_class):
        own = sorted(by_class[category], key=lambda record: str(record["file_name"]))
        if len(own) >= count:
            own = [own[place] for place in np.random.default_rng([seed, category]).integers(len(own), size=count)]
        sampled.extend(own)
    return sampled


def configured_sample(cfg: CfgNode, records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """:func:`sample_per_class` by ``DATASETS.SAMPLE_PER_CLASS`` and ``SAMPLE_SEED``; -1 leaves the records as they are.

    Raises:
        UserError: as :func:`sample_per_class`.
    """
    count = int(cfg.DATASETS.SAMPLE_PER_CLASS)
    return list(records) if count == -1 else sample_per_class(records, count, int(cfg.DATASETS.SAMPLE_SEED))
