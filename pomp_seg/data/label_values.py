"""Which values the label maps of registered data sets may have."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_seg.data.registration import registered_metadata
from prompt_core.errors import UserError


def dataset_labels(names: Sequence[str]) -> tuple[int, int]:
    """Number of classes and ignored value that registered data sets share.

    Args:
        names: of data sets, with ``stuff_classes`` and ``ignore_label`` in Detectron2's metadata. Classes that are
            listed in a file of the data set are read.

    Raises:
        UserError: when one is not registered, has no such metadata, or differs from the first one.
    """
    if not names:
        raise UserError("no data set is given; set DATASETS.TRAIN or DATASETS.TEST")
    first: tuple[list[str], int] | None = None
    for name in names:
        # Data sets that others registered need no vocabulary of ours; sets of boxes may list stuff classes too.
        known = name in DatasetCatalog.list() and MetadataCatalog.get(name).get("stuff_classes")
        if not known or MetadataCatalog.get(name).get("evaluator_type") not in (None, "sem_seg"):
            registered_metadata(name)
        metadata = MetadataCatalog.get(name)
        ignore_label = metadata.get("ignore_label")
        if ignore_label is None:
            raise UserError(f"data set {name!r} has no ignore_label in its metadata; register it with one, such as 255")
        found = (list(metadata.stuff_classes), int(ignore_label))
        if first is not None and found != first:
            raise UserError(f"data set {name!r} has other classes or another ignored value than {names[0]!r}")
        first = found
    assert first is not None
    return len(first[0]), first[1]
