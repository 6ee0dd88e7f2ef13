"""One request over http or https: redirects are followed within rules, and no wait is without an end.

The standard library's urllib is used: it knows proxies and certificates, adds no dependency, and leaves redirects,
ranges and time-outs to the caller. huggingface_hub fetches from its own hub only, pooch and torch.hub do not resume,
and requests would be a dependency for what is not the hard part.
"""

from __future__ import annotations

import http.client
import queue
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit

from prompt_core import __version__
from prompt_core.errors import UserError

Value = TypeVar("Value")
RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class Limits:
    """How long a download may take without getting on.

    Attributes:
        opening: seconds until a server has answered, all redirects included; it bounds the time spent offline.
        silence: seconds without a byte.
        window: seconds over which the rate is measured.
        least_bytes: fewer within a window end the download, to be resumed later.
        connections: in all, for one call: a transfer that breaks off goes on where it stopped.
    """

    opening: float = 20.0
    silence: float = 30.0
    window: float = 60.0
    least_bytes: int = 60_000
    connections: int = 5


class Unreachable(UserError):
    """No server answered: the machine is offline, or the host is gone. Other addresses need not be tried."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """urllib's rules (ten redirects, no circle), and :func:`check_address` for each of them."""

    def http_error_302(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage
    ) -> Any:
        location = headers.get("location") or headers.get("uri")
        if location:
            check_address(urljoin(req.full_url, location), redirected_from=req.full_url)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def check_address(address: str, redirected_from: str | None = None) -> None:
    """Refuse anything but http and https, and a redirect that leaves https.

    Raises:
        UserError: when it is refused.
    """
    scheme, before = urlsplit(address).scheme.lower(), urlsplit(redirected_from or "").scheme.lower()
    way = f"{redirected_from} redirects to {address}" if redirected_from else address
    if scheme not in ("http", "https"):
        raise UserError(f"{way}: only http and https addresses are fetched")
    if before == "https" and scheme == "http":
        raise UserError(f"{way}, which is not encrypted; it was not followed")


def open_address(address: str, headers: Mapping[str, str], limits: Limits) -> http.client.HTTPResponse | HTTPError:
    """The response to a GET request: 200, 206, or the error 416 of a range that begins behind the end.

    Raises:
        Unreachable: no answer within ``limits.opening`` seconds, or no connection.
        UserError: a refused address, and any other status of HTTP.
    """
    check_address(address)
    agent = f"prompt-pretraining-toolkit/{__version__}"
    fields = {"User-Agent": agent, "Accept-Encoding": "identity", **headers}
    request = urllib.request.Request(address, headers=fields)
    # Built from its parts: urllib's default opener also knows file:, ftp: and data:.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    try:
        return within(limits.opening, lambda: opener.open(request, timeout=limits.silence))
    except HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE:
            return error
        if 300 <= error.code < 400:
            raise UserError(f"{address} redirects in a circle, or too often; nothing was fetched") from error
        raise UserError(f"{address} answered {error.code} ({error.reason}); nothing was fetched") from error
    except UserError:
        raise
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        text = (
            f"no answer within {limits.opening:g} seconds" if isinstance(reason, TimeoutError) else reason or "closed"
        )
        raise Unreachable(f"{address} cannot be reached ({text}); is this machine online?") from error


def within(seconds: float, call: Callable[[], Value]) -> Value:
    """What ``call`` returns or raises, if it does so in time; looking up a name has no time-out of its own.

    Raises:
        TimeoutError: when it takes longer; the call is left to itself.
    """
    done: queue.SimpleQueue[tuple[Value | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"longer than {seconds:g} seconds") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
