"""Published files to their places: trusted at first use, unpacked inside their folder, converted, never replaced."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prompt_core.errors import UserError
from prompt_core.fetch import published_files as listed
from prompt_core.fetch.advice import size_text
from prompt_core.fetch.bring import bring
from prompt_core.fetch.convert_backbone import convert_backbone
from prompt_core.fetch.fetched_record import record_path
from prompt_core.fetch.places import Places
from prompt_core.fetch.published_files import PublishedFile
from prompt_core.fetch.unpack import unpack_zip

from ...support.web_server import WebServer, content, status

DATA = bytes(range(256)) * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


def entry(address: str | None, name: str = "weights.pth", **more: Any) -> PublishedFile:
    return PublishedFile(
        **{"name": name, "path": f"models/{name}", "what": "x", "source": "x", "address": address} | more
    )


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "data", tmp_path / "models")


def archive(files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            change(info)
            opened.writestr(info, data)
    return stream.getvalue()


def test_a_known_checksum_is_compared_and_needs_no_record(web: WebServer, places: Places) -> None:
    file = entry(web.serve("/f", content(DATA)), sha256=SHA256, size=len(DATA))
    assert bring(file, places).what == "fetched, 25.6 kB, as published"
    assert [path.name for path in places.models.iterdir()] == ["weights.pth"]
    (places.models / "weights.pth.part.json").write_text("{}")  # as after a kill in its last step
    assert bring(file, places).what == "there already, as published"
    assert [path.name for path in places.models.iterdir()] == ["weights.pth"]
    assert len(web.requests) == 1


def test_an_unknown_checksum_is_trusted_once(web: WebServer, places: Places) -> None:
    file = entry(web.serve("/f", content(DATA)))
    path = places.models / "weights.pth"
    assert "nobody publishes its sha256, it is written down in weights.pth.fetched.json" in bring(file, places).what
    record = json.loads(record_path(path).read_text())
    assert (record["address"], record["size"], record["sha256"]) == (file.address, len(DATA), SHA256)
    assert bring(file, places).what == "there already, unchanged since it was fetched"
    path.write_bytes(DATA[:-1])
    with pytest.raises(UserError, match=rf"which was {SHA256} when it was fetched .*; move it away to fetch it again"):
        bring(file, places)
    assert path.read_bytes() == DATA[:-1], "what is there is not replaced"
    path.unlink()
    assert bring(file, places).what == "fetched, 25.6 kB, the same as before"


def test_another_file_at_the_address_than_before_is_refused(web: WebServer, places: Places) -> None:
    file = entry(web.serve("/f", content(DATA)))
    path = bring(file, places).paths[0]
    path.unlink()
    web.serve("/f", content(DATA[::-1], etag='"v2"'))
    with pytest.raises(UserError, match=rf"{SHA256} is expected; .*to take another file than before, delete .*json"):
        bring(file, places)
    assert not path.exists()
    record_path(path).unlink()
    assert bring(file, places).paths == (path,)
    record_path(path).write_text("{}")
    with pytest.raises(UserError, match="holds no sha256; delete it"):
        bring(file, places)


def test_a_file_that_a_person_put_there_is_taken_and_written_down(places: Places) -> None:
    path = places.models / "weights.pth"
    path.parent.mkdir()
    path.write_bytes(DATA)
    file = entry(None, page="https://example.org/page")
    assert bring(file, places).what == "there already; its sha256 is written down in weights.pth.fetched.json"
    assert bring(file, places).what == "there already, unchanged since it was fetched"
    record_path(path).unlink()
    with pytest.raises(UserError, match="has 25,600 bytes, the published file 7; move it away"):
        bring(entry(None, size=7), places)


def test_what_is_built_here_is_not_replaced(places: Places) -> None:
    path = places.models / "weights.pth"
    path.parent.mkdir()
    path.write_bytes(DATA)
    with pytest.raises(UserError, match="which is published as 00; it may have been built here; move it away"):
        bring(entry("http://127.0.0.1:9/f", sha256="00", build=("python tools/demo.py",)), places)


def test_a_web_page_is_answered_with_what_a_person_does(web: WebServer, places: Places) -> None:
    """Google Drive asks a question in the place of a large file."""
    address = web.serve("/download", status(200, Content_Type="text/html; charset=utf-8"))
    file = entry(address, page="https://drive.google.com/file/d/1/view", build=("python tools/demo.py",))
    with pytest.raises(UserError) as caught:
        bring(file, places)
    assert str(caught.value) == (
        f"{address} answered with a web page in place of the file; open https://drive.google.com/file/d/1/view in a "
        f"browser and save the file as {places.models}/weights.pth; or build it: python tools/demo.py"
    )
    assert not places.models.exists()


def test_what_is_not_published_says_what_builds_it(places: Places) -> None:
    with pytest.raises(UserError, match=r"weights\.pth cannot be fetched: build it: python tools/demo\.py$"):
        bring(entry(None, build=("python tools/demo.py",)), places)
    with pytest.raises(UserError, match="cannot be fetched: lost"):
        bring(entry(None, note="lost"), places)


def test_an_archive_is_unpacked_and_deleted(web: WebServer, places: Places) -> None:
    data = archive({"annotations/a.json": b"[1]", "annotations/b.json": b"[2]", "README": b"text"})
    file = entry(
        web.serve("/f", content(data)),
        name="all.zip",
        path="datasets/coco/all.zip",
        unpacks=("datasets/coco/annotations/a.json", "datasets/coco/annotations/b.json"),
    )
    mine = places.data / "coco/annotations/b.json"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"[3]")
    done = bring(file, places)
    assert done.paths == (places.data / "coco/annotations/a.json", mine)
    assert mine.read_bytes() == b"[3]", "a file that is there stays"
    there = sorted(path.name for path in (places.data / "coco").iterdir())
    assert there == ["README", "all.zip.fetched.json", "annotations"]
    assert bring(file, places).what == "unpacked already"
    assert len(web.requests) == 1
    done.paths[0].unlink()
    assert bring(file, places).what == "fetched, 344 bytes, the same as before, unpacked"


def test_an_archive_that_was_left_half_unpacked_is_unpacked_again(web: WebServer, places: Places) -> None:
    """As a kill leaves it: the archive, its passage, and some of its files."""
    data = archive({"photos/1.jpg": b"1", "photos/2.jpg": b"2"})
    file = entry(None, name="p.zip", unpacks=("models/photos",), sha256=hashlib.sha256(data).hexdigest())
    (places.models / ".p.zip.unpacking/photos").mkdir(parents=True)
    (places.models / ".p.zip.unpacking/photos/2.jpg").write_bytes(b"")
    (places.models / "photos").mkdir()
    (places.models / "photos/1.jpg").write_bytes(b"1")
    (places.models / "p.zip").write_bytes(data)
    assert bring(file, places).what == "there already, as published, unpacked"
    assert (places.models / "photos/2.jpg").read_bytes() == b"2"
    assert [path.name for path in places.models.iterdir()] == ["photos"]


def test_an_archive_of_something_else_is_said(web: WebServer, places: Places) -> None:
    file = entry(web.serve("/f", content(archive({"b.txt": b"b"}))), name="a.zip", unpacks=("models/a.txt",))
    with pytest.raises(UserError, match=r"gave no .*models/a\.txt; it is another archive than expected"):
        bring(file, places)
    web.serve("/f", content(b"no archive"))
    file = entry(web.address("/f"), name="c.zip", unpacks=("models/c.txt",))
    with pytest.raises(UserError, match=r"c\.zip cannot be unpacked \(File is not a zip file\); delete it and fetch"):
        bring(file, places)
    assert not record_path(places.models / "c.zip").exists()


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/../../outside", "C:/outside", "..\\outside"])
def test_members_outside_the_folder_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(archive({"good": b"1", name: b"2"}))
    with pytest.raises(UserError, match="outside its folder; it was refused"):
        unpack_zip(path, tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_links_and_damage_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"

    def link(info: zipfile.ZipInfo) -> None:
        info.external_attr = 0o120777 << 16

    path.write_bytes(archive({"link": b"/etc"}, link))
    with pytest.raises(UserError, match="outside its folder"):
        unpack_zip(path, tmp_path / "folder")
    whole = archive({"first": DATA, "second": DATA[::-1]})
    place = whole.index(b"second") + 20
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack_zip(path, tmp_path / "folder")
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["a.zip", "folder"]
    path.write_bytes(whole)
    assert unpack_zip(path, tmp_path / "folder") == 2
    assert (tmp_path / "folder/second").read_bytes() == DATA[::-1]


def test_a_backbone_is_converted_from_what_its_authors_publish(
    web: WebServer, places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    torch.save({"state_dict": {"conv1.weight": torch.ones(2, 3), "bn1.num_batches_tracked": torch.tensor(7)}}, stream)
    raw = entry(web.serve("/raw.pth", content(stream.getvalue())), name="raw.pth")
    made = entry(None, name="raw.pkl", made_from="raw.pth")
    monkeypatch.setattr(listed, "published_files", lambda: (raw, made))
    done = bring(made, places)
    assert done.paths == (places.models / "raw.pkl",)
    assert done.what.startswith("2 arrays of raw.pth (fetched")
    assert bring(made, places).what == "there already"
    broken = tmp_path / "empty.pth"
    torch.save({"epoch": 3}, broken)
    with pytest.raises(UserError, match="holds no tensors; the weights of a backbone are expected"):
        convert_backbone(broken, tmp_path / "empty.pkl")
    assert not (tmp_path / "empty.pkl").exists()


def test_sizes_as_people_say_them() -> None:
    assert [size_text(size) for size in (None, 7, 1_234, 350_264_821, 19_336_861_798)] == [
        "size unknown", "7 bytes", "1.2 kB", "350.3 MB", "19.3 GB",
    ]  # fmt: skip
