"""Class lists and splits of segmentation, against the published numbers."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("detectron2")

from pomp_seg.data.label_maps import read_label_map
from pomp_seg.data.label_sets import (
    LABEL_SETS,
    LabelSet,
    default_ignore_label,
    label_set,
    read_asset,
    read_label_set,
)
from pomp_seg.data.prepare.remapped import COCO_SMALL_FOLDERS, SourceValues, png_files
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

# Pixel values of the unseen classes in stuffthingmaps, from ZSSeg.
UNSEEN_VALUES = [20, 24, 32, 33, 40, 56, 86, 99, 105, 123, 144, 147, 148, 168, 171]


@pytest.mark.parametrize(
    ("name", "classes", "seen"),
    [
        ("coco_stuff", 171, 156),
        ("coco_stuff_base", 156, 156),
        ("voc", 20, 15),
        ("voc_base", 15, 15),
        ("pascal_context", 59, None),
        ("ade20k", 150, None),
        ("camvid", 11, None),
        ("cityscapes", 19, None),
        ("coco_panoptic", 133, None),
        ("coco_small", 133, 107),
        ("coco_small_base", 107, 107),
    ],
)
def test_sizes(name: str, classes: int, seen: int | None) -> None:
    labels = label_set(name)
    assert len(labels) == classes == len(set(labels.vocabulary.names))
    assert (None if labels.seen is None else len(labels.seen)) == seen
    assert labels.ignore_label == 255
    assert all(n == n.strip() for n in labels.vocabulary.names)


def test_every_set_is_tested() -> None:
    assert len(LABEL_SETS) == 11


def test_coco_stuff_values() -> None:
    every, base = label_set("coco_stuff"), label_set("coco_stuff_base")
    values, others = SourceValues("stuff", "coco_stuff", offset=-1).indices(base)
    assert others == UNSEEN_VALUES
    assert sorted(values.values()) == list(range(156))
    everything, none = SourceValues("stuff", "coco_stuff", offset=-1).indices(every)
    assert none == []
    gaps = set(range(182)) - set(everything)
    assert gaps == {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    assert sum(value < 91 for value in everything) == 80
    assert [every.vocabulary[index] for index in every.unseen] == [
        *("cow", "giraffe", "suitcase", "frisbee", "skateboard", "carrot", "scissors", "cardboard", "clouds", "grass"),
        *("playingfield", "river", "road", "tree", "wall-concrete"),
    ]
    assert base.trainable_flag == [1] * 156
    assert sum(every.trainable_flag or []) == 156


def test_names_follow_the_published_lists() -> None:
    voc = label_set("voc")
    assert [voc.vocabulary[index] for index in voc.unseen] == ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]
    assert voc.seen == tuple(range(15))
    assert voc.vocabulary[10] == "diningtable"
    # PASCAL-Context's names in alphabetical order; ZSSeg and POMP prompt its "table" by VOC's name, in its old place.
    context = label_set("pascal_context").vocabulary
    assert (context[49], (context.ids or [])[49]) == ("diningtable", 397)
    names = [name.replace("diningtable", "table") for name in context]
    assert names == sorted(names)
    assert "road, route" in label_set("ade20k").vocabulary.names
    from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES, COCO_CATEGORIES

    assert list(label_set("ade20k").vocabulary) == [name.strip() for name in ADE20K_SEM_SEG_CATEGORIES]
    assert list(label_set("coco_panoptic").vocabulary.ids or []) == [category["id"] for category in COCO_CATEGORIES]
    assert list(label_set("coco_stuff").vocabulary)[:80] == list(Vocabulary.load("coco"))


def test_the_held_out_classes_are_those_of_the_packs(shared: Path, tmp_path: Path) -> None:
    """A fifth of the classes that occur: those in validation alone, and others drawn from those in both packs."""
    occurring: dict[str, set[int]] = {}
    for split, place in COCO_SMALL_FOLDERS.items():
        with tarfile.open(shared / f"data/{place.split('/')[0]}.tar") as archive:
            archive.extractall(tmp_path, [m for m in archive.getmembers() if "/semantic_" in m.name], filter="data")
        labels = png_files(tmp_path / place).values()
        occurring[split] = {int(value) for path in labels for value in np.unique(read_label_map(path))} - {0}
    alone, both = occurring["val"] - occurring["train"], sorted(occurring["val"] & occurring["train"])
    count = round(0.2 * len(occurring["train"] | occurring["val"]))
    chosen = sorted(alone) + random.Random(0).sample(both, count - len(alone))
    vocabulary, held_out = label_set("coco_panoptic").vocabulary, read_asset("coco_small_unseen.json")
    names = dict(zip(vocabulary.ids or [], vocabulary.names, strict=True))
    assert held_out["unseen"] == [names[value] for value in sorted(chosen)]
    assert (held_out["seed"], held_out["share"]) == (0, 0.2)
    assert held_out["occurring"] == len(occurring["train"] | occurring["val"])


def test_more_than_255_classes_have_16_bits() -> None:
    assert default_ignore_label(255) == 255
    assert default_ignore_label(256) == 65535
    assert LabelSet(Vocabulary([f"class {number}" for number in range(847)])).ignore_label == 65535


def test_own_classes(tmp_path: Path) -> None:
    names, seen, split = tmp_path / "names.txt", tmp_path / "seen.txt", tmp_path / "split.json"
    names.write_text("tree\nroad\nhouse\n", encoding="utf-8")
    seen.write_text("house\ntree\n", encoding="utf-8")
    split.write_text(json.dumps({"names": ["tree", "road", "house"], "unseen": ["road"]}), encoding="utf-8")
    assert read_label_set(names).seen is None
    assert read_label_set(names, seen).seen == (0, 2)
    assert read_label_set(split).seen == (0, 2)
    assert list(read_label_set(split).base().vocabulary) == ["tree", "house"]
    assert read_label_set("voc").seen == tuple(range(15))
    assert len(read_label_set("coco")) == 80
    assert read_label_set(Vocabulary(["a", "b"]), ["b"]).unseen == (0,)


def test_wrong_classes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"label set 'coco_stuf' is unknown; nearest: 'coco_stuff'"):
        label_set("coco_stuf")
    with pytest.raises(UserError, match=r"neither a file nor one of .*nearest: 'pascal_context'"):
        read_label_set("pascal_contxt")
    with pytest.raises(UserError, match=r"seen classes: 'raod' is not among the 2 classes; nearest: 'road'"):
        read_label_set(Vocabulary(["tree", "road"]), ["raod"])
    with pytest.raises(UserError, match=r"are not among the 2 classes"):
        LabelSet(Vocabulary(["tree", "road"]), (0, 2))
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"names": ["tree", "road"], "unseen": "road"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"split.json: unseen is 'road'; a list is expected"):
        read_label_set(split)
