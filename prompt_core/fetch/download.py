"""Downloads that go on where they stopped, are checked, and appear under their name only when complete."""

from __future__ import annotations

import http.client
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prompt_core.errors import UserError
from prompt_core.fetch.connection import RANGE_NOT_SATISFIABLE, Limits, Unreachable, open_address
from prompt_core.fetch.partial_file import Origin, PartialFile, open_part
from prompt_core.files import sha256_of_file

Progress = Callable[[int, "int | None"], None]
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is there; None where it is not known."""

    size: int | None = None
    sha256: str | None = None


class _BrokenOff(Exception):
    """A transfer ended before its end; what has arrived is kept."""


class _Changed(Exception):
    """The file at the address is not the one that the part belongs to; the part was emptied."""


def download(
    address: str,
    target: Path,
    expected: Expected | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> str:
    """Fetch ``address`` to ``target``; a call after a break or a kill goes on from the bytes that are there.

    A part is continued only when the server says that the file is the same (``If-Range``), or when the sha256 of the
    whole is known and decides at the end. If what was put together is wrong then, it is fetched once more in one piece.

    Args:
        progress: called with (bytes that are there, bytes in all or None).

    Returns:
        The sha256 of the file.

    Raises:
        Unreachable: no server answers.
        UserError: any other failure. ``target`` is not touched; bytes that can be continued stay in ``target.part``.
    """
    transfer = _Transfer(address, expected or Expected(), limits or Limits(), progress or (lambda done, total: None))
    with open_part(target) as part:
        for last in (False, True):
            continued = transfer.run(part)
            try:
                digest = transfer.check(part)
            except UserError:
                if last or not continued:
                    part.discard()
                    raise
                part.restart(Origin(address))
            else:
                part.finish()
                return digest
    raise AssertionError("the second round returns or raises")


@dataclass
class _Transfer:
    address: str
    expected: Expected
    limits: Limits
    progress: Progress
    continued: bool = field(default=False, init=False)

    def run(self, part: PartialFile) -> bool:
        """Bring the missing bytes. Whether they came over several connections, of this call or of earlier ones."""
        self.continued = False
        for number in range(1, self.limits.connections + 1):
            before = part.size
            last = number == self.limits.connections
            try:
                self._receive(part)
                return self.continued
            except _Changed as error:
                if last:
                    raise UserError(f"{self.address} changes while it is fetched ({error})") from error
            except _BrokenOff as error:
                if last or part.size <= before:
                    raise self._broken_off(part, str(error)) from error
            except Unreachable as error:
                if number == 1:
                    raise
                raise self._broken_off(part, "no further connection") from error
        raise AssertionError("the last connection returns or raises")

    def check(self, part: PartialFile) -> str:
        """The sha256 of the part, which is complete as far as its server says.

        Raises:
            UserError: when it is not what is expected.
        """
        size = self.expected.size
        if size is not None and part.size != size:
            more = " or more" if part.size > size else ""
            raise UserError(f"{self.address} gave {part.size:,} bytes{more}, {size:,} are expected; nothing was kept")
        digest = sha256_of_file(part.path)
        if self.expected.sha256 is not None and digest != self.expected.sha256:
            raise UserError(
                f"{self.address} gave a file of sha256 {digest}, {self.expected.sha256} is expected; nothing was kept: "
                "it was damaged on its way, or is another file now"
            )
        return digest

    def _broken_off(self, part: PartialFile, reason: str) -> UserError:
        total = part.origin.total if part.origin is not None else None
        amount = f"{part.size:,} of {total:,} bytes" if total is not None else f"{part.size:,} bytes"
        return UserError(f"{self.address} broke off after {amount} ({reason}); the next call goes on from there")

    def _receive(self, part: PartialFile) -> None:
        """One connection."""
        start, origin = part.size, part.origin
        headers: dict[str, str] = {}
        if start > 0 and origin is not None and origin.address == self.address:
            if origin.validator is not None:
                headers = {"Range": f"bytes={start}-", "If-Range": origin.validator}
            elif self.expected.sha256 is not None:
                headers = {"Range": f"bytes={start}-"}
        with open_address(self.address, headers, self.limits) as response:
            if response.status == RANGE_NOT_SATISFIABLE:
                said = {origin.total if origin is not None else None, _bytes_behind(response)} - {None}
                if said == {start}:
                    self.continued = True  # every byte was there
                    return
                part.restart(Origin(self.address))
                raise _Changed("it has another length than at first")
            _refuse_pages(self.address, response)
            if response.status == http.client.PARTIAL_CONTENT and headers and origin is not None:
                total = self._continue(part, origin, response)
            elif response.status == http.client.OK:
                length = response.headers.get("Content-Length", "")
                total = int(length) if length.isdecimal() else None
                part.restart(Origin(self.address, validator_of(response), total))
                self.continued = False
            else:
                raise UserError(f"{self.address} answered {response.status}, which was not asked for")
            if self.expected.size is not None and total not in (None, self.expected.size):
                part.discard()
                raise UserError(
                    f"{self.address} offers {total:,} bytes, {self.expected.size:,} are expected; nothing was fetched"
                )
            _check_space(part, total if total is not None else self.expected.size or 0)
            self._read(part, response, total if total is not None else self.expected.size)

    def _continue(self, part: PartialFile, origin: Origin, response: Any) -> int | None:
        """Bytes in all, as an answer of 206 says.

        Raises:
            _Changed: when it is of another file, or of other bytes.
        """
        first, total = _range_of(response)
        same = validator_of(response) in (None, origin.validator) and (total is None or origin.total in (None, total))
        if first != part.size or not same:
            part.restart(Origin(self.address))
            raise _Changed("it is another file than at first" if first == part.size else "other bytes were sent")
        self.continued = True
        return total

    def _read(self, part: PartialFile, response: Any, total: int | None) -> None:
        there, began, counted = part.size, time.monotonic(), 0
        while True:
            try:
                data = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                silent = f"silent for {self.limits.silence:g} seconds" if isinstance(error, TimeoutError) else ""
                raise _BrokenOff(silent or str(error) or type(error).__name__) from error
            if not data:
                break
            part.append(data)
            there, counted = there + len(data), counted + len(data)
            self.progress(there, total)
            if total is not None and there > total:
                return  # the check of the size says so
            if (passed := time.monotonic() - began) >= self.limits.window:
                if counted < self.limits.least_bytes:
                    raise self._broken_off(part, f"only {counted:,} bytes in {passed:.0f} seconds")
                began, counted = time.monotonic(), 0
        if total is not None and there < total:
            raise _BrokenOff("the connection was closed")


def validator_of(response: Any) -> str | None:
    """What ``If-Range`` may hold (RFC 9110, 13.1.5): a strong entity tag, else the date of the last change."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    changed = response.headers.get("Last-Modified")
    return str(changed) if changed else None


def _refuse_pages(address: str, response: Any) -> None:
    """Sign-in pages, and Google Drive's questions, come with a status of 200."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity"):
        raise UserError(f"{address} sends the file in the encoding {encoding}, which was not asked for")
    if response.headers.get_content_type() == "text/html" and not urlsplit(address).path.endswith((".html", ".htm")):
        raise UserError(f"{address} answered with a web page in place of the file")


def _range_of(response: Any) -> tuple[int | None, int | None]:
    """(first byte, bytes in all) of a ``Content-Range``; None for what it does not say."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if found is None:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _bytes_behind(response: Any) -> int | None:
    """Bytes in all, from the ``Content-Range`` of an answer of 416."""
    found = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", "").strip())
    return int(found[1]) if found is not None else None


def _check_space(part: PartialFile, total: int) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if (needed := total - part.size) > free:
        raise UserError(f"{part.path.parent} has {free:,} bytes free, {needed:,} are needed; choose another disk")
