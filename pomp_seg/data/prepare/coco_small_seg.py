"""The semantic labels of a few COCO photos: 133 panoptic classes, of which some are never shown in training.

Source: the folders ``coco128/semantic_train2017`` (100 labels) and ``coco128_val/semantic_val2017`` (60), whose values
are COCO's panoptic category ids, 0 for pixels without one.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pomp_seg.data.label_maps import read_label_map
from pomp_seg.data.label_sets import label_set
from pomp_seg.data.prepare.coco_stuff import Made, convert_split
from pomp_seg.data.records import files_by_key

SEED, SHARE = 0, 0.2
_FOLDERS = {"train": "coco128/semantic_train2017", "val": "coco128_val/semantic_val2017"}


def prepare_coco_small_seg(root: Path, overwrite: bool = False) -> Made:
    """Make ``coco_small_seg/{train,train_base,val}`` and label counts.

    ``train_base`` is for training: unseen classes are ignored there, and label values are those of the base classes
    alone. ``train`` has all classes.

    Raises:
        UserError: when a folder is absent or a label damaged.
    """
    made: Made = {}
    for split, place in _FOLDERS.items():
        sources = _sources(root, place)
        for base in (False, True) if split == "train" else (False,):
            made |= convert_split(
                root / "coco_small_seg" / (f"{split}_base" if base else split),
                sources,
                "COCO panoptic",
                ("coco_small", "coco_small_base"),
                base=base,
                ignored=(0,),
                counts=base or split == "val",
                overwrite=overwrite,
            )
    return made


def choose_unseen(train: Iterable[int], val: Iterable[int], share: float = SHARE, seed: int = SEED) -> list[int]:
    """Classes to hold out: ``share`` of those that occur, all of which occur in validation.

    Classes that occur in validation alone cannot be learned from the training photos and come first; the others are
    drawn from those that occur in both.

    Args:
        train, val: classes that occur in the labels.
    """
    in_train, in_val = set(train), set(val)
    only_val, both = sorted(in_val - in_train), sorted(in_val & in_train)
    count = round(share * len(in_train | in_val))
    drawn = random.Random(seed).sample(both, max(0, count - len(only_val)))
    return sorted([*only_val, *drawn])


def unseen_document(root: Path) -> dict[str, Any]:
    """What ``assets/coco_small_unseen.json`` holds, derived from the labels.

    Raises:
        UserError: when a label is damaged.
    """
    vocabulary = label_set("coco_panoptic").vocabulary
    assert vocabulary.ids is not None
    name_of = dict(zip(map(int, vocabulary.ids), vocabulary.names, strict=True))
    occurring = {split: _values(_sources(root, place)) for split, place in _FOLDERS.items()}
    unseen = choose_unseen(occurring["train"], occurring["val"])
    return {
        "rule": "of the classes in the labels of coco128 and coco128_val: those in validation alone, the others drawn "
        "from the classes in both",
        "seed": SEED,
        "share": SHARE,
        "occurring": len(occurring["train"] | occurring["val"]),
        "unseen": [name_of[value] for value in unseen],
    }


def _sources(root: Path, place: str) -> dict[str, Path]:
    return {key: Path(path) for key, path in sorted(files_by_key(root / place, (".png",)).items())}


def _values(sources: dict[str, Path]) -> set[int]:
    found: set[int] = set()
    for path in sources.values():
        found.update(np.unique(read_label_map(path)).tolist())
    return found - {0}
