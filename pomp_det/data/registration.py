"""Registration with Detectron2's catalogs: every known data set below one root, and users' own files."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from pomp_det.data.annotation_files import read_categories
from pomp_det.data.catalog import ENTRIES, DatasetEntry
from pomp_det.data.class_splits import COCO_SEEN, COCO_UNSEEN, category_ids
from pomp_det.data.records import Records, categories_as_vocabulary, load_boxes, load_image_labels
from prompt_core.errors import UserError, nearest
from prompt_core.files import data_root
from prompt_core.vocabulary import Vocabulary

_GROUP_CLASSES = {"seen": COCO_SEEN, "unseen": COCO_UNSEEN}


def register_datasets(root: str | os.PathLike[str] | None = None) -> Path:
    """Register every known data set below ``root`` (see :func:`data_root`); nothing is read from disk.

    Names that Detectron2 registers itself (``coco_2017_val``, ``lvis_v1_train``) are replaced, so that all of them
    follow the same root, the same checks and the same class order. Calling it again, with another root too, is fine.

    Returns:
        the root.
    """
    folder = data_root(root)
    for entry in ENTRIES:
        _register_entry(entry, folder)
    return folder


def register_dataset(
    name: str,
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    kind: str = "coco",
    vocabulary: str | Vocabulary | None = None,
    class_groups: dict[str, list[int]] | None = None,
) -> None:
    """Register a user's own annotation file.

    Args:
        name: for ``DATASETS.TRAIN`` or ``DATASETS.TEST``; a data set of this name is replaced.
        kind: ``coco``, ``lvis``, ``openimages`` (boxes, with what was looked for in each photo) or ``image_labels``.
        vocabulary: the classes to count by, as an object, a published name or a file; None: the file's categories.
        class_groups: named lists of category ids that are scored apart, for example base and novel classes.

    Raises:
        UserError: for an unknown kind or vocabulary.
    """
    kinds = ("coco", "lvis", "openimages", "image_labels")
    if kind not in kinds:
        raise UserError(f"kind {kind!r} is unknown{nearest(kind, kinds)}; expected {', '.join(kinds)}")
    classes = Vocabulary.load(vocabulary) if isinstance(vocabulary, (str, os.PathLike)) else vocabulary
    advice = "register it with the vocabulary that it was annotated with"
    _register(name, Path(json_file), Path(image_root), kind, classes, class_groups or {}, advice)


def dataset_vocabulary(name: str) -> Vocabulary:
    """The classes of a registered data set in the order of class indices.

    Raises:
        UserError: when the name is not registered, or its annotation file is needed and absent.
    """
    metadata = registered_metadata(name)
    vocabulary = metadata.get("vocabulary")
    if vocabulary is None:
        vocabulary = categories_as_vocabulary(read_categories(metadata.json_file), Path(metadata.json_file).name)
        _set_classes(name, vocabulary)
    assert isinstance(vocabulary, Vocabulary)
    return vocabulary


def registered_metadata(name: str) -> Any:
    """Detectron2's metadata of a registered data set.

    Raises:
        UserError: when the name is not registered, with the nearest names.
    """
    if name not in DatasetCatalog.list():
        known = [entry.name for entry in ENTRIES]
        hint = nearest(name, [*known, *DatasetCatalog.list()])
        raise UserError(f"data set {name!r} is not registered{hint}; known: {', '.join(known)}")
    return MetadataCatalog.get(name)


def _register_entry(entry: DatasetEntry, root: Path) -> None:
    vocabulary = Vocabulary.load(entry.vocabulary) if entry.vocabulary else None
    groups = {}
    if entry.class_groups:
        assert vocabulary is not None
        groups = {group: category_ids(_GROUP_CLASSES[group], vocabulary) for group in entry.class_groups}
    json_file, images = entry.annotation_file(root), root / entry.images
    _register(entry.name, json_file, images, entry.kind, vocabulary, groups, entry.advice(root))


def _register(
    name: str,
    json_file: Path,
    image_root: Path,
    kind: str,
    vocabulary: Vocabulary | None,
    class_groups: dict[str, list[int]],
    advice: str,
) -> None:
    # Only one of the catalogs may know the name: reading metadata of any name creates them.
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)
    loader: Callable[..., Any] = (
        load_image_labels if kind == "image_labels" else partial(load_boxes, federated=kind == "lvis")
    )
    DatasetCatalog.register(name, partial(_load, name, loader, json_file, image_root, vocabulary, advice))
    metadata = MetadataCatalog.get(name)
    metadata.set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type=kind, class_groups=dict(class_groups)
    )
    if vocabulary is not None:
        _set_classes(name, vocabulary)


def _load(
    name: str,
    loader: Callable[..., Any],
    json_file: Path,
    image_root: Path,
    vocabulary: Vocabulary | None,
    advice: str,
) -> Records:
    if not json_file.is_file():
        raise UserError(f"data set {name!r} needs {json_file}, which does not exist; {advice}")
    records: Records
    records, classes, _ = loader(json_file, image_root, vocabulary, advice=advice)
    if MetadataCatalog.get(name).get("vocabulary") is None:
        _set_classes(name, classes)
    return records


def _set_classes(name: str, vocabulary: Vocabulary) -> None:
    assert vocabulary.ids is not None
    metadata = MetadataCatalog.get(name)
    metadata.vocabulary = vocabulary
    metadata.thing_classes = list(vocabulary.names)
    metadata.thing_dataset_id_to_contiguous_id = {category: index for index, category in enumerate(vocabulary.ids)}
    if name.startswith("lvis_v1"):
        from detectron2.data.datasets.lvis_v1_category_image_count import LVIS_CATEGORY_IMAGE_COUNT

        metadata.class_image_count = LVIS_CATEGORY_IMAGE_COUNT
