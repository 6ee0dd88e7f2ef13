"""ImageNet-LVIS: the ImageNet-21K photos of LVIS classes, as image labels (Zhou et al. 2022, Detic, section 4).

A photo gets the class of its synset. Classes whose boxes are held out are included: open-vocabulary detection withholds
boxes, not labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pomp_det.data.usable_boxes import Problems
from pomp_det.data.wordnet import lvis_wnids
from pomp_engine.data.derived_files import Outcome, derive_json
from pomp_engine.data.tar_images import image_size, index_tar, read_tar_bytes
from prompt_core.data.photo_files import is_photo_name
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json
from prompt_core.vocabulary import Vocabulary

# Enough of an archive's member to hold almost any photo's header.
_HEADER_BYTES = 1 << 18


def class_of_wnid(vocabulary: Vocabulary, mapping: Mapping[str, str] | None = None) -> dict[str, int]:
    """WordNet id to category id, for the classes of a vocabulary that ImageNet-21K has: 997 of LVIS's 1,203.

    Args:
        mapping: synset name to WordNet id; None takes the table for LVIS.

    Raises:
        UserError: when the vocabulary has no synsets.
    """
    if vocabulary.synsets is None or vocabulary.ids is None:
        raise UserError(f"the vocabulary {vocabulary.source!r} has no synsets, by which photos find their class")
    wnids = lvis_wnids() if mapping is None else mapping
    in_imagenet = {str(wnid) for wnid in Vocabulary.load("imagenet21k").ids or ()}
    return {
        wnids[synset]: int(category)
        for synset, category in zip(vocabulary.synsets, vocabulary.ids, strict=True)
        if wnids.get(synset) in in_imagenet
    }


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
    assert vocabulary.ids is not None
    counts = Counter(category for image in images for category in image["pos_category_ids"])
    columns = {"synset": vocabulary.synsets, "synonyms": vocabulary.synonyms, "frequency": vocabulary.frequency}
    categories = [
        {"id": category, "name": name, "image_count": counts[int(category)]}
        | {key: column[row] for key, column in columns.items() if column is not None}
        for row, (name, category) in enumerate(zip(vocabulary.names, vocabulary.ids, strict=True))
    ]
    return {"info": {"description": "image labels"}, "images": images, "annotations": [], "categories": categories}


def prepare_imagenet_lvis(
    root: Path,
    folder: Path | None = None,
    mapping: Mapping[str, str] | None = None,
    only: set[str] | None = None,
    overwrite: bool = False,
    workers: int = 8,
) -> tuple[Path, Outcome, list[str], Problems]:
    """Write ``imagenet/annotations/imagenet_lvis_image_info.json``.

    Args:
        root: the data root.
        folder: where the photos are; default ``imagenet/ImageNet-LVIS`` below the root, or ``ImageNet-21K`` next to it.
        mapping: synset name to WordNet id; None takes the table for LVIS.
        only: take these WordNet ids only, for example those of the published ``imagenet_lvis_wnid.txt``.

    Returns:
        the file, what was done, the WordNet ids without photos, and the photos left out.

    Raises:
        UserError: when there is no photo of any of these classes.
    """
    vocabulary = Vocabulary.load("lvis")
    wnids = class_of_wnid(vocabulary, mapping)
    if only is not None:
        wnids = {wnid: category for wnid, category in wnids.items() if wnid in only}
    registered = root / "imagenet/ImageNet-LVIS"
    places = [folder] if folder else [registered, root / "imagenet/ImageNet-21K"]
    place = next((path for path in places if path.is_dir()), None)
    if place is None:
        raise UserError(f"{places[0]} does not exist; put ImageNet-21K's folders (WNID/) or archives (WNID.tar) there")
    photos = list(photos_of_synsets(place, wnids))
    if not photos:
        raise UserError(f"{place} holds no photos of the {len(wnids)} ImageNet classes that LVIS has")
    present = {photo["file_name"].split("/")[0] for photo in photos}
    problems = Problems()
    output = root / "imagenet/annotations/imagenet_lvis_image_info.json"
    sizes_in_bytes = [photo.get("size") or _bytes_of(place / photo["file_name"]) for photo in photos]
    prefix = _prefix(registered, place)
    inputs = {
        "photos": sha256_of_json([photos, sizes_in_bytes]),
        "classes": vocabulary.sha256,
        "place": prefix,
    }

    def build() -> dict[str, Any]:
        images = with_sizes(place, photos, problems, workers)
        if not images:
            raise UserError(f"none of the {len(photos)} photos in {place} can be read")
        if prefix:
            for image in images:
                image |= {key: f"{prefix}/{image[key]}" for key in ("file_name", "tar") if key in image}
        return image_label_document(images, vocabulary)

    outcome = derive_json(output, inputs, "imagenet image labels, 1", build, overwrite)
    return output, outcome, sorted(set(wnids) - present), problems


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken link: counted as unreadable when its size in pixels is read
        return 0


def _prefix(registered: Path, place: Path) -> str:
    """From the registered folder to the photos; absolute when they are on another disk or above the data root."""
    if place.absolute() == registered.absolute():
        return ""
    near = place.absolute().parent == registered.absolute().parent
    return f"../{place.name}" if near else str(place.absolute())
