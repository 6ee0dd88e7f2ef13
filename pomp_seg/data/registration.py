"""Registration of semantic labels with Detectron2's catalogs: known data sets below one root, and users' own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_seg.data.catalog import ENTRIES
from pomp_seg.data.label_maps import check_ignore_label
from pomp_seg.data.label_sets import LabelSet, entry_classes, read_label_set
from pomp_seg.data.records import LabelFolder, Records, label_folder, load_records
from prompt_core.errors import UserError, nearest
from prompt_core.files import data_root, resolve_path
from prompt_core.vocabulary import Vocabulary


def register_datasets(root: str | os.PathLike[str] | None = None) -> Path:
    """Register every known data set below ``root`` (see :func:`prompt_core.files.data_root`).

    No label or photo is read. Names that Detectron2 registers itself (``ade20k_sem_seg_val``) are replaced, so that all
    use the same root and checks. It can be called again, also with another root.

    Returns:
        the root.
    """
    folder = data_root(root)
    for entry in ENTRIES:
        _register(label_folder(entry, folder), partial(entry_classes, entry, folder))
    return folder


def register_dataset(
    name: str,
    labels: str | os.PathLike[str],
    images: str | os.PathLike[str],
    vocabulary: str | os.PathLike[str] | Vocabulary,
    seen: str | os.PathLike[str] | Iterable[str] | None = None,
    ignore_label: int | None = None,
) -> None:
    """Register a user's own label images.

    Args:
        name: for ``DATASETS.TRAIN`` or ``DATASETS.TEST``; a data set of this name is replaced.
        labels: folder of label images (a class index per pixel, 8 or 16 bits), with the names of their photos.
        images: folder of the photos; each needs a label.
        vocabulary: the classes, see :func:`pomp_seg.data.label_sets.read_label_set`.
        seen: the classes that training sees, names or a file of them; others are reported separately.
        ignore_label: of pixels without a class; default 255, or 65535 for more than 255 classes.

    Raises:
        UserError: for unknown classes, or an ignored value that is a class.
    """
    classes = read_label_set(vocabulary, seen)
    folder = LabelFolder(name, Path(labels), Path(images), every_photo=True)
    _register(folder, lambda: classes, ignore_label)


def register_files(rows: Sequence[Any], resolve: Callable[[str], str | os.PathLike[str]] = str) -> None:
    """Register the rows of ``DATASETS.FILES``: name, folder of labels, folder of photos, vocabulary, seen classes.

    Args:
        resolve: turns a path of the configuration into one that can be opened.

    Raises:
        UserError: when a row is not four or five texts, or :func:`register_dataset` refuses it.
    """
    for row in rows:
        if not isinstance(row, (list, tuple)) or len(row) not in (4, 5) or not all(isinstance(x, str) for x in row):
            raise UserError(
                f"DATASETS.FILES has the row {row!r}; expected [name, folder of labels, folder of photos, vocabulary], "
                "and after it, where training sees only some of the classes, a file of their names"
            )
        name, labels, images, vocabulary, *seen = row
        classes = resolve(vocabulary) if Path(vocabulary).suffix else vocabulary
        register_dataset(
            name, resolve(labels), resolve(images), classes, resolve(seen[0]) if seen and seen[0] else None
        )


def register_configured(cfg: CfgNode) -> None:
    """Register the known data sets, and the user's own of ``DATASETS.FILES``.

    Raises:
        UserError: when a row is malformed.
    """
    register_datasets()
    register_files(cfg.DATASETS.FILES, resolve_path)


def registered_metadata(name: str) -> Any:
    """Detectron2's metadata of a registered data set with semantic labels.

    Raises:
        UserError: when the name is not registered, or its list of classes has not been prepared yet.
    """
    known = [entry.name for entry in ENTRIES]
    if name not in DatasetCatalog.list():
        hint = nearest(name, [*known, *DatasetCatalog.list()])
        raise UserError(f"data set {name!r} is not registered{hint}; known: {', '.join(known)}")
    metadata = MetadataCatalog.get(name)
    # Sets of boxes have a vocabulary too.
    if metadata.get("vocabulary") is None or metadata.get("evaluator_type") != "sem_seg":
        read = metadata.get("read_classes")
        if read is None:
            raise UserError(f"data set {name!r} was not registered with semantic labels; known: {', '.join(known)}")
        _set_classes(name, read(), None)
    return metadata


def check_labels(name: str) -> Records:
    """The records of a data set, all of whose labels and photos must exist.

    Raises:
        UserError: the first fault, with the file.
    """
    registered_metadata(name)
    records: Records = DatasetCatalog.get(name)
    return records


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
        labels = (list(metadata.stuff_classes), int(ignore_label))
        if first is not None and labels != first:
            raise UserError(f"data set {name!r} has other classes or another ignored value than {names[0]!r}")
        first = labels
    assert first is not None
    return len(first[0]), first[1]


def _register(folder: LabelFolder, classes: Callable[[], LabelSet], ignore_label: int | None = None) -> None:
    name = folder.name
    # Only one of the catalogs may know the name: reading metadata of any name creates them.
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)
    # The start of a run, its loaders and its evaluators need the same records: the files are listed once.
    listed = cache(partial(_load, folder))
    DatasetCatalog.register(name, lambda: [dict(record) for record in listed()])
    metadata = MetadataCatalog.get(name)
    metadata.set(
        evaluator_type="sem_seg",
        image_root=str(folder.images),
        sem_seg_root=str(folder.labels),
        read_classes=classes,
    )
    try:
        label_set = classes()
    except UserError:
        return  # listed in a file that is not prepared yet: read again, with an error, when the data set is used
    _set_classes(name, label_set, ignore_label)


def _load(folder: LabelFolder) -> Records:
    metadata = registered_metadata(folder.name)
    return load_records(folder, len(metadata.stuff_classes))


def _set_classes(name: str, classes: LabelSet, ignore_label: int | None) -> None:
    ignored = classes.ignore_label if ignore_label is None else ignore_label
    check_ignore_label(len(classes), ignored)
    values: dict[str, Any] = {
        "vocabulary": classes.vocabulary,
        "stuff_classes": list(classes.vocabulary.names),
        "ignore_label": ignored,
    }
    if classes.seen is not None:
        values |= {"trainable_flag": classes.trainable_flag, "evaluation_set": {"base": list(classes.seen)}}
    MetadataCatalog.get(name).set(**values)
