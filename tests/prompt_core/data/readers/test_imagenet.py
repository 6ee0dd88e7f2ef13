"""Tiny-ImageNet and ImageNet-21K in their exact layouts, whole and with pieces missing."""

from __future__ import annotations

import pickle
import shutil
import tarfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prompt_core.data.readers.imagenet import imagenet21k, tiny_imagenet
from prompt_core.data.sources import open_images
from prompt_core.data.splits import few_shot
from prompt_core.errors import UserError


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (10, 20, 30)).save(path, format="JPEG")


def make_tiny(root: Path) -> Path:
    root = root / "tiny-imagenet-200"
    for wnid in ("n02124075", "n01443537"):
        for number in range(3):
            save(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("x\t0\t0\t7\t7\n")
    (root / "wnids.txt").write_text("n02124075\nn01443537\n")
    (root / "words.txt").write_text(
        "n01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\nn00001740\tentity\n"
    )
    for number in range(2):
        save(root / "val" / "images" / f"val_{number}.JPEG")
    (root / "val" / "val_annotations.txt").write_text(
        "val_1.JPEG\tn01443537\t0\t0\t7\t7\nval_0.JPEG\tn02124075\t0\t0\t7\t7\n"
    )
    return root


@pytest.mark.parametrize("kind", ["tiny_imagenet:", ""])
def test_tiny_imagenet(tmp_path: Path, kind: str) -> None:
    root = make_tiny(tmp_path)
    train, val = open_images(f"{kind}{root}", "train"), open_images(f"{kind}{tmp_path}", "val")
    assert train.ids == val.ids == ["n01443537", "n02124075"]
    assert train.names == val.names == ["goldfish", "Egyptian cat"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.keys[0] == "train/n01443537/images/n01443537_0.JPEG"
    assert val.keys == ["val/images/val_1.JPEG", "val/images/val_0.JPEG"]
    assert val.labels.tolist() == [0, 1]
    assert val.read(0).size == (8, 8)


@pytest.mark.parametrize(
    ("piece", "split"),
    [
        ("wnids.txt", "train"),
        ("words.txt", "train"),
        ("train/n01443537/images", "train"),
        ("val/val_annotations.txt", "val"),
        ("val/images/val_1.JPEG", "val"),
    ],
)
def test_missing_pieces_of_tiny_imagenet_are_named(tmp_path: Path, piece: str, split: str) -> None:
    root = make_tiny(tmp_path)
    path = root / piece
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=str(path)):
        tiny_imagenet(root, split)


def test_bad_lines_of_tiny_imagenet_are_named(tmp_path: Path) -> None:
    root = make_tiny(tmp_path)
    with pytest.raises(UserError, match="no split 'test': expected train or val"):
        tiny_imagenet(root, "test")
    (root / "val" / "val_annotations.txt").write_text("val_1.JPEG\tn00000000\n")
    with pytest.raises(UserError, match=r"val_annotations.txt, line 1"):
        tiny_imagenet(root, "val")
    (root / "words.txt").write_text("n01443537\tgoldfish\n")
    with pytest.raises(UserError, match=r"words.txt has no name for n02124075"):
        tiny_imagenet(root, "train")


def make_21k(root: Path, tree: object = None) -> Path:
    for wnid, count in (("n01440764", 3), ("n00004475", 2), ("n02084071", 1)):
        for number in range(count):
            save(root / "imagenet21k_train" / wnid / f"{wnid}_{number}.JPEG")
    for wnid in ("n02084071", "n00004475"):
        save(root / "imagenet21k_val" / wnid / f"{wnid}_9.JPEG")
    save(root / "imagenet21k_small_classes" / "n09999999" / "a.JPEG")
    (root / "imagenet21k_train" / "README.txt").write_text("text")
    (root / "imagenet21k_train" / "lost+found").mkdir()
    if tree is not None:
        torch.save(tree, root / "imagenet21k_miil_tree.pth")
    return root


TREE = {
    "class_list": ["n00004475", "n01440764", "n02084071"],
    "class_tree_list": [[0], [1, 0], [2, 0]],
    "child_2_parent": {"n01440764": "n00004475"},
    "class_description": {"n02084071": "dog", "n00004475": "organism", "n01440764": "tench_fish"},
}


def test_imagenet21k_labels_index_the_sorted_train_folders(tmp_path: Path) -> None:
    root = make_21k(tmp_path / "imagenet21k_resized", TREE)
    train, val = imagenet21k(root, "train"), open_images(f"imagenet21k:{tmp_path}", "val")
    assert train.ids == val.ids == ["n00004475", "n01440764", "n02084071"]
    assert train.names == val.names == ["organism", "tench_fish", "dog"]
    assert np.bincount(train.labels).tolist() == [2, 3, 1]
    assert val.labels.tolist() == [0, 2], "a class that val lacks keeps its label"
    assert val.keys[0] == "imagenet21k_val/n00004475/n00004475_9.JPEG"
    assert open_images(root, "test").fingerprint() == val.fingerprint()
    assert "imagenet21k_miil_tree.pth" in train.source
    assert len(few_shot(train, 2, 0)) == 5


def test_imagenet21k_without_the_tree_uses_wordnet(tmp_path: Path) -> None:
    images = imagenet21k(make_21k(tmp_path), "train")
    assert images.names == ["organism", "tench", "dog"]
    assert "WordNet lemmas of timm, no imagenet21k_miil_tree.pth" in images.source


def test_imagenet21k_tree_with_gaps(tmp_path: Path) -> None:
    root = make_21k(tmp_path, {"class_description": {"n01440764": "tench"}})
    save(root / "imagenet21k_train" / "n99999999" / "a.JPEG")
    save(root / "imagenet21k_val" / "n88888888" / "a.JPEG")
    images = imagenet21k(root, "val")
    assert images.names == ["organism", "tench", "dog", "n99999999"]
    assert "2 names not in the tree" in images.source
    assert "1 classes without a name" in images.source
    assert "1 val folders not in train left out" in images.source
    assert images.labels.tolist() == [0, 2]


@pytest.mark.parametrize("piece", ["imagenet21k_train", "imagenet21k_val"])
def test_missing_folders_of_imagenet21k_are_named(tmp_path: Path, piece: str) -> None:
    make_21k(tmp_path, TREE)
    shutil.rmtree(tmp_path / piece)
    with pytest.raises(UserError, match=str(tmp_path / piece)):
        imagenet21k(tmp_path, "val")
    (tmp_path / piece).mkdir()
    with pytest.raises(UserError, match=str(tmp_path / piece)):
        imagenet21k(tmp_path, "val")


class Malicious:
    """Its unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_damaged_or_hostile_tree_is_refused(tmp_path: Path) -> None:
    root = make_21k(tmp_path, {"class_list": []})
    with pytest.raises(UserError, match="no dictionary 'class_description'"):
        imagenet21k(root, "train")
    tree = root / "imagenet21k_miil_tree.pth"
    torch.save(TREE, tree)
    tree.write_bytes(tree.read_bytes()[:200])
    with pytest.raises(UserError, match=r"cannot read .*imagenet21k_miil_tree.pth"):
        imagenet21k(root, "train")
    torch.save({"class_description": Malicious(tmp_path / "touched")}, tree)
    with pytest.raises(UserError, match=r"imagenet21k_miil_tree.pth has no dictionary 'class_description'"):
        imagenet21k(root, "train")
    assert not (tmp_path / "touched").exists()


def test_a_tree_with_more_than_plain_containers_is_read(tmp_path: Path) -> None:
    more = {"class_list": np.array(["n00004475"]), "child_2_parent": defaultdict(list, a=["b"]), "seen": {"n00004475"}}
    root = make_21k(tmp_path, {**TREE, **more})
    with pytest.raises(pickle.UnpicklingError):
        torch.load(root / "imagenet21k_miil_tree.pth", weights_only=True)
    images = imagenet21k(root, "val")
    assert images.names == ["organism", "tench_fish", "dog"]
    assert "names: imagenet21k_miil_tree.pth" in images.source
    torch.save({"class_description": defaultdict(str, n01440764="tench")}, root / "imagenet21k_miil_tree.pth")
    with pytest.raises(UserError, match="no dictionary 'class_description'"):
        imagenet21k(root, "val")


def test_real_tiny_imagenet(shared: Path, tmp_path: Path) -> None:
    archive = shared / "data" / "tiny_imagenet.tar"
    folder = "tiny-imagenet-200"
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        wnids_file = tar.extractfile(f"{folder}/wnids.txt")
        assert wnids_file is not None
        wnids = wnids_file.read().decode().split()
        annotations = tar.extractfile(f"{folder}/val/val_annotations.txt")
        assert annotations is not None
        val_lines = annotations.read().decode().splitlines()
        wanted = [f"{folder}/wnids.txt", f"{folder}/words.txt"]
        for wnid in wnids:
            wanted.append(next(name for name in names if name.startswith(f"{folder}/train/{wnid}/images/")))
        labelled = val_lines[:50]
        wanted += [f"{folder}/val/images/{line.split()[0]}" for line in labelled]
        tar.extractall(tmp_path, [tar.getmember(name) for name in wanted], filter="data")
    root = tmp_path / folder
    (root / "val" / "val_annotations.txt").write_text("\n".join(labelled) + "\n")
    train, val = open_images(root, "train"), open_images(root, "val")
    assert len(wnids) == len(train.names) == len(train) == 200
    assert train.ids == sorted(wnids) == val.ids
    assert train.labels.tolist() == list(range(200))
    assert all(f"/{train.ids[label]}_" in key for label, key in zip(train.labels, train.keys, strict=True))
    assert all(name and "," not in name for name in train.names)
    assert train.names[train.ids.index("n01443537")] == "goldfish"
    assert len(val) == 50
    assert {train.read(index).size for index in (0, 99, 199)} == {(64, 64)}
    assert val.read(49).mode == "RGB"
    for split in ("val", "test"):
        named = open_images("tiny_imagenet", split, root=tmp_path)
        assert (named.source, named.keys) == ("tiny_imagenet:val", val.keys)
