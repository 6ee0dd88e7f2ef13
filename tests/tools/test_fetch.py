"""``tools/fetch.py`` as users run it: what lands where, what is said, exit codes."""

from __future__ import annotations

import hashlib
import io
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pomp.commands import fetch as command
from prompt_core.errors import UserError
from prompt_core.fetch import published_files as listed
from prompt_core.fetch.convert_backbone import convert_backbone
from prompt_core.fetch.published_files import PublishedFile

from ..support.web_server import WebServer, content

Call = Callable[..., tuple[int, str, str]]
DATA = b"matrix" * 100


def entry(name: str, address: str | None, **more: Any) -> PublishedFile:
    values = {"name": name, "path": f"datasets/metadata/{name}", "what": "x", "source": "x", "groups": ("some",)}
    return PublishedFile(**{**values, "address": address, **more})


@pytest.fixture
def served(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    """A list of a few files on this machine."""
    files = (
        entry("a.npy", web.serve("/a.npy", content(DATA)), sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA)),
        entry("b.pth", web.serve("/b.pth", content(DATA)), path="models/b.pth"),
        entry("c.json", None, build=("python datasets/prepare.py coco",)),
        entry("d.pth", web.address("/d.pth"), path="models/d.pth", groups=("other",), optional_for=("some",)),
    )
    for place in (command, listed):
        monkeypatch.setattr(place, "published_files", lambda: files)
    return web


def test_a_group_lands_below_its_folders(served: WebServer, call_tool: Call, tmp_path: Path) -> None:
    arguments = ["some", "--root", tmp_path / "data", "--models", tmp_path / "weights"]
    code, output, errors = call_tool("fetch", *arguments)
    assert (code, errors) == (0, "")
    assert (tmp_path / "data/metadata/a.npy").read_bytes() == DATA
    assert (tmp_path / "weights/b.pth").read_bytes() == DATA
    assert "datasets/metadata/c.json: not published; build it: python datasets/prepare.py coco --root" in output
    assert "some can do without, and these were left: d.pth" in output
    code, output, _ = call_tool("fetch", *arguments)
    assert code == 0
    assert output.count("there already") == 2


def test_the_root_is_that_of_all_tools(
    served: WebServer, call_tool: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POMP_DATA", str(tmp_path / "mine"))
    assert call_tool("fetch", "datasets/metadata/a.npy")[0] == 0
    assert (tmp_path / "mine/metadata/a.npy").is_file()


def test_what_fails_does_not_keep_the_others_from_landing(served: WebServer, call_tool: Call, tmp_path: Path) -> None:
    served.serve("/a.npy", content(DATA[::-1]))
    code, output, errors = call_tool("fetch", "some", "d.pth", "c.json", "--root", tmp_path / "data")
    assert code == 2
    assert [line.partition(" ")[0] for line in errors.splitlines()] == ["error:"] * 3
    assert "sha256" in errors
    assert "answered 404 (Not Found)" in errors
    assert "c.json cannot be fetched: build it: python datasets/prepare.py coco" in errors
    assert "models/b.pth: fetched" in output
    assert not (tmp_path / "data/metadata/a.npy").exists()


def test_offline_is_one_line_and_a_moment(
    call_tool: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: WebServer
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        files = tuple(entry(name, address + name) for name in ("a.npy", "b.npy", "c.npy"))
        monkeypatch.setattr(listed, "published_files", lambda: files)
        began = time.monotonic()
        code, output, errors = call_tool("fetch", "some", "--root", tmp_path / "data")
    assert time.monotonic() - began < 10
    assert (code, output) == (2, "")
    assert len(errors.splitlines()) == 1
    assert "is this machine online?" in errors
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a file or a group (lvis, class_matrices, coco"),
        (["lvis_v1_clip_pomp.npy"], "neither a published file nor a group of them; nearest: 'lvis_v1_clip_pomp+cname"),
        (["--list", "nothing-like-it"], "neither a published file nor a group"),
        (["lvis", "--force"], "unrecognized arguments: --force"),
        (["oid_clip_a+cname.npyy", "lvis"], "'oid_clip_a+cname.npyy' is neither"),
    ],
)
def test_bad_arguments_are_one_line(call_tool: Call, arguments: list[str], message: str) -> None:
    code, _, errors = call_tool("fetch", *arguments)
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_the_list_shows_every_file(call_tool: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POMP_DATA", str(tmp_path))
    code, output, _ = call_tool("fetch", "--list")
    assert code == 0
    folded = "".join(output.split())
    for file in listed.published_files():
        assert file.name[:40] in folded
    code, output, _ = call_tool("fetch", "--list", "coco_small")
    assert code == 0
    [row] = [line for line in output.splitlines() if line.split()[:1] == ["coco_clip_pomp+cname.npy"]]
    place = tmp_path / "metadata" / "coco_clip_pomp+cname.npy"
    assert all(text in row for text in ("absent", "82.0 kB", "Apache-2.0", str(place)))


def test_the_engine_reads_a_converted_backbone(tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    from pomp_engine.checkpoint import ModelCheckpointer

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential()
            self.backbone.add_module("base", nn.Sequential())
            self.backbone.base.add_module("layer1", nn.Linear(2, 3))

    published = {"layer1.weight": torch.rand(3, 2), "layer1.bias": torch.rand(3), "head.fc.weight": torch.rand(5, 3)}
    stream = io.BytesIO()
    torch.save({"state_dict": published, "epoch": 3}, stream)
    (tmp_path / "raw.pth").write_bytes(stream.getvalue())
    assert convert_backbone(tmp_path / "raw.pth", tmp_path / "raw.pkl") == 3
    model = Detector()
    ModelCheckpointer(model).load(str(tmp_path / "raw.pkl"))
    assert torch.equal(model.backbone.base.layer1.weight, published["layer1.weight"])
    assert torch.equal(model.backbone.base.layer1.bias, published["layer1.bias"])


def test_absent_weights_and_matrices_say_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("detectron2")
    from pomp_det.class_matrix import read_class_matrix
    from pomp_engine.checkpoint import ModelCheckpointer

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"leave it empty; get it: python tools/fetch\.py resnet50_miil_21k\.pkl"):
        ModelCheckpointer(nn.Linear(1, 1)).load("models/resnet50_miil_21k.pkl")
    with pytest.raises(UserError, match=r"; get it: python tools/fetch\.py lvis_v1_clip_pomp\+cname\.npy \(1\.2 MB\)"):
        read_class_matrix("datasets/metadata/lvis_v1_clip_pomp+cname.npy")
