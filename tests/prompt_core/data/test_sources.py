"""Folders, tables, CoOp splits and Aircraft lists in their exact layouts, whole and with pieces missing."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from PIL import Image

from prompt_core.data.readers.coop import coop_split, fgvc_aircraft
from prompt_core.data.readers.folder import folder_per_class
from prompt_core.data.readers.table import photo_list
from prompt_core.data.sources import open_images
from prompt_core.errors import UserError

from ...support import hostile


def save(path: Path, colour: tuple[int, int, int] = (10, 20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path, format="PNG" if path.suffix.lower() == ".png" else "JPEG")


def test_folder_per_class_sorts_and_leaves_odd_files(tmp_path: Path) -> None:
    save(tmp_path / "dog" / "b.JPEG")
    save(tmp_path / "dog" / "a.png")
    save(tmp_path / "dog" / "deeper" / "c.jpg")
    save(tmp_path / "Cat_fish" / "x.jpg")
    save(tmp_path / "dog" / "._a.png")
    save(tmp_path / ".hidden" / "a.png")
    (tmp_path / "README.txt").write_text("text")
    (tmp_path / "dog" / "notes.txt").write_text("text")
    (tmp_path / "dog" / "broken.jpg").symlink_to(tmp_path / "absent.jpg")
    (tmp_path / "dog" / "circle").symlink_to(tmp_path)
    (tmp_path / "empty").mkdir()
    images = folder_per_class(tmp_path)
    assert images.names == images.ids == ["Cat_fish", "dog", "empty"]
    assert images.keys == ["Cat_fish/x.jpg", "dog/a.png", "dog/b.JPEG", "dog/deeper/c.jpg"]
    assert images.labels.tolist() == [0, 1, 1, 1]
    assert images.read(1).getpixel((0, 0)) == (10, 20, 30)


def test_linked_class_folders_and_photos_count(tmp_path: Path) -> None:
    save(tmp_path / "store" / "real.jpg")
    (tmp_path / "data" / "dog").mkdir(parents=True)
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "dog" / "link.jpg").symlink_to(tmp_path / "store" / "real.jpg")
    assert folder_per_class(tmp_path / "data").keys == ["cat/real.jpg", "dog/link.jpg"]


def test_wnid_folders_take_wordnet_names(tmp_path: Path) -> None:
    save(tmp_path / "n01440764" / "a.jpg")
    save(tmp_path / "n99999999" / "a.jpg")
    images = folder_per_class(tmp_path)
    assert images.ids == ["n01440764", "n99999999"]
    assert images.names == ["tench", "n99999999"]
    assert "WordNet" in images.source


def test_classnames_file_names_wnid_folders(tmp_path: Path) -> None:
    save(tmp_path / "images" / "val" / "n01440764" / "a.jpg")
    save(tmp_path / "images" / "train" / "n01440764" / "a.jpg")
    save(tmp_path / "images" / "train" / "n01443537" / "a.jpg")
    (tmp_path / "classnames.txt").write_text("n01443537 gold fish\nn01440764 tench (fish)\n")
    images = open_images(f"folder:{tmp_path}", "val")
    assert images.names == ["tench (fish)", "gold fish"], "the class that val lacks keeps its place"
    assert images.labels.tolist() == [0]
    (tmp_path / "classnames.txt").write_text("n01440764 tench\n")
    with pytest.raises(UserError, match=r"classnames.txt has no line for class folder .*n01443537"):
        open_images(f"folder:{tmp_path}", "train")


def test_numbered_folders_sort_as_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        save(tmp_path / "v2" / str(number) / "a.jpg")
    assert folder_per_class(tmp_path / "v2").ids == ["0", "2", "10"]
    (tmp_path / "classnames.txt").write_text("".join(f"n{index:08d} name {index}\n" for index in range(11)))
    assert folder_per_class(tmp_path / "v2").names == ["name 0", "name 2", "name 10"]
    (tmp_path / "classnames.txt").write_text("n00000000 only one\n")
    with pytest.raises(UserError, match="has 1 lines, none for class folder"):
        folder_per_class(tmp_path / "v2")


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/absent"):
        folder_per_class(tmp_path / "absent")
    with pytest.raises(UserError, match="no class folders"):
        folder_per_class(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(UserError, match="no photos in the 1 class folders"):
        folder_per_class(tmp_path)
    save(tmp_path / "dog" / "a.jpg")
    with pytest.raises(UserError, match="dog is not one of the 1 expected classes"):
        folder_per_class(tmp_path, classes=["cat"])


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    save(tmp_path / "train" / "dog" / "a.jpg")
    with pytest.raises(UserError, match=f"'test' at {tmp_path}/test"):
        open_images(tmp_path, "test")
    assert open_images(tmp_path, "train").names == ["dog"]


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_photo_list_with_wnids_and_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        save(tmp_path / "images" / f"{name}.jpg")
    rows = [
        {"file": "images/b.jpg", "wnid": "n01443537", "class_name": "goldfish, Carassius auratus"},
        {"file": "images/a.jpg", "wnid": "n01440764", "class_name": "tench, Tinca tinca"},
        {"file": "images/c.jpg", "wnid": "n01443537", "class_name": "goldfish, Carassius auratus"},
    ]
    write_table(tmp_path / "labels.csv", rows)
    images = open_images(f"csv:{tmp_path}")
    assert images.names == ["tench", "goldfish"]
    assert images.ids == ["n01440764", "n01443537"]
    assert images.labels.tolist() == [1, 0, 1]
    assert images.keys == ["images/b.jpg", "images/a.jpg", "images/c.jpg"]
    assert open_images(tmp_path / "labels.csv").fingerprint() == images.fingerprint()
    wnids_only = [{"file": row["file"], "wnid": row["wnid"]} for row in rows]
    write_table(tmp_path / "wnids.csv", wnids_only)
    assert photo_list(tmp_path, "wnids.csv").names == ["tench", "goldfish"]


def test_photo_list_keeps_plain_names_whole(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    write_table(tmp_path / "t.csv", [{"path": "a.jpg", "city": "Washington, D.C."}])
    images = photo_list(tmp_path, "t.csv", file_column="path", name_column="city")
    assert images.names == images.ids == ["Washington, D.C."]


@pytest.mark.parametrize("kind", ["absolute", "above", "drive", "nul", "link"])
def test_a_photo_list_stays_inside(tmp_path: Path, kind: str) -> None:
    save(tmp_path / "store" / "a.png")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "store" / "a.png")
    store = str(tmp_path / "store" / "a.png")
    path = {"absolute": store, "above": "../store/a.png", "drive": "C:\\a.png", "nul": "a\0.png", "link": "link.png"}[
        kind
    ]
    write_table(folder / "labels.csv", [{"file": path, "class_name": "x"}])
    with pytest.raises(UserError, match=r"labels.csv.* leads out of the data set's folder"):
        photo_list(folder)


def test_a_listed_photo_may_be_a_link_inside_or_lie_in_a_linked_folder(tmp_path: Path) -> None:
    save(tmp_path / "disk" / "a.png")
    save(tmp_path / "set" / "b.png")
    (tmp_path / "set" / "photos").symlink_to(tmp_path / "disk")
    (tmp_path / "set" / "c.png").symlink_to("b.png")
    files = ["photos/a.png", "b.png", "c.png"]
    write_table(tmp_path / "set" / "labels.csv", [{"file": file, "class_name": "x"} for file in files])
    assert photo_list(tmp_path / "set").keys == files


@given(content=hostile.csv_files(b"file,class_name\na.jpg,cat\nb/c.jpg,dog\n"))
@settings(max_examples=40, deadline=None)
def test_any_table_is_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "table"
    (folder / "b").mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "b/c.jpg"):
        (folder / name).touch()
    (folder / "labels.csv").write_bytes(content)
    images = hostile.success_or_one_line(lambda: photo_list(folder))
    if images is not None:
        assert set(images.keys) <= {"a.jpg", "b/c.jpg", "b//c.jpg", "./a.jpg"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,class_name\n", "lists no photos"),
        ("path,class_name\na.jpg,x\n", "no column 'file'"),
        ("file,size\na.jpg,3\n", "needs a column of wnids or class names"),
        ("file,class_name\na.jpg,\n", "row 2: 'file' or 'class_name' is empty"),
        ("file,class_name\na.jpg,x\ngone.jpg,x\n", "1 of 2 photos .* are missing, the first is .*gone.jpg"),
        ("file,wnid,class_name\na.jpg,n1,x\na.jpg,n1,y\n", "row 3: n1 is named 'y' and 'x'"),
        ("", "no column 'file'"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    save(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        photo_list(tmp_path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/labels.csv"):
        photo_list(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"file,class_name\n\xff\xfe,x\n")
    with pytest.raises(UserError, match=r"labels.csv is not UTF-8 text"):
        photo_list(tmp_path)


COOP = {
    "train": [["forest/a.jpg", 1, "Forest"], ["river/b.jpg", 0, "River"]],
    "val": [["forest/c.jpg", 1, "Forest"]],
    "test": [["sea/d.jpg", 2, "Sea or Lake"], ["river/e.jpg", 0, "River"]],
}


def make_coop(root: Path, images: str, document: object = COOP) -> Path:
    for rows in COOP.values():
        for key, *_ in rows:
            save(root / images / str(key))
    (root / "split_zhou_Demo.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize("folder", ["", "images", "caltech-101/101_ObjectCategories"])
def test_coop_split_finds_its_images_folder(tmp_path: Path, folder: str) -> None:
    make_coop(tmp_path, folder)
    for images in (
        coop_split(tmp_path, "split_zhou_Demo.json", folder, "test"),
        open_images(f"coop:{tmp_path}#split_zhou_Demo.json", "test"),
        open_images(f"coop:{tmp_path}", "test"),
        open_images(tmp_path, "test"),
        open_images(tmp_path / "split_zhou_Demo.json", "test"),
    ):
        assert images.names == ["River", "Forest", "Sea or Lake"]
        assert images.keys == ["sea/d.jpg", "river/e.jpg"]
        assert images.labels.tolist() == [2, 0]
        assert images.root == tmp_path / folder
        assert images.read(0).size == (8, 8)


def test_base_and_new_halves_are_relabelled(tmp_path: Path) -> None:
    images = open_images(make_coop(tmp_path, "images"), "test")
    base, new = images.select_classes(range(2)), images.select_classes(range(2, 3))
    assert (base.names, base.labels.tolist()) == (["River", "Forest"], [0])
    assert (new.names, new.labels.tolist()) == (["Sea or Lake"], [0])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "not a CoOp split file"),
        ({"train": [], "val": []}, "not a CoOp split file"),
        ({**COOP, "val": [["x.jpg", "1", "Forest"]]}, r"val\[0\]: expected \[path, label, class name\]"),
        ({**COOP, "val": [["x.jpg", True, "Forest"]]}, r"val\[0\]: expected"),
        ({**COOP, "val": [["x.jpg", 1, "Woods"]]}, r"val\[0\]: label 1 is 'Woods' here and 'Forest' before"),
        ({**COOP, "val": [["x.jpg", 4, "Woods"]]}, "label 3 of 0..4 never occurs"),
        ({**COOP, "test": []}, "split 'test' lists no photos"),
        ({**COOP, "test": [*COOP["test"], ["gone.jpg", 0, "River"]]}, "1 of 3 photos .* the first is .*gone.jpg"),
        ({**COOP, "test": [["gone.jpg", 0, "River"]]}, "lists gone.jpg, which is neither in"),
    ],
)
def test_bad_split_files_are_refused(tmp_path: Path, document: object, message: str) -> None:
    make_coop(tmp_path, "images", document)
    with pytest.raises(UserError, match=message):
        coop_split(tmp_path, split="test")


def test_missing_or_ambiguous_split_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/split_zhou_X.json"):
        coop_split(tmp_path, "split_zhou_X.json")
    with pytest.raises(UserError, match="found none"):
        coop_split(tmp_path)
    make_coop(tmp_path, "images")
    with pytest.raises(UserError, match=r"no split 'tset'.*nearest: 'test'"):
        coop_split(tmp_path, split="tset")
    (tmp_path / "split_zhou_Demo.json").write_text('{"train": [')
    with pytest.raises(UserError, match="not valid JSON"):
        coop_split(tmp_path)
    (tmp_path / "split_zhou_Other.json").write_text("{}")
    with pytest.raises(UserError, match=r"found split_zhou_Demo.json, split_zhou_Other.json"):
        open_images(f"coop:{tmp_path}")
    with pytest.raises(UserError, match="absent: no such folder"):
        open_images(f"coop:{tmp_path}/absent#x.json")


def test_aircraft_lists(tmp_path: Path) -> None:
    (tmp_path / "variants.txt").write_text("707-320\nBeechcraft 1900\n")
    (tmp_path / "images_variant_test.txt").write_text("0000002 Beechcraft 1900\n0000001 707-320\n")
    with pytest.raises(UserError, match=r"2 of 2 photos .* missing"):
        fgvc_aircraft(tmp_path, "test")
    for number in (1, 2):
        save(tmp_path / "images" / f"000000{number}.jpg")
    images = open_images(tmp_path, "test")
    assert images.names == ["707-320", "Beechcraft 1900"]
    assert images.labels.tolist() == [1, 0]
    assert images.keys == ["images/0000002.jpg", "images/0000001.jpg"]
    with pytest.raises(UserError, match=r"images_variant_val.txt"):
        open_images(f"aircraft:{tmp_path}", "val")
    (tmp_path / "images_variant_test.txt").write_text("0000002 Beechcraft 1901\n")
    with pytest.raises(UserError, match=r"line 1: 'Beechcraft 1901'.*nearest: 'Beechcraft 1900'"):
        fgvc_aircraft(tmp_path, "test")


def test_unknown_sources_get_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nearest: 'webdataset'"):
        open_images("webdatset:/data/x.tar")
    with pytest.raises(UserError, match="no image folder or file at /absent/folder"):
        open_images("/absent/folder")
    with pytest.raises(UserError, match="names no path: expected coop:PATH"):
        open_images("coop:")
    with pytest.raises(UserError, match="no known image layout"):
        open_images(tmp_path)
    (tmp_path / "x.bin").touch()
    with pytest.raises(UserError, match="no known image layout"):
        open_images(tmp_path / "x.bin")
    with pytest.raises(UserError, match="no such folder"):
        open_images(f"folder:{tmp_path}/absent")


def test_real_imagenet_samples(shared: Path, tmp_path: Path) -> None:
    archive = shared / "data" / "imagenet_samples.tar"
    with tarfile.open(archive) as tar:
        members = [member for member in tar if "/images/" in member.name][:40]
        table = tar.extractfile("imagenet_samples/labels.csv")
        assert table is not None
        rows = list(csv.DictReader(table.read().decode("utf-8").splitlines()))
        tar.extractall(tmp_path, members, filter="data")
    root = tmp_path / "imagenet_samples"
    assert len(rows) == 1000
    present = [row for row in rows if (root / row["file"]).exists()]
    write_table(root / "labels.csv", present)
    images = open_images(root)
    assert len(images) == len(images.names) == 40
    for index in range(40):
        row = present[index]
        assert images.ids[images.labels[index]] == row["wnid"]
        assert row["class_name"].startswith(images.names[images.labels[index]])
        assert images.read(index).size == (int(row["width"]), int(row["height"]))
    # with wnids alone, WordNet gives the names that the table has
    by_wnid = photo_list(root, name_column=None)
    assert by_wnid.names == images.names
    write_table(root / "labels.csv", rows)
    with pytest.raises(UserError, match="960 of 1000 photos"):
        open_images(root)


def test_a_function_that_fails_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"os:system of the data root and 'val' failed \(TypeError: .*; POMP_DEBUG=1 shows"
    ):
        open_images("os:system")
