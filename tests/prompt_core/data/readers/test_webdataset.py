"""WebDataset shards: indexed once, read at random, refused when damaged."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prompt_core.data.images import UnreadableImage
from prompt_core.data.readers.webdataset import expand_shards, webdataset_shards
from prompt_core.data.sources import open_images
from prompt_core.errors import UserError


def picture(colour: int, extension: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(stream, {"png": "PNG", "webp": "WEBP"}.get(extension, "JPEG"))
    return stream.getvalue()


def write_shard(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def make_shards(root: Path) -> str:
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(3):
        members: dict[str, bytes] = {"./notes.txt": b"text"}
        for number in range(4):
            members[f"{shard}/sample{number}.png"] = picture(50 * shard + 10 * number)
            members[f"{shard}/sample{number}.cls"] = str((shard + number) % 2).encode()
        write_shard(root / f"shard-{shard:04d}.tar", members)
    (root / "classes.txt").write_text("cat\ndog\n")
    return f"{root}/shard-{{0000..0002}}.tar"


def test_random_access_in_any_order(tmp_path: Path) -> None:
    images = open_images(f"webdataset:{make_shards(tmp_path)}")
    assert images.names == ["cat", "dog"]
    assert len(images) == 12
    assert images.keys[5] == "shard-0001.tar/1/sample1.png"
    assert images.labels.tolist() == [(shard + number) % 2 for shard in range(3) for number in range(4)]
    for index in np.random.default_rng(0).permutation(12):
        shard, number = divmod(int(index), 4)
        assert images.read(int(index)).getpixel((4, 4)) == (50 * shard + 10 * number, 0, 0)
    subset = images.subset([11, 2]).select_classes([1])
    assert subset.keys == ["shard-0002.tar/2/sample3.png"]
    assert subset.read(0).getpixel((0, 0)) == (130, 0, 0)


def test_braces_globs_and_folders_mean_the_same(tmp_path: Path) -> None:
    pattern = make_shards(tmp_path)
    prints = {
        open_images(source).fingerprint()
        for source in (pattern, f"{tmp_path}/shard-*.tar", f"{tmp_path}/shard-{{0000,0001,0002}}.tar", str(tmp_path))
    }
    assert len(prints) == 1
    assert open_images(f"{tmp_path}/shard-0001.tar").keys[0] == "shard-0001.tar/1/sample0.png"


def test_expansion_keeps_order_and_zeros(tmp_path: Path) -> None:
    for name in ("a-08.tar", "a-09.tar", "a-10.tar", "b-9.tar", "b-10.tar"):
        (tmp_path / name).touch()

    def names(pattern: str) -> list[str]:
        return [path.name for path in expand_shards(f"{tmp_path}/{pattern}")]

    assert names("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert names("b-{10..9}.tar") == ["b-10.tar", "b-9.tar"]
    assert names("{a,b}-{9..10}.tar".replace("{a,b}", "{b}")) == ["b-9.tar", "b-10.tar"]
    assert names("{a-0,b-}9.tar") == ["a-09.tar", "b-9.tar"]
    assert names("{a-10.tar,a-*.tar}") == ["a-10.tar", "a-08.tar", "a-09.tar"]
    with pytest.raises(UserError, match=r"a-11.tar: no such file"):
        names("a-{08..11}.tar")
    with pytest.raises(UserError, match=r"c-\*.tar: no such file"):
        names("c-*.tar")


def test_labels_from_json_and_all_extensions(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "s.tar",
        {
            "a.JPG": picture(1, "jpg"),
            "a.json": json.dumps({"label": 1, "caption": "x"}).encode(),
            "b.webp": picture(2, "webp"),
            "b.json": json.dumps({"label": "cat"}).encode(),
            "c.cls": b"1\n",
            "c.jpeg": picture(3, "jpg"),
            "c.json": json.dumps({"label": 0}).encode(),
            "d.v1.png": picture(4),
            "e.cls": b"0",
        },
    )
    (tmp_path / "classes.json").write_text(json.dumps({"1": "dog", "0": "cat"}))
    images = webdataset_shards(tmp_path / "s.tar")
    assert images.names == ["cat", "dog"]
    assert images.keys == ["s.tar/a.JPG", "s.tar/b.webp", "s.tar/c.jpeg"]
    assert images.labels.tolist() == [1, 0, 1], ".cls goes before .json"
    assert [images.read(index).size for index in range(3)] == [(8, 8)] * 3


def test_links_in_shards_are_left_out(tmp_path: Path) -> None:
    make_shards(tmp_path)
    with tarfile.open(tmp_path / "shard-0000.tar", "a") as tar:
        link = tarfile.TarInfo("0/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    assert len(webdataset_shards(tmp_path / "shard-0000.tar")) == 4


def test_a_corrupt_member_is_unreadable(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", {"a.png": picture(1)[:40], "a.cls": b"0"})
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(UnreadableImage, match=r"s.tar/a.png"):
        webdataset_shards(tmp_path / "s.tar").read(0)


@pytest.mark.parametrize(
    ("members", "classes", "message"),
    [
        ({"a.png": b"x"}, "cat\n", "photo a.png has label None"),
        ({"a.png": b"x", "a.cls": b"1"}, "cat\n", "label 1; expected 0..0"),
        ({"a.png": b"x", "a.cls": b"-1"}, "cat\n", "label '-1'"),
        ({"a.png": b"x", "a.json": b'{"label": "cow"}'}, "cat\n", "label 'cow'"),
        ({"a.png": b"x", "a.json": b'{"label": true}'}, "cat\n", "label True"),
        ({"a.png": b"x", "a.json": b"{"}, "cat\n", "label None"),
        ({"a.cls": b"0"}, "cat\n", "no photos"),
        ({"a.png": b"x", "a.cls": b"0"}, None, "expected class names at .*classes.txt"),
        ({"a.png": b"x", "a.cls": b"0"}, "\n", "no class names"),
    ],
)
def test_bad_shards_are_refused(tmp_path: Path, members: dict[str, bytes], classes: str | None, message: str) -> None:
    write_shard(tmp_path / "s.tar", members)
    if classes is not None:
        (tmp_path / "classes.txt").write_text(classes)
    with pytest.raises(UserError, match=message):
        webdataset_shards(tmp_path / "s.tar")


@pytest.mark.parametrize("document", ['{"0": "cat", "2": "dog"}', "[1, 2]", '"cat"'])
def test_bad_class_documents_are_refused(tmp_path: Path, document: str) -> None:
    write_shard(tmp_path / "s.tar", {"a.png": b"x", "a.cls": b"0"})
    (tmp_path / "classes.json").write_text(document)
    with pytest.raises(UserError, match=r"classes.json"):
        webdataset_shards(tmp_path / "s.tar")


def test_truncated_and_compressed_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\n")
    content = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    write_shard(tmp_path / "whole.tar", {"a.cls": b"0", "a.png": content})
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:4000])
    with pytest.raises(UserError, match=r"cut.tar"):
        webdataset_shards(tmp_path / "cut.tar")
    write_shard(tmp_path / "zip.tar", {"a.cls": b"0", "a.png": content}, "w:gz")
    with pytest.raises(UserError, match=r"zip.tar.*expected an uncompressed tar"):
        webdataset_shards(tmp_path / "zip.tar")


def test_fingerprint_follows_member_sizes(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\n")
    write_shard(tmp_path / "s.tar", {"a.png": picture(1), "a.cls": b"0"})
    before = webdataset_shards(tmp_path / "s.tar").fingerprint()
    write_shard(tmp_path / "s.tar", {"a.png": picture(1) + b"\0", "a.cls": b"0"})
    assert webdataset_shards(tmp_path / "s.tar").fingerprint() != before
