"""Image labels from captions and from ImageNet-21K, and LVIS with COCO's boxes: as Detic's tools make them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("detectron2")

from pomp_det.config import load_config
from pomp_det.data.coco_lvis import lvis_classes_of_coco
from pomp_det.data.mapper import MixedDatasetMapper
from pomp_det.data.prepare.captions import coco_caption_tags, prepare_cc3m, tagged
from pomp_det.data.prepare.imagenet_21k import lvis_21k_vocabulary, prepare_imagenet_21k
from pomp_det.data.prepare.lvis_coco import prepare_lvis_coco, with_coco
from pomp_det.data.records import load_boxes, load_image_labels
from pomp_det.data.tar_index import TarIndex
from pomp_engine.data.derived_files import Outcome
from pomp_engine.data.tar_images import image_size, read_tar_bytes
from prompt_core.data.images import UnreadableImage
from prompt_core.errors import UserError
from prompt_core.vocabulary import Vocabulary

from ..support.data_files import photo, save


def coco_categories() -> list[dict[str, Any]]:
    vocabulary = Vocabulary.load("coco")
    return [{"id": n, "name": name} for n, name in zip(vocabulary.ids or (), vocabulary.names, strict=True)]


CAPTIONS = {
    1: ["A dog.", "two Dogs run"],  # neither a full stop nor a plural is a name
    2: ["A man on a BIKE", "a  couch"],  # synonyms of LVIS, over all captions
    3: ["couch"],  # not between spaces
    4: ["a hot dog"],  # LVIS's class is sausage
    5: ["computer mouse pad", "a mouse"],
    6: [],
    7: ["necktie", "on a double-decker"],
}


def test_caption_tags_are_those_of_the_published_tool(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 9, "height": 9} for n in CAPTIONS]
    annotations = [{"image_id": n, "caption": text} for n, texts in CAPTIONS.items() for text in texts]
    file = save(tmp_path / "captions.json", {"images": images, "annotations": annotations})
    tags = coco_caption_tags(file, coco_categories())
    assert set(tags) == {"images", "categories", "annotations"}
    assert {image["id"]: image["pos_category_ids"] for image in tags["images"]} == {
        2: [1, 2, 63],
        4: [18],
        5: [74],
        7: [6, 32],
    }
    assert tags["images"][0] == images[1] | {"captions": CAPTIONS[2], "pos_category_ids": [1, 2, 63]}
    car = tags["categories"][2]
    assert car == {
        "id": 3,
        "name": "car",
        "frequency": "f",
        "synonyms": ["car_(automobile)", "auto_(automobile)", "automobile"],
    }
    first = tagged([{"id": 2, "captions": CAPTIONS[2]}], tags["categories"])  # as for Conceptual Captions
    assert first["images"][0]["pos_category_ids"] == [1, 2]
    records, _, _ = load_image_labels_of(tmp_path, tags)
    assert [record["pos_category_ids"] for record in records] == [[0, 1, 57], [16], [64], [5, 27]]
    with pytest.raises(UserError, match=r"annotations\[0\] has no 'caption'"):
        coco_caption_tags(save(file, {"images": images, "annotations": [{"image_id": 1}]}), [])


def load_image_labels_of(folder: Path, document: dict[str, Any]) -> Any:
    for image in document["images"]:
        photo(folder / image["file_name"])
    return load_image_labels(save(folder / "tags.json", document), folder, Vocabulary.load("coco"))


@given(
    st.lists(st.sampled_from(["a", "cat", "hot", "dog", "dogs", "", "hot dog", "Cat"]), max_size=6).map(" ".join),
    st.lists(st.sampled_from(["cat", "hot_dog", "dog_(animal)", "a_hot_dog", "Cat_a"]), min_size=1, max_size=3),
)
def test_a_name_stands_between_spaces(caption: str, synonyms: list[str]) -> None:
    """The rule as it is written down: in the middle, at the beginning before a space, at the end behind one."""
    text = caption.lower()
    names = [synonym.replace("_", " ").partition("(")[0].strip().lower() for synonym in synonyms]
    named = any(f" {name} " in text or text.startswith(f"{name} ") or text.endswith(f" {name}") for name in names)
    categories = [{"id": 7, "synonyms": synonyms}]
    chosen = tagged([{"id": 1, "captions": [caption]}], categories)["images"]
    assert [image["pos_category_ids"] for image in chosen] == ([[7]] if named else [])


def test_conceptual_captions_from_the_table_and_the_photos(tmp_path: Path) -> None:
    table = tmp_path / "cc3m/Train_GCC-training.tsv"
    with pytest.raises(UserError, match=r"GCC-training.tsv does not exist"):
        prepare_cc3m(tmp_path)
    table.parent.mkdir()
    table.write_text("a puppy and a cat\thttp://x/1\nthe sea\thttp://x/2\nan alligator\thttp://x/3\n")
    with pytest.raises(UserError, match="holds no photo"):
        prepare_cc3m(tmp_path)
    for line in (1, 2):
        photo(tmp_path / f"cc3m/training/{line}.jpg", (30, 20))
    made, problems = prepare_cc3m(tmp_path)
    assert set(made.values()) == {Outcome.WRITTEN}
    assert problems.lines() == ["1 photos left out (unreadable): 3.jpg"]
    every = json.loads((tmp_path / "cc3m/train_image_info.json").read_text())
    assert [image["id"] for image in every["images"]] == [1, 2]
    assert every["images"][1] == {"id": 2, "file_name": "2.jpg", "captions": ["the sea"], "width": 30, "height": 20}
    vocabulary = Vocabulary.load("lvis")
    folder, tags = tmp_path / "cc3m/training", tmp_path / "cc3m/train_image_info_tags.json"
    records, _, _ = load_image_labels(tags, folder, vocabulary)
    assert [[vocabulary.names[row] for row in record["pos_category_ids"]] for record in records] == [["cat", "puppy"]]
    # Captions alone are labels enough.
    records, _, _ = load_image_labels(tmp_path / "cc3m/train_image_info.json", folder, vocabulary)
    assert [record["captions"] for record in records] == [["a puppy and a cat"], ["the sea"]]
    assert set(prepare_cc3m(tmp_path)[0].values()) == {Outcome.UP_TO_DATE}
    table.write_text("no address\n")
    with pytest.raises(UserError, match=r"line 1: a caption, a tab and an address"):
        prepare_cc3m(tmp_path)


def test_every_class_of_coco_is_one_of_lvis() -> None:
    rows, names = lvis_classes_of_coco(), Vocabulary.load("lvis").names
    assert len(set(rows.values())) == 80
    assert [names[rows[category]] for category in (1, 21, 31, 58, 63, 72)] == [
        "person", "cow", "handbag", "sausage", "sofa", "television_set"
    ]  # fmt: skip


def boxes(*rows: tuple[int, int, list[float]]) -> list[dict[str, Any]]:
    return [
        {"id": n, "image_id": image, "category_id": category, "bbox": box, "area": 1.0}
        for n, (image, category, box) in enumerate(rows, start=50)
    ]


def test_coco_boxes_that_lvis_lacks_are_added(tmp_path: Path) -> None:
    vocabulary = Vocabulary.load("lvis")
    dog, cat, sofa = (list(vocabulary.names).index(name) + 1 for name in ("dog", "cat", "sofa"))
    categories = [
        {"id": row + 1, "name": name, "frequency": "f", "synset": "x"} for row, name in enumerate(vocabulary.names)
    ]
    lists: dict[str, Any] = {"not_exhaustive_category_ids": [], "width": 100, "height": 100}
    images = [
        {"id": n, "coco_url": f"http://images.cocodataset.org/train2017/{name}", "neg_category_ids": absent, **lists}
        for n, name, absent in ((1, "7.jpg", [sofa]), (2, "9.jpg", []), (3, "8.jpg", []))
    ]
    own = boxes((3, dog, [0, 0, 10, 10]), (1, dog, [0, 0, 10, 10]), (1, cat, [50, 50, 10, 10]))
    lvis = {"images": images, "categories": categories, "annotations": own}
    names = ("7.jpg", "9.jpg", "11.jpg")
    photos = [{"id": int(n[:-4]), "file_name": n, "width": 100, "height": 100} for n in names]
    theirs = boxes(
        (7, 18, [0, 0, 10, 8]),  # the dog that LVIS has: IoU 0.8
        (7, 18, [0, 0, 10, 6]),  # another dog: IoU 0.6
        (7, 17, [0, 0, 10, 8]),  # a cat where LVIS has a dog
        (7, 63, [5, 5, 9, 9]),  # LVIS knows that there is no sofa
        (9, 63, [5, 5, 9, 9]),  # a photo without annotations of LVIS
        (11, 63, [5, 5, 9, 9]),  # a photo that is not LVIS's
    )
    coco = {"images": photos, "categories": coco_categories(), "annotations": theirs}
    merged = with_coco(lvis, coco)
    assert merged["images"] == images
    places = [(a["image_id"], a["category_id"], a["bbox"]) for a in merged["annotations"]]
    assert places == [
        (3, dog, [0, 0, 10, 10]),
        (1, dog, [0, 0, 10, 10]),
        (1, cat, [50, 50, 10, 10]),
        (1, dog, [0, 0, 10, 6]),
        (1, cat, [0, 0, 10, 8]),
    ]
    assert [annotation["id"] for annotation in merged["annotations"]] == [1, 2, 3, 4, 5]
    save(tmp_path / "lvis/lvis_v1_train.json", lvis)
    with pytest.raises(UserError, match=r"check.py coco"):
        prepare_lvis_coco(tmp_path)
    save(tmp_path / "coco/annotations/instances_train2017.json", coco)
    (output,) = prepare_lvis_coco(tmp_path)
    for name in ("7.jpg", "8.jpg", "9.jpg"):
        photo(tmp_path / f"coco/train2017/{name}")
    records, _, _ = load_boxes(output, tmp_path / "coco", vocabulary, federated=True)
    assert [len(record["annotations"]) for record in records] == [4, 0, 1]


def test_all_of_imagenet_behind_the_classes_of_lvis(tmp_path: Path) -> None:
    vocabulary = lvis_21k_vocabulary()
    assert len(vocabulary) == 22_047  # MODEL.ROI_HEADS.NUM_CLASSES of the published files
    assert list(vocabulary.names[:1203]) == list(Vocabulary.load("lvis").names)
    assert (vocabulary.names[1203], vocabulary.names[-1]) == ("organism", "knothole")
    place = tmp_path / "imagenet/ImageNet-21K"
    photo(place / "n02084071/a.JPEG")  # a dog, which LVIS has
    photo(place / "n00004475/b.JPEG")  # an organism, which it has not
    made, absent, problems = prepare_imagenet_21k(tmp_path)
    assert set(made.values()) == {Outcome.WRITTEN}
    assert len(absent) == 21_841 - 2
    assert not problems.counts
    output, classes = made
    records, found, _ = load_image_labels(output, tmp_path / "imagenet/ImageNet-LVIS")
    assert list(found.names) == list(vocabulary.names) == list(Vocabulary.load(classes).names)
    assert {Path(r["file_name"]).name: found.names[r["pos_category_ids"][0]] for r in records} == {
        "a.JPEG": "dog",
        "b.JPEG": "organism",
    }


def test_photos_by_their_number_in_the_archives(tmp_path: Path) -> None:
    """Detic's index: an archive may be empty, a name too long for its header, a photo compressed once more."""
    names = ["a.JPEG", "x" * 130 + ".JPEG", "c.JPEG"]
    files, offsets = {}, {}
    for wnid, members in {"n01": names[:2], "n02": [], "n03": names[2:]}.items():
        with tarfile.open(tmp_path / f"{wnid}.tar", "w", format=tarfile.GNU_FORMAT) as archive:
            starts = []
            for place, name in enumerate(members):
                content = photo(tmp_path / "photo.png", (12 + place, 8 + int(wnid[1:]))).read_bytes()
                content = gzip.compress(content) if name == "c.JPEG" else content
                starts.append(archive.offset // 512)
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            offsets[wnid] = [*starts, archive.offset // 512]
        files[wnid] = str(tmp_path / f"{wnid}.tar")
        np.save(tmp_path / f"{wnid}_offsets.npy", np.array(offsets[wnid], dtype=np.int64))
    np.save(tmp_path / "tar_files.npy", np.array([*files.values()]))
    index = TarIndex(tmp_path / "tar_files.npy", tmp_path)
    assert len(index) == 3
    sizes = [image_size(read_tar_bytes(*index.place(number))) for number in range(3)]
    assert sizes == [(12, 9), (13, 9), (12, 11)]
    assert index.place(2)[0] == files["n03"]
    with pytest.raises(UserError, match=r"photo 3 .* the index has 3"):
        index.place(3)

    images = [
        {"id": number + 1, "tar_index": number, "width": width, "height": height, "pos_category_ids": [1]}
        for number, (width, height) in enumerate(sizes)
    ]
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    records, _, _ = load_image_labels(save(tmp_path / "list.json", document), tmp_path / "nowhere")
    settings = {
        "DATASETS.TRAIN": ("x",),
        "DATALOADER.DATASET_ANN": ["image"],
        "WITH_IMAGE_LABELS": True,
        "INPUT.CUSTOM_AUG": "EfficientDetResizeCrop",
        "DATALOADER.TARFILE_PATH": str(tmp_path / "tar_files.npy"),
        "DATALOADER.TAR_INDEX_DIR": str(tmp_path),
    }
    mapper = MixedDatasetMapper(load_config(None, settings | {"DATALOADER.USE_TAR_DATASET": True}), True)
    examples = [mapper(record) for record in records]
    assert [(example["width"], example["height"]) for example in examples] == sizes
    assert examples[1]["file_name"] == f"{files['n01']}, photo 1"
    with pytest.raises(UserError, match=r"set DATALOADER.USE_TAR_DATASET to True"):
        MixedDatasetMapper(load_config(None, settings), True)(records[0])
    Path(files["n03"]).unlink()
    with pytest.raises(UnreadableImage):
        mapper(records[2])
    for name, value, message in (
        ("tar_files.npy", [1, 2], "a list of paths of archives was expected"),
        ("n02_offsets.npy", [0.5], "a list of offsets of members was expected"),
    ):
        np.save(tmp_path / name, np.array(value))
        with pytest.raises(UserError, match=message):
            TarIndex(tmp_path / "tar_files.npy", tmp_path)
        np.save(tmp_path / "tar_files.npy", np.array([*files.values()]))
    (tmp_path / "n01_offsets.npy").unlink()
    with pytest.raises(UserError, match=r"n01_offsets.npy does not exist; DATALOADER.USE_TAR_DATASET needs it"):
        TarIndex(tmp_path / "tar_files.npy", tmp_path)
