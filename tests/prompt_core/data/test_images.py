"""ImageSet: reading, subsets, relabelling, fingerprints."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prompt_core.data.images import ImageSet, UnreadableImage
from prompt_core.errors import UserError


def make_set(root: Path, labels: tuple[int, ...] = (0, 1, 1, 2)) -> ImageSet:
    keys = [f"photo_{index}.png" for index in range(len(labels))]
    for index, key in enumerate(keys):
        Image.new("RGB", (8, 6), (40 * index, 10, 200)).save(root / key)
    return ImageSet(["cat", "dog", "eel"], ["c0", "c1", "c2"], np.array(labels), keys, "test", root)


def test_reads_rgb_pixels(tmp_path: Path) -> None:
    images = make_set(tmp_path)
    image = images.read(2)
    assert (image.mode, image.size, image.getpixel((3, 3))) == ("RGB", (8, 6), (80, 10, 200))
    assert len(images) == 4


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = ".jpg" if mode == "CMYK" else ".png"
    Image.new(mode, (8, 8)).save(tmp_path / f"x{suffix}")
    images = ImageSet(["a"], ["a"], np.array([0]), [f"x{suffix}"], "test", tmp_path)
    assert images.read(0).mode == "RGB"


def test_unreadable_photos_raise_with_their_key(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    Image.fromarray(noise).save(tmp_path / "cut.png")
    for name in ("cut.jpg", "cut.png"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "empty.jpg").touch()
    keys = ["cut.jpg", "cut.png", "text.jpg", "empty.jpg", "absent.jpg"]
    images = ImageSet(["a"], ["a"], np.zeros(5), keys, "test", tmp_path)
    for index, key in enumerate(keys):
        with pytest.raises(UnreadableImage, match=key) as caught:
            images.read(index)
        assert caught.value.key == key
        assert "\n" not in str(caught.value)


def test_unreadable_image_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("a/b.jpg", "truncated")))
    assert (error.key, str(error)) == ("a/b.jpg", str(UnreadableImage("a/b.jpg", "truncated")))


def test_subset_keeps_order_and_classes(tmp_path: Path) -> None:
    subset = make_set(tmp_path).subset([3, 0])
    assert subset.keys == ["photo_3.png", "photo_0.png"]
    assert subset.labels.tolist() == [2, 0]
    assert subset.names == ["cat", "dog", "eel"]
    assert subset.read(0).getpixel((0, 0)) == (120, 10, 200)


def test_select_classes_relabels_in_the_given_order(tmp_path: Path) -> None:
    chosen = make_set(tmp_path).select_classes([2, 1])
    assert chosen.names == ["eel", "dog"]
    assert chosen.ids == ["c2", "c1"]
    assert chosen.keys == ["photo_1.png", "photo_2.png", "photo_3.png"]
    assert chosen.labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize(("classes", "message"), [([3], "class index 3 of 3"), ([1, 1], "given twice")])
def test_select_classes_refuses_bad_classes(tmp_path: Path, classes: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_set(tmp_path).select_classes(classes)


def test_fingerprint_follows_every_ingredient_but_the_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    images, moved = make_set(tmp_path / "a"), make_set(tmp_path / "b")
    assert images.fingerprint() == moved.fingerprint()
    renamed = ImageSet(["cat", "dog", "elk"], moved.ids, moved.labels, moved.keys, "test", moved.root)
    relabelled = ImageSet(moved.names, moved.ids, np.array([0, 1, 2, 2]), moved.keys, "test", moved.root)
    prints = {
        images.fingerprint(),
        renamed.fingerprint(),
        relabelled.fingerprint(),
        images.subset([1, 0, 2, 3]).fingerprint(),
    }
    Image.new("RGB", (80, 60), (1, 2, 3)).save(tmp_path / "b" / "photo_1.png")
    prints.add(moved.fingerprint())
    assert len(prints) == 5


def test_fingerprint_is_not_fooled_by_moved_boundaries(tmp_path: Path) -> None:
    def of(names: list[str]) -> str:
        return ImageSet(names, ["x", "y"], np.zeros(0), [], "test", tmp_path).fingerprint()

    assert of(["ab", "c"]) != of(["a", "bc"])


def test_labels_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        make_set(tmp_path).labels[0] = 2


@pytest.mark.parametrize(
    ("names", "ids", "labels", "keys", "message"),
    [
        (["a"], ["a"], [0, 0], ["k"], "2 labels for 1 images"),
        (["a"], ["a"], [1], ["k"], "labels 1..1 for 1 classes"),
        (["a"], ["a"], [-1], ["k"], "labels -1..-1"),
        (["a", "b"], ["a"], [0], ["k"], "2 class names for 1 class ids"),
        (["a", "b"], ["x", "x"], [0], ["k"], "class ids repeat: 'x'"),
    ],
)
def test_inconsistent_sets_are_refused(
    tmp_path: Path, names: list[str], ids: list[str], labels: list[int], keys: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ImageSet(names, ids, np.array(labels), keys, "test", tmp_path)
