"""Downloads from servers that break off, lie, redirect, wait and change their files: nothing wrong lands."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompt_core.errors import UserError
from prompt_core.fetch.connection import Limits, Unreachable, check_address, within
from prompt_core.fetch.download import Expected, download
from prompt_core.fetch.partial_file import Origin, PartialFile, open_part, part_path

from ...support.web_server import Answer, WebServer, content, late, status, trickle, wait_until

DATA = random.Random(0).randbytes(100_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
KNOWN = Expected(len(DATA), SHA256)
QUICK = Limits(opening=5, silence=0.3, window=10)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_lands_with_its_checksum_and_nothing_beside_it(web: WebServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new/folder/file.bin"
    digest = download(web.serve("/f", content(DATA)), target, progress=lambda done, total: seen.append((done, total)))
    assert digest == SHA256
    assert target.read_bytes() == DATA
    assert files(target.parent) == ["file.bin"]
    assert seen[-1] == (len(DATA), len(DATA))
    assert web.requests == [("/f", None, None)]


def test_a_file_in_chunks_has_no_known_length(web: WebServer, tmp_path: Path) -> None:
    assert download(web.serve("/f", content(DATA, declared=-1)), tmp_path / "f") == SHA256


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(web: WebServer, tmp_path: Path) -> None:
    address = web.serve("/f", content(DATA, sent=40_000), content(DATA, sent=30_000), content(DATA))
    assert download(address, tmp_path / "f") == SHA256
    assert web.requests == [("/f", None, None), ("/f", "bytes=40000-", '"v1"'), ("/f", "bytes=70000-", '"v1"')]


def test_a_broken_chunk_goes_on_where_it_stopped(web: WebServer, tmp_path: Path) -> None:
    address = web.serve("/f", content(DATA, sent=40_000, declared=-1), content(DATA))
    assert download(address, tmp_path / "f", KNOWN) == SHA256
    assert len(web.requests) == 2


def test_the_next_call_goes_on_where_the_last_one_stopped(web: WebServer, tmp_path: Path) -> None:
    address = web.serve("/f", content(DATA, sent=40_000), content(DATA, sent=0))
    with pytest.raises(UserError, match=r"broke off after 40,000 of 100,000 bytes .*the next call goes on") as caught:
        download(address, tmp_path / "f")
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["f.part", "f.part.json"]
    web.serve("/f", content(DATA))
    assert download(address, tmp_path / "f") == SHA256
    assert web.requests[-1] == ("/f", "bytes=40000-", '"v1"')
    assert files(tmp_path) == ["f"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    breaks=st.lists(st.integers(0, 3_000), max_size=6),
    etags=st.lists(st.sampled_from(['"a"', '"b"', None]), min_size=7, max_size=7),
    ranges=st.booleans(),
    connections=st.integers(1, 4),
)
def test_whatever_breaks_and_changes_the_file_is_one_that_was_served(
    web: WebServer,
    tmp_path_factory: pytest.TempPathFactory,
    breaks: list[int],
    etags: list[str | None],
    ranges: bool,
    connections: int,
) -> None:
    """A file of zeros and one of ones, told apart by their tags: no download mixes them."""
    target = tmp_path_factory.mktemp("any") / "f"
    versions = {'"a"': bytes(2_000), '"b"': b"\1" * 2_000, None: b"\2" * 2_000}
    answers = [
        content(versions[etag], etag=etag, ranges=ranges, sent=sent) for etag, sent in zip(etags, breaks, strict=False)
    ]
    last = etags[len(breaks)]
    address = web.serve("/f", *answers, content(versions[last], etag=last))
    for _ in range(10):
        try:
            download(address, target, limits=Limits(connections=connections))
            break
        except UserError:
            assert not target.exists()
    assert target.read_bytes() in versions.values()


def test_a_server_that_ignores_ranges_sends_all_again(web: WebServer, tmp_path: Path) -> None:
    address = web.serve("/f", content(DATA, sent=40_000), content(DATA, ranges=False))
    assert download(address, tmp_path / "f") == SHA256
    assert (tmp_path / "f").read_bytes() == DATA


CHANGED = DATA[::-1]
CHANGED_SHA256 = hashlib.sha256(CHANGED).hexdigest()


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (content(CHANGED, etag='"v2"'), Expected()),
        (content(CHANGED, etag='"v2"', conditional=False), Expected()),
        (content(CHANGED, etag='"v2"', conditional=False, tell_etag=False), Expected(sha256=CHANGED_SHA256)),
        (content(CHANGED + b"more", etag='"v2"', conditional=False, tell_etag=False), Expected()),
        (content(CHANGED[:30_000], etag='"v2"', conditional=False), Expected()),
    ],
    ids=["heeds If-Range", "another tag", "no tag, but a known checksum", "another length", "shorter"],
)
def test_a_file_that_changes_between_two_parts_is_not_mixed(
    web: WebServer, tmp_path: Path, second: Answer, expected: Expected
) -> None:
    address = web.serve("/f", content(DATA, sent=40_000), second)
    download(address, tmp_path / "f", expected)
    assert (tmp_path / "f").read_bytes() in (CHANGED, CHANGED + b"more", CHANGED[:30_000])


def test_a_part_without_a_strong_tag_is_continued_only_with_a_known_checksum(web: WebServer, tmp_path: Path) -> None:
    broken, whole = content(DATA, etag='W/"v1"', sent=40_000), content(DATA, etag='W/"v1"')
    download(web.serve("/f", broken, whole), tmp_path / "f")
    assert [wanted for _, wanted, _ in web.requests] == [None, None]
    web.requests.clear()
    download(web.serve("/f", broken, whole), tmp_path / "g", KNOWN)
    assert [wanted for _, wanted, _ in web.requests] == [None, "bytes=40000-"]
    dated = {"Last_Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}
    web.requests.clear()
    download(
        web.serve("/f", content(DATA, etag=None, sent=9, **dated), content(DATA, etag=dated["Last_Modified"], **dated)),
        tmp_path / "h",
    )
    assert web.requests[1] == ("/f", "bytes=9-", dated["Last_Modified"])


def test_a_part_of_another_address_is_not_continued(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="broke off"):
        download(web.serve("/old", content(DATA, sent=40_000), content(DATA, sent=0)), tmp_path / "f")
    assert download(web.serve("/new", content(CHANGED)), tmp_path / "f") == CHANGED_SHA256
    assert web.requests[-1] == ("/new", None, None)


def test_a_complete_part_is_not_fetched_again(web: WebServer, tmp_path: Path) -> None:
    """As a process leaves it that is killed between the last byte and the new name."""
    address = web.serve("/f", content(DATA))
    with open_part(tmp_path / "f") as part:
        part.restart(Origin(address, '"v1"', len(DATA)))
        part.append(DATA)
    assert download(address, tmp_path / "f") == SHA256
    assert web.requests == [("/f", f"bytes={len(DATA)}-", '"v1"')]


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (content(DATA, declared=200_000, sent=None), KNOWN, "offers 200,000 bytes, 100,000 are expected"),
        (content(DATA, declared=200_000), Expected(), "broke off after 100,000 of 200,000 bytes"),
        (content(DATA, declared=50_000), KNOWN, "offers 50,000 bytes, 100,000 are expected"),
        (content(DATA, declared=50_000), Expected(sha256=SHA256), "sha256 .* is expected; nothing was kept"),
        (content(DATA + b"x", declared=-1), KNOWN, "gave 100,001 bytes or more, 100,000 are expected"),
        (content(DATA[:-1], declared=-1), KNOWN, "gave 99,999 bytes, 100,000 are expected"),
        (content(CHANGED), KNOWN, "sha256 .* is expected; nothing was kept"),
        (content(b""), KNOWN, "offers 0 bytes"),
        (content(DATA, declared=10**18), Expected(), "bytes free, 1,000,000,000,000,000,000 are needed"),
        (status(404), KNOWN, r"answered 404 \(Not Found\)"),
        (status(500), KNOWN, r"answered 500 \(Internal Server Error\)"),
        (status(416), KNOWN, "changes while|answered 416"),
        (status(206), KNOWN, "answered 206, which was not asked for"),
        (status(200, Content_Type="text/html; charset=utf-8"), Expected(), "a web page in place of the file"),
        (content(DATA, Content_Encoding="gzip"), Expected(), "in the encoding gzip"),
    ],
)
def test_what_is_wrong_never_lands(
    web: WebServer, tmp_path: Path, answer: Answer, expected: Expected, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        download(web.serve("/f", answer), tmp_path / "deep/er/f", expected)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "deep/er/f").exists()
    if "broke off" not in str(caught.value):
        assert files(tmp_path) == [], "no part, and no folder that was made for it"


def test_redirects_are_followed(web: WebServer, tmp_path: Path) -> None:
    web.serve("/to", content(DATA))
    for code in (301, 302, 303, 307, 308) if sys.version_info >= (3, 11) else (301, 302, 303, 307):
        assert download(web.serve("/f", status(code, Location="/to")), tmp_path / str(code)) == SHA256


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/f", "redirects in a circle"),
        ("file:///etc/passwd", "redirects to file:///etc/passwd: only http and https"),
        ("ftp://127.0.0.1/f", "only http and https"),
        ("data:,text", "only http and https"),
    ],
)
def test_redirects_elsewhere_are_refused(web: WebServer, tmp_path: Path, location: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        download(web.serve("/f", status(302, Location=location)), tmp_path / "f")
    assert files(tmp_path) == []


def test_a_redirect_never_leaves_https() -> None:
    with pytest.raises(UserError, match="not encrypted; it was not followed"):
        check_address("http://example.org/f", redirected_from="https://example.org/f")
    check_address("https://example.org/f", redirected_from="http://example.org/f")
    for address in ("file:///etc/passwd", "ftp://example.org/f", "/etc/passwd", "javascript:1"):
        with pytest.raises(UserError, match="only http and https"):
            check_address(address)
        with pytest.raises(UserError, match="only http and https"):
            download(address, Path("never"))


def test_offline_ends_at_once(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/f"
        with pytest.raises(Unreachable, match=r"cannot be reached \(.*refused\); is this machine online\?"):
            download(address, tmp_path / "folder/f")
    assert files(tmp_path) == []


def test_a_server_that_never_answers_is_left(web: WebServer, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"no answer within 0\.2 seconds"):
        download(web.serve("/f", late(20, content(DATA))), tmp_path / "f", limits=Limits(opening=0.2))
    assert time.monotonic() - began < 5
    with pytest.raises(TimeoutError):
        within(0.05, lambda: time.sleep(1))
    with pytest.raises(KeyError):
        within(5, lambda: {}["what is raised, is raised"])


def test_a_silent_server_is_asked_again(web: WebServer, tmp_path: Path) -> None:
    address = web.serve("/f", content(DATA, sent=40_000, hang=True), content(DATA))
    assert download(address, tmp_path / "f", limits=QUICK) == SHA256
    address = web.serve("/f", content(DATA, sent=40_000, hang=True), content(DATA, sent=0, hang=True))
    with pytest.raises(UserError, match=r"after 40,000 of 100,000 bytes \(silent for 0\.3 seconds\)"):
        download(address, tmp_path / "g", limits=QUICK)


def test_a_trickle_is_not_waited_for(web: WebServer, tmp_path: Path) -> None:
    limits = Limits(window=0.2, least_bytes=1_000)
    with pytest.raises(UserError, match=r"only \d+ bytes in 0 seconds\); the next call goes on from there"):
        download(web.serve("/f", trickle(DATA, 0.02)), tmp_path / "f", limits=limits)
    assert part_path(tmp_path / "f").stat().st_size > 0


def test_a_killed_process_leaves_what_the_next_one_continues(web: WebServer, tmp_path: Path) -> None:
    address = web.serve("/f", content(DATA, sent=60_000, hang=True), content(DATA))
    script = (
        "import sys; from pathlib import Path; from prompt_core.fetch.download import download; "
        "download(sys.argv[1], Path(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    command = [sys.executable, "-c", script, address, str(tmp_path / "f")]
    process = subprocess.Popen(command, env=environment)
    try:
        part = part_path(tmp_path / "f")
        wait_until(lambda: part.is_file() and part.stat().st_size == 60_000)
        with pytest.raises(UserError, match="is being fetched by another process"):
            download(address, tmp_path / "f")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert files(tmp_path) == ["f.part", "f.part.json"]
    assert download(address, tmp_path / "f") == SHA256
    assert web.requests == [("/f", None, None), ("/f", "bytes=60000-", '"v1"')]
    assert files(tmp_path) == ["f"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, whose disk is always full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        open("/dev/full", "ab", buffering=0) as stream,
        pytest.raises(UserError, match="No space left on device; free"),
    ):
        PartialFile(tmp_path / "f", stream).append(DATA)
