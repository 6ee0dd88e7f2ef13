"""All of ImageNet-21K as image labels, in LVIS's classes and 20,844 behind them (Zhou et al. 2022, Detic)."""

from __future__ import annotations

from pathlib import Path

from pomp_det.data.prepare.imagenet_lvis import class_of_wnid, label_photos
from pomp_det.data.usable_boxes import Problems
from pomp_engine.data.derived_files import Outcome, derive_json
from prompt_core.vocabulary import Vocabulary

# Synsets of ImageNet-21K, a picture and bleachers, that the release which Detic lists has no archive of.
WITHOUT_ARCHIVE = ("n03931044", "n09859684")


def lvis_21k_vocabulary() -> Vocabulary:
    """LVIS's 1,203 classes, and behind them the synsets of ImageNet-21K that LVIS lacks: 22,047 classes.

    These are the classes, in the order, of Detic's ``lvis-21k`` files; ids count from 1. The synset of a class that
    only ImageNet-21K has is its WordNet id.
    """
    lvis, imagenet = Vocabulary.load("lvis"), Vocabulary.load("imagenet21k")
    assert lvis.synsets is not None
    assert imagenet.ids is not None
    known = {*class_of_wnid(lvis), *WITHOUT_ARCHIVE}
    more = [(str(wnid), name) for wnid, name in zip(imagenet.ids, imagenet.names, strict=True) if wnid not in known]
    names = [*lvis.names, *(name.replace(" ", "_") for _, name in more)]
    synsets = [*lvis.synsets, *(wnid for wnid, _ in more)]
    return Vocabulary(names, range(1, len(names) + 1), synsets, source="LVIS with ImageNet-21K")


def prepare_imagenet_21k(
    root: Path, folder: Path | None = None, overwrite: bool = False, workers: int = 8
) -> tuple[dict[Path, Outcome], list[str], Problems]:
    """Write ``imagenet/annotations/imagenet-22k_image_info_lvis-22k.json`` and the classes, for a class matrix.

    Args:
        root: the data root.
        folder: where the photos are; default ``imagenet/ImageNet-21K`` below the root.

    Returns:
        what was done, the WordNet ids without photos, and the photos left out.

    Raises:
        UserError: when there is no photo of any class.
    """
    vocabulary = lvis_21k_vocabulary()
    assert vocabulary.synsets is not None
    wnids = class_of_wnid(Vocabulary.load("lvis"))
    wnids |= {synset: row + 1 for row, synset in enumerate(vocabulary.synsets) if row >= 1203}
    output = root / "imagenet/annotations/imagenet-22k_image_info_lvis-22k.json"
    outcome, absent, problems = label_photos(
        root, output, vocabulary, wnids, [folder or root / "imagenet/ImageNet-21K"], overwrite, workers
    )
    classes = root / "metadata/lvis-21k_classes.json"
    inputs = {"classes": vocabulary.sha256}
    value = {"source": vocabulary.source, "names": list(vocabulary.names), "ids": list(vocabulary.ids or ())}
    made = {output: outcome, classes: derive_json(classes, inputs, "lvis-21k classes, 1", lambda: value, overwrite)}
    return made, absent, problems
