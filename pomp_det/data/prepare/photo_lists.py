"""Lists of photos that carry labels: which there are, how large they are, and the document in the format of LVIS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pomp_det.data.usable_boxes import Problems
from pomp_engine.data.tar_images import image_size, index_tar, read_tar_bytes
from prompt_core.data.photo_files import is_photo_name
from prompt_core.vocabulary import Vocabulary

# Enough of an archive's member to hold almost any photo's header.
_HEADER_BYTES = 1 << 18


def photos_of_synsets(folder: Path, wnids: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Photos of the wanted synsets, from folders (``WNID/*.JPEG``) or archives (``WNID.tar``), in a fixed order.

    Where a synset has both, the folder is taken.

    Returns:
        file name, category id and, for archives, place in bytes; no size yet.
    """
    for wnid, category in sorted(wnids.items()):
        place, archive = folder / wnid, folder / f"{wnid}.tar"
        if place.is_dir():
            for name in sorted(path.name for path in place.iterdir() if is_photo_name(path.name)):
                yield {"file_name": f"{wnid}/{name}", "pos_category_ids": [category]}
        elif archive.is_file():
            for name, offset, size in index_tar(archive):
                where = {"tar": archive.name, "offset": offset, "size": size}
                yield {"file_name": f"{wnid}/{Path(name).name}", "pos_category_ids": [category], **where}


def with_sizes(
    folder: Path, photos: list[dict[str, Any]], problems: Problems, workers: int = 8
) -> list[dict[str, Any]]:
    """The photos with ``id``, ``width`` and ``height``; unreadable ones are left out, counted and listed."""
    with ThreadPoolExecutor(workers) as pool:
        sizes = list(pool.map(lambda photo: _size(folder, photo), photos))
    images: list[dict[str, Any]] = []
    for photo, size in zip(photos, sizes, strict=True):
        if size is None:
            problems.add("photos left out (unreadable)", str(photo["file_name"]))
            continue
        images.append({"id": len(images) + 1, **photo, "width": size[0], "height": size[1]})
    return images


def _size(folder: Path, photo: Mapping[str, Any]) -> tuple[int, int] | None:
    if "tar" not in photo:
        return _size_or_none(folder / photo["file_name"])
    # A header that is longer, or that Pillow looks for at the end (PNG), needs the whole member.
    lengths = sorted({min(photo["size"], _HEADER_BYTES), photo["size"]})
    parts = (read_tar_bytes(folder / photo["tar"], photo["offset"], length) for length in lengths)
    return next((size for size in map(_size_or_none, parts) if size is not None), None)


def _size_or_none(source: Path | bytes) -> tuple[int, int] | None:
    try:
        return image_size(source)
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, struct.error, …
        return None


def image_label_document(images: list[dict[str, Any]], vocabulary: Vocabulary) -> dict[str, Any]:
    """The photos in the format of LVIS: ``pos_category_ids`` per image, no annotations, the vocabulary's categories."""
    counts = Counter(category for image in images for category in image["pos_category_ids"])
    categories = [category | {"image_count": counts[category["id"]]} for category in categories_of(vocabulary)]
    return {"info": {"description": "image labels"}, "images": images, "annotations": [], "categories": categories}


def categories_of(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """A vocabulary with ids as the categories of a COCO or LVIS file."""
    columns = {
        "id": [int(category) for category in vocabulary.ids or ()],
        "name": vocabulary.names,
        "synset": vocabulary.synsets,
        "synonyms": vocabulary.synonyms,
        "frequency": vocabulary.frequency,
    }
    known = {key: column for key, column in columns.items() if column is not None}
    return [dict(zip(known, row, strict=True)) for row in zip(*known.values(), strict=True)]


def bytes_of(path: Path) -> int:
    """Size of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:  # a broken link: counted as unreadable when its size in pixels is read
        return 0
