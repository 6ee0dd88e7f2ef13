"""What the training data of a run hold, as one hash: annotations by their bytes, label maps by names and sizes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from detectron2.data import MetadataCatalog

from prompt_core.files import sha256_of_file, sha256_of_json


def training_content(names: Iterable[str]) -> str:
    """sha256 over registered data sets, in their order; no photo is read, and folders may move."""
    return sha256_of_json([[name, *_parts(name)] for name in names])


def _parts(name: str) -> Iterator[object]:
    metadata = MetadataCatalog.get(name)
    annotations, labels = metadata.get("json_file"), metadata.get("sem_seg_root")
    if annotations and Path(annotations).is_file():
        yield sha256_of_file(annotations)
    if labels and Path(labels).is_dir():
        yield sorted(_files(labels, ""))


def _files(folder: str, inner: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path, f"{inner}{entry.name}/")
            else:
                yield f"{inner}{entry.name}", entry.stat().st_size
