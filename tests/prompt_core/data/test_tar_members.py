"""Archives from outside: names, kinds and sizes of members, and patterns that stand for too many."""

from __future__ import annotations

import gzip
import io
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings

from prompt_core.data.open_photo import open_photo
from prompt_core.data.readers.webdataset import expand_shards, webdataset_shards
from prompt_core.data.tar_members import tar_members
from prompt_core.errors import UserError

from ...support import hostile


def packed(path: Path, *members: tuple[str, bytes, bytes]) -> Path:
    """An archive of (name, type, content)."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def with_size(path: Path, size: bytes) -> Path:
    """The archive with another size in its first header, and the checksum that goes with it."""
    content = bytearray(path.read_bytes())
    content[124:136] = size
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png", "C:\\a.png"])
def test_names_that_lead_out(name: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", (name, tarfile.REGTYPE, b"x"))
    with pytest.raises(UserError, match=r"archive .*a.tar: .* leads out of the data set's folder"):
        list(tar_members(path))


def test_only_plain_files_are_members(tmp_path: Path) -> None:
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
    odd = [(f"{number}.png", kind, b"") for number, kind in enumerate(kinds)]
    path = packed(tmp_path / "a.tar", *odd, ("real.png", tarfile.REGTYPE, b"x"))
    assert [member.name for member, _ in tar_members(path)] == ["real.png"]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (b"77777777777\0", "is truncated inside a.png; copy it again"),
        (b"\x80" + b"\0" * 4 + b"\x7f" + b"\xff" * 6, "is truncated inside a.png; copy it again"),
        (b"\xff" * 11 + b"\x00", "a member claims -256 bytes"),  # a reader that believes it goes back for ever
    ],
)
def test_sizes_that_lie(size: bytes, message: str, tmp_path: Path) -> None:
    path = with_size(packed(tmp_path / "a.tar", ("a.png", tarfile.REGTYPE, b"x")), size)
    with pytest.raises(UserError, match=message):
        list(tar_members(path))


def test_a_name_of_a_gigabyte(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", ("a" * 300, tarfile.REGTYPE, b"x"))
    with_size(path, b"10000000000\0")
    with pytest.raises(UserError, match=r"the name of a member claims 1,073,741,824 bytes"):
        list(tar_members(path))


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("s-{0..999999999}.tar", "1,000,000,000"),
        ("s-{000..999}{000..999}{000..999}.tar", "1,000,000,000"),
        ("{a,b}" * 40 + ".tar", "1,099,511,627,776"),
    ],
)
def test_patterns_of_too_many_shards(pattern: str, count: str) -> None:
    start = time.process_time()
    with pytest.raises(UserError, match=f"stands for {count} shards; at most 1,000,000 are expected"):
        expand_shards(pattern)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("pattern", ["{0.." + "9" * 5000 + "}.tar", "a\0.tar", "{}.tar", "{", "[", "**.tar"])
def test_odd_patterns(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        expand_shards(pattern)


def test_patterns_are_written_out_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"{word}-{number:02d}.tar" for word in ("b", "a") for number in (9, 10, 11)]
    for name in names:
        Path(name).touch()
    assert [path.name for path in expand_shards("{b,a}-{09..11}.tar")] == names
    assert [path.name for path in expand_shards("{b,a}-{11..10}.tar")][1:3] == ["b-10.tar", "a-11.tar"]


def test_labels_are_short(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\n")
    photo = hostile.photo_bytes("RGB", "PNG")
    packed(tmp_path / "a.tar", ("0.png", tarfile.REGTYPE, photo), ("0.cls", tarfile.REGTYPE, b"9" * 5000))
    with pytest.raises(UserError, match=r"photo 0\.png has label '9999"):
        webdataset_shards(tmp_path / "a.tar")
    packed(tmp_path / "a.tar", ("0.png", tarfile.REGTYPE, photo), ("0.json", tarfile.REGTYPE, b" " * (1 << 20) + b"0"))
    with pytest.raises(UserError, match=r"label 0\.json has 1,048,577 bytes; at most 1,048,576"):
        webdataset_shards(tmp_path / "a.tar")


@given(content=hostile.tar_files())
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_shards_or_a_line(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "shards"
    folder.mkdir(exist_ok=True)
    (folder / "classes.txt").write_text("cat\ndog\n")
    (folder / "a.tar").write_bytes(content)
    images = hostile.success_or_one_line(lambda: webdataset_shards(folder / "a.tar"))
    for index in range(len(images) if images is not None else 0):
        hostile.success_or_one_line(lambda index=index: images.read(index))  # type: ignore[misc]


def test_a_photo_that_is_compressed_once_more_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tar_images = pytest.importorskip("pomp_engine.data.tar_images")
    photo = hostile.photo_bytes("RGB", "PNG")
    assert tar_images.decode_image(gzip.compress(photo), "RGB").shape == (6, 8, 3)
    assert open_photo(photo).size == (8, 6)
    monkeypatch.setattr(tar_images, "PHOTO_BYTES", 1 << 20)
    for content, message in (
        (gzip.compress(b"\0" * (1 << 22)), "unpacks to more than 1,048,576 bytes"),
        (gzip.compress(photo)[:-9], "a compressed photo that is damaged"),
    ):
        with pytest.raises(UserError, match=message):
            tar_images.decode_image(content, "RGB")
