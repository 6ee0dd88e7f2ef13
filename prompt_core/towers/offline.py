"""Downloads that end in seconds where there is no network; what is already on the machine is used without one."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

# Seconds for one answer of the server. Name servers that do not answer may take longer, so a thread waits for them.
PATIENCE = 5.0

Built = TypeVar("Built")


def with_files(build: Callable[[], Built]) -> Built:
    """What ``build`` returns, with files of the Hugging Face hub: those on this machine, or else fetched.

    By itself ``huggingface_hub`` tries each file six times, half a minute or more, and says so each time. Here it is
    let loose only after its server has answered one request. ``build`` may be called twice.

    Raises:
        Exception: what ``build`` raises.
    """
    from huggingface_hub import constants

    with _quiet_root_logger():
        try:
            with _offline():
                return build()
        except Exception as error:
            wanted = _lacks_a_file(error) and not constants.HF_HUB_OFFLINE
            if not wanted or not _server_answers(constants.ENDPOINT):
                raise
        return build()


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _lacks_a_file(error: BaseException | None) -> bool:
    """Whether an error, or one before it, is the hub's about a file that is not on this machine."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    while error is not None:
        # open_clip goes on without the weights of a hub's model, and says only afterwards that they are required.
        if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)) or "Required pretrained" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _server_answers(address: str) -> bool:
    """Whether one request gets an answer, with the proxies and certificates that downloads would use."""
    from huggingface_hub.utils import get_session

    answers: list[int] = []

    def ask() -> None:
        # Which exceptions mean that nothing can be fetched depends on the library below: any does.
        with contextlib.suppress(Exception):
            answers.append(get_session().head(address, timeout=PATIENCE).status_code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers) and answers[0] < 500


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """open_clip reports on the root logger what the caller reports: a failed download, or weights that are random.

    It would also set up logging: a root logger without handlers gets one by that call.
    """
    reported = ("No pretrained weights loaded", "Failed to download", "Could not", "Local config loaded, but no CLIP")

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(reported)

    root, silent = logging.getLogger(), logging.NullHandler()
    root.addFilter(keep)
    root.addHandler(silent)
    try:
        yield
    finally:
        root.removeHandler(silent)
        root.removeFilter(keep)
