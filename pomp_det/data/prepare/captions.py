"""Captions with the classes that they name, for COCO's captions and Conceptual Captions (Zhou et al. 2022, Detic).

The rule is that of Detic's ``tools/get_cc_tags.py``: a class is named when one of its synonyms stands in the captions
between spaces, in lower case and without what is in parentheses. A plural, or a word before a full stop, is no name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pomp_det.data.coco_lvis import lvis_classes_of_coco
from pomp_det.data.prepare.photo_lists import categories_of, with_sizes
from pomp_det.data.usable_boxes import Problems
from pomp_engine.data.derived_files import Outcome, derive_json, file_inputs
from prompt_core.documents.schema import Int64, check_each
from prompt_core.errors import UserError
from prompt_core.files import read_json, sha256_of_json
from prompt_core.vocabulary import Vocabulary


def with_captions(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The images of COCO's captions file, each with its ``captions``."""
    captions: dict[Any, list[str]] = {}
    for annotation in document["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    return [{**image, "captions": captions.get(image["id"], [])} for image in document["images"]]


def with_lvis_synonyms(categories: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """COCO's categories with LVIS's synonyms and the frequency ``f``, as published."""
    lvis, rows = Vocabulary.load("lvis"), lvis_classes_of_coco()
    assert lvis.synonyms is not None
    return [
        {**category, "synonyms": list(lvis.synonyms[rows[category["id"]]]), "frequency": "f"} for category in categories
    ]


def tagged(
    images: Iterable[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]], all_captions: bool = False
) -> dict[str, Any]:
    """The images whose captions name a class, with ``pos_category_ids``, in the format of LVIS.

    Args:
        images: with ``captions``.
        categories: with ``synonyms``.
        all_captions: look at all captions of an image; else at its first.
    """
    named: dict[str, list[int]] = {}
    for place, category in enumerate(categories):
        for synonym in category["synonyms"]:
            named.setdefault(_plain(synonym), []).append(place)
    longest = max((name.count(" ") + 1 for name in named), default=0)
    chosen = []
    for image in images:
        captions = image["captions"] if all_captions else image["captions"][:1]
        caption = " ".join(captions).lower()
        # As published, a name that is the whole caption is not between spaces.
        places = {place for name in _phrases(caption, longest) if name != caption for place in named.get(name, ())}
        if places:
            chosen.append({**image, "pos_category_ids": [categories[place]["id"] for place in sorted(places)]})
    return {"images": chosen, "categories": list(categories), "annotations": []}


def _plain(synonym: str) -> str:
    return synonym.replace("_", " ").partition("(")[0].lower().strip()


def _phrases(text: str, longest: int) -> Iterator[str]:
    """All runs of one to ``longest`` words between spaces."""
    words = text.split(" ")
    for length in range(1, longest + 1):
        for first in range(len(words) - length + 1):
            yield " ".join(words[first : first + length])


def coco_caption_tags(captions: Path, categories: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The photos of COCO's captions file that name a class of COCO.

    Raises:
        UserError: when it is not COCO's captions file.
    """
    return tagged(with_captions(_read_captions(captions)), with_lvis_synonyms(categories), all_captions=True)


class CaptionedImage(msgspec.Struct, gc=False):
    """A photo of COCO's captions file."""

    id: Int64


class Caption(msgspec.Struct, gc=False):
    """A sentence on a photo."""

    image_id: Int64
    caption: str


def _read_captions(path: Path) -> dict[str, Any]:
    document = read_json(path)
    needed = {"images": CaptionedImage, "annotations": Caption}
    if not isinstance(document, dict) or not all(isinstance(document.get(part), list) for part in needed):
        raise UserError(f"{path}: COCO's captions file is expected, with 'images' and 'annotations'")
    for part, expected in needed.items():
        check_each(document[part], expected, path, part)
    return document


def prepare_cc3m(root: Path, overwrite: bool = False) -> tuple[dict[Path, Outcome], Problems]:
    """Write ``cc3m/train_image_info.json``, and ``…_tags.json`` with the classes of LVIS that captions name.

    The photo of line n of ``cc3m/Train_GCC-training.tsv`` (or ``GCC-training.tsv``) is ``cc3m/training/n.jpg``, as
    Detic's tool downloads it.

    Returns:
        what was done, and the lines whose photo is absent or unreadable.

    Raises:
        UserError: when the table is absent or damaged, or there are no photos.
    """
    places = [root / "cc3m" / name for name in ("Train_GCC-training.tsv", "GCC-training.tsv")]
    table = next((place for place in places if place.is_file()), None)
    if table is None:
        raise UserError(f"{places[0]} does not exist; download it from ai.google.com/research/ConceptualCaptions")
    folder, problems = root / "cc3m/training", Problems()
    images = with_sizes(folder, list(_listed_photos(table)), problems)
    if not images:
        raise UserError(f"{folder} holds no photo of {table}; the photo of its line n is n.jpg there")
    categories = categories_of(Vocabulary.load("lvis"))
    inputs = {**file_inputs(root, table), "photos": sha256_of_json([image["file_name"] for image in images])}
    every, named = root / "cc3m/train_image_info.json", root / "cc3m/train_image_info_tags.json"
    document = {"images": images, "categories": categories, "annotations": []}
    made = {
        every: derive_json(every, inputs, "conceptual captions, 1", lambda: document, overwrite),
        named: derive_json(named, inputs, "caption tags, 2", lambda: tagged(images, categories), overwrite),
    }
    return made, problems


def _listed_photos(table: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(table, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                caption, tab, _ = line.rstrip("\n").partition("\t")
                if not tab:
                    raise UserError(f"{table}, line {number}: a caption, a tab and an address are expected")
                yield {"id": number, "file_name": f"{number}.jpg", "captions": [caption]}
    except (OSError, ValueError) as error:
        raise UserError(f"{table} cannot be read as text: {error}") from error
