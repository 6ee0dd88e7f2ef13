"""ImageNet-1K and the test sets made for it, in CoOp's layout and as their archives unpack, with and without names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prompt_core.data.readers.imagenet_1k import imagenet_classes
from prompt_core.data.sources import open_images
from prompt_core.errors import UserError

from ....support import benchmark_trees as trees

TENCH, GOLDFISH, CRANE, MACHINE = "n01440764", "n01443537", "n02012849", "n03126707"
NAMES = f"{TENCH} tench (fish)\n{GOLDFISH} gold_fish\n{CRANE} crane\n"


def wnid_folders(folder: Path, wnids: tuple[str, ...], count: int = 2) -> None:
    for wnid in wnids:
        for number in range(count):
            trees.save(folder / wnid / f"{wnid}_{number}.JPEG")
        trees.write(folder / wnid / "list.txt", "no photo")


@pytest.mark.parametrize("base", ["images", "."])
def test_imagenet_folders(tmp_path: Path, base: str) -> None:
    root = tmp_path / "imagenet"
    wnid_folders(root / base / "train", (CRANE, TENCH, GOLDFISH), 3)
    wnid_folders(root / base / "val", (TENCH, CRANE))
    trees.write(root / "classnames.txt", NAMES)
    train = open_images("imagenet", "train", root=tmp_path)
    assert train.ids == [TENCH, GOLDFISH, CRANE]
    assert train.names == ["tench (fish)", "gold_fish", "crane"]
    assert train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    test = open_images(f"imagenet:{root}", "test")
    assert test.names == train.names, "a class that val lacks keeps its place"
    assert test.labels.tolist() == [0, 0, 2, 2]
    assert test.keys[0] == f"val/{TENCH}/{TENCH}_0.JPEG"
    assert test.source == "imagenet:val (names: classnames.txt)"
    assert test.read(0).size == (8, 8)
    assert open_images(f"imagenet:{root}", "val").keys == test.keys


def test_names_without_the_file_are_by_wnid(tmp_path: Path) -> None:
    wnid_folders(tmp_path / "imagenet" / "val", (CRANE, MACHINE))
    images = open_images("imagenet", "val", root=tmp_path)
    assert images.names == ["crane bird", "construction crane"]
    assert "open_clip's ImageNet list by wnid" in images.source
    wnids, names, _ = imagenet_classes(tmp_path)
    assert len(wnids) == len(names) == 1_000
    assert wnids == sorted(wnids)
    assert dict(zip(wnids, names, strict=True))[TENCH] == "tench"


def test_a_flat_val_is_read_with_the_devkit(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="MATLAB files need scipy")
    from scipy.io import savemat

    for number in range(1, 5):
        trees.save(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    with pytest.raises(UserError, match=r"ground truth at .*ILSVRC2012_validation_ground_truth.txt"):
        open_images(f"imagenet:{tmp_path}", "val")
    devkit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    trees.write(devkit / "ILSVRC2012_validation_ground_truth.txt", "2\n1\n2\n3\n")
    synsets = np.zeros(4, dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)])
    for row, values in enumerate([(1, MACHINE, 0), (2, TENCH, 0), (3, CRANE, 0), (1001, "n00001740", 7)]):
        synsets[row] = values
    savemat(devkit / "meta.mat", {"synsets": synsets})
    images = open_images(f"imagenet:{tmp_path}", "val")
    assert images.ids == [TENCH, CRANE, MACHINE]
    assert images.labels.tolist() == [0, 2, 0, 1]
    assert "labels: the devkit" in images.source
    trees.write(devkit / "ILSVRC2012_validation_ground_truth.txt", "2\n1\n2\n")
    with pytest.raises(UserError, match="has 3 lines for 4 photos"):
        open_images(f"imagenet:{tmp_path}", "val")
    trees.write(devkit / "ILSVRC2012_validation_ground_truth.txt", "2\n1\n2\n1001\n")
    with pytest.raises(UserError, match="'1001' is not an ILSVRC2012_ID"):
        open_images(f"imagenet:{tmp_path}", "val")


def test_v2_folders_are_lines_of_the_names(tmp_path: Path) -> None:
    root = tmp_path / "imagenetv2"
    photos = root / "imagenetv2-matched-frequency-format-val"
    for number in ("0", "2"):
        trees.save(photos / number / "a.jpeg")
    # the ORDER of lines decides, not the order of wnids
    trees.write(root / "classnames.txt", f"{CRANE} crane\n{TENCH} tench\n{GOLDFISH} gold_fish\n")
    images = open_images("ImageNetV2", "test", root=tmp_path)
    assert images.ids == [CRANE, TENCH, GOLDFISH]
    assert images.labels.tolist() == [0, 2]
    assert images.keys == ["0/a.jpeg", "2/a.jpeg"]
    trees.save(photos / "3" / "a.jpeg")
    with pytest.raises(UserError, match=r"/3 is not a class folder of ImageNetV2: expected 0 to 2"):
        open_images("imagenetv2", "test", root=tmp_path)
    (root / "classnames.txt").unlink()
    images = open_images(f"imagenet_v2:{photos}", "test")
    assert len(images.names) == 1_000
    assert images.labels.tolist() == [0, 2, 3]
    for number in (10, 9):
        trees.save(photos / str(number) / "a.jpeg")
    assert open_images(f"imagenet_v2:{photos}", "test").labels.tolist() == [0, 2, 3, 9, 10], "sorted as numbers"


@pytest.mark.parametrize(
    ("name", "folder", "inner"),
    [
        ("ImageNetA", "imagenet-adversarial", "imagenet-a"),
        ("ImageNetR", "imagenet-rendition", "imagenet-r"),
        ("ImageNetSketch", "imagenet-sketch", "images"),
        ("imagenet-sketch", "imagenet-sketch", "sketch"),
    ],
)
def test_test_sets_score_over_their_own_classes(tmp_path: Path, name: str, folder: str, inner: str) -> None:
    photos = tmp_path / folder / inner
    wnid_folders(photos, (CRANE, TENCH))
    trees.write(photos / "README.txt", "no class")
    trees.write(tmp_path / "imagenet" / "classnames.txt", NAMES)
    images = open_images(name, "test", root=tmp_path)
    assert images.ids == [TENCH, CRANE]
    assert images.names == ["tench (fish)", "crane"], "names of ImageNet's folder next to it"
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert open_images(f"{name}:{photos}").keys == images.keys
    with pytest.raises(UserError, match=r"no split 'train' \(photos for testing only\)"):
        open_images(name, "train", root=tmp_path)
    trees.write(tmp_path / folder / "classnames.txt", f"{TENCH} tench\n")
    with pytest.raises(UserError, match=f"1 class folders .* have no name, the first is {CRANE}"):
        open_images(name, "test", root=tmp_path)
    trees.write(tmp_path / folder / "classnames.txt", f"{TENCH}\n")
    with pytest.raises(UserError, match="expected lines of the form 'wnid class name'"):
        open_images(name, "test", root=tmp_path)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"expected imagenet_a at {tmp_path}/imagenet-adversarial: no such folder"):
        open_images("imagenet_a", "test", root=tmp_path)
    (tmp_path / "imagenet-adversarial").mkdir()
    with pytest.raises(
        UserError, match=r"expected class folders at .*/imagenet-adversarial/imagenet-a: no such folder"
    ):
        open_images("imagenet_a", "test", root=tmp_path)
    (tmp_path / "imagenet-adversarial" / "imagenet-a" / TENCH).mkdir(parents=True)
    with pytest.raises(UserError, match="no photos in"):
        open_images("imagenet_a", "test", root=tmp_path)
    wnid_folders(tmp_path / "imagenet" / "images" / "val", (TENCH,))
    with pytest.raises(
        UserError, match=r"expected ImageNet's train photos at .*/imagenet/images/train: no such folder"
    ):
        open_images("imagenet", "train", root=tmp_path)
