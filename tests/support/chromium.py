"""A headless Chromium that tests drive: Chrome's DevTools protocol over two pipes, with nothing to install."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
Heard = Callable[[dict[str, Any]], None]
_QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-proxy-server",
)
# Chromium reads file descriptor 3 and writes 4.
_PLACE = """
import fcntl, os, sys
from_us, to_us = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(from_us, 3)
os.dup2(to_us, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Tab:
    """A page in a browser.

    Attributes:
        requests: addresses that were asked for, in order.
        complaints: errors and warnings of the console, and exceptions.
        failed: addresses that gave nothing, with the reason.
    """

    def __init__(self, browser: _Pipes, session: str) -> None:
        self._browser, self._session = browser, session
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.failed: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        return self._browser.call(method, parameters, self._session, self._heard)

    def show(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Set the size in CSS pixels, and what the system prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Go to a page; :meth:`wait` waits for what it shows."""
        self.call("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """The value of JavaScript.

        Raises:
            AssertionError: when it fails.
        """
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Wait until JavaScript is true.

        Raises:
            AssertionError: when it never is.
        """
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}\n{self.complaints}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.value(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        """Replace what a text field holds, and press Enter."""
        self.value(f"(e => {{e.focus(); e.select();}})(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=text)
        for kind in ("rawKeyDown", "char", "keyUp"):
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            self.call("Input.dispatchKeyEvent", type=kind, **key)

    def send_file(self, selector: str, file: Path) -> None:
        """Give a file to an upload field."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def picture(self, file: Path, whole: bool = True) -> None:
        """Save a screenshot, by default of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        file.write_bytes(base64.b64decode(data))

    def _heard(self, event: dict[str, Any]) -> None:
        if event.get("sessionId") != self._session:
            return
        method, told = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Network.loadingFailed" and not told.get("canceled"):
            self.failed.append(told["errorText"])
        elif method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            texts = (str(a.get("value", a.get("description", a["type"]))) for a in told["args"])
            self.complaints.append(f"{told['type']}: {' '.join(texts)}")
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{told['entry']['level']}: {told['entry']['text']} {told['entry'].get('url', '')}")


class _Pipes:
    """Messages to a browser and from it, each ended by a zero byte."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._number = 0
        self._rest = b""

    def call(
        self,
        method: str,
        parameters: dict[str, Any],
        session: str = "",
        heard: Heard = print,
    ) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._out, json.dumps({**message, **({"sessionId": session} if session else {})}).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            if "method" in answer:
                heard(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 20)
            assert part, "the browser is gone"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer


@contextlib.contextmanager
def tab(profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, as long as the context is open."""
    assert CHROMIUM is not None
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    command = [CHROMIUM, *_QUIET, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", _PLACE, str(their_in), str(their_out), *command],
        pass_fds=(their_in, their_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_in)
    os.close(their_out)
    try:
        pipes = _Pipes(our_out, our_in)
        ignored: Heard = lambda event: None  # noqa: E731 - before there is a tab
        target = pipes.call("Target.createTarget", {"url": "about:blank"}, heard=ignored)["targetId"]
        attach = {"targetId": target, "flatten": True}
        session = pipes.call("Target.attachToTarget", attach, heard=ignored)["sessionId"]
        yield Tab(pipes, session)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(our_out)
        os.close(our_in)
