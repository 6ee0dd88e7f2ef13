"""ImageNet-LVIS: the ImageNet-21K photos of LVIS classes, as image labels (Zhou et al. 2022, Detic, section 4).

A photo gets the class of its synset. Classes whose boxes are held out are included: open-vocabulary detection withholds
boxes, not labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pomp_det.data.prepare.photo_lists import bytes_of, image_label_document, photos_of_synsets, with_sizes
from pomp_det.data.usable_boxes import Problems
from pomp_det.data.wordnet import lvis_wnids
from pomp_engine.data.derived_files import Outcome, derive_json
from prompt_core.errors import UserError
from prompt_core.files import sha256_of_json
from prompt_core.vocabulary import Vocabulary

REGISTERED = "imagenet/ImageNet-LVIS"  # below the data root; photos elsewhere are named from there


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
    output = root / "imagenet/annotations/imagenet_lvis_image_info.json"
    places = [folder] if folder else [root / REGISTERED, root / "imagenet/ImageNet-21K"]
    outcome, absent, problems = label_photos(root, output, vocabulary, wnids, places, overwrite, workers)
    return output, outcome, absent, problems


def label_photos(
    root: Path,
    output: Path,
    vocabulary: Vocabulary,
    wnids: Mapping[str, int],
    places: Sequence[Path],
    overwrite: bool = False,
    workers: int = 8,
) -> tuple[Outcome, list[str], Problems]:
    """Write the list of the photos of some synsets, with their class and size.

    Args:
        wnids: category id of each synset, in ``vocabulary``.
        places: folders of synsets, of which the first that exists is taken.

    Returns:
        what was done, the WordNet ids without photos, and the photos left out.

    Raises:
        UserError: when there is no photo of any of these classes.
    """
    place = next((path for path in places if path.is_dir()), None)
    if place is None:
        raise UserError(f"{places[0]} does not exist; put ImageNet-21K's folders (WNID/) or archives (WNID.tar) there")
    photos = list(photos_of_synsets(place, wnids))
    if not photos:
        raise UserError(f"{place} holds no photos of the {len(wnids)} synsets of ImageNet-21K that are wanted")
    present = {photo["file_name"].split("/")[0] for photo in photos}
    problems = Problems()
    sizes_in_bytes = [photo.get("size") or bytes_of(place / photo["file_name"]) for photo in photos]
    prefix = _prefix(root / REGISTERED, place)
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
    return outcome, sorted(set(wnids) - present), problems


def _prefix(registered: Path, place: Path) -> str:
    """From the registered folder to the photos; absolute when they are on another disk or above the data root."""
    if place.absolute() == registered.absolute():
        return ""
    near = place.absolute().parent == registered.absolute().parent
    return f"../{place.name}" if near else str(place.absolute())
