"""A web server on this machine whose answers a test writes: honest ones, and those that break off or lie."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Answer = Callable[["Handler"], None]


@dataclass
class WebServer:
    """Answers by path, and the requests that came.

    Attributes:
        answers: what each path does; several answers of a path are given in turn, the last one again and again.
        requests: (path, ``Range``, ``If-Range``) of each.
        stop: set when the test is over, so that no answer waits longer.
    """

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def serve(self, path: str, *answers: Answer) -> str:
        """Set the answers of a path; its address."""
        self.answers[path] = list(answers)
        return self.address(path)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: WebServer

    def do_GET(self) -> None:
        self.web.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        answers = self.web.answers.get(self.path, [status(404)])
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *arguments: object) -> None: ...

    def head(self, code: int, **fields: object) -> None:
        """Status and header fields; underscores of their names become hyphens."""
        self.send_response(code)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()


def content(
    data: bytes,
    etag: str | None = '"v1"',
    ranges: bool = True,
    conditional: bool = True,
    sent: int | None = None,
    declared: int | None = None,
    tell_etag: bool = True,
    hang: bool = False,
    **fields: object,
) -> Answer:
    """A file.

    Args:
        ranges: answer ``Range`` with 206.
        conditional: heed ``If-Range``.
        sent: close after so many bytes of the answer; ``hang`` keeps the connection open instead.
        declared: bytes that ``Content-Length`` claims; -1 for chunks without it.
        tell_etag: send the ETag with a part, too.
    """

    def answer(handler: Handler) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range")
        start = int(wanted[1]) if wanted and ranges else 0
        if conditional and condition is not None and condition != etag:
            start = 0
        if start >= len(data) > 0:
            handler.head(416, Content_Range=f"bytes */{len(data)}", Content_Length=0)
            return
        headers: dict[str, object] = dict(fields)
        body = data[start:]
        if etag is not None and (tell_etag or not start):
            headers["ETag"] = etag
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if declared == -1:
            headers["Transfer_Encoding"] = "chunked"
        else:
            headers["Content_Length"] = len(body) if declared is None else declared
        handler.head(206 if start else 200, Content_Type="application/octet-stream", **headers)
        part = body if sent is None else body[:sent]
        if declared == -1:
            handler.wfile.write(b"%x\r\n%s" % (len(body), part))
            if sent is None:
                handler.wfile.write(b"\r\n0\r\n\r\n")
        else:
            handler.wfile.write(part)
        handler.wfile.flush()
        if hang:
            handler.web.stop.wait(20)
        handler.connection.shutdown(socket.SHUT_WR)

    return answer


def status(code: int, **fields: object) -> Answer:
    """A status without a body, as an error or, with ``Location``, a redirect."""
    return lambda handler: handler.head(code, Content_Length=0, **fields)


def late(seconds: float, answer: Answer) -> Answer:
    """An answer that makes wait."""

    def wait(handler: Handler) -> None:
        handler.web.stop.wait(seconds)
        answer(handler)

    return wait


def trickle(data: bytes, pause: float) -> Answer:
    """A file byte by byte."""

    def answer(handler: Handler) -> None:
        handler.head(200, Content_Type="application/octet-stream", ETag='"v1"', Content_Length=len(data))
        for byte in data:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            if handler.web.stop.wait(pause):
                return

    return answer


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A running server; proxies of the environment are left aside."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = WebServer()
    handler = type("OwnHandler", (Handler,), {"web": server})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        server.port = running.server_address[1]
        thread = threading.Thread(target=lambda: running.serve_forever(poll_interval=0.01), daemon=True)
        thread.start()
        yield server
        server.stop.set()
        running.shutdown()
        thread.join()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
