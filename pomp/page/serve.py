"""Bringing the page up: where it can be reached, what it takes, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from importlib import resources
from typing import Any

from pomp.page.answers import Answers
from pomp.page.layout import build_page, gradio
from pomp.page.uploads import MAX_BYTES
from prompt_core.errors import UserError

LOCAL = ("127.0.0.1", "localhost", "::1")
PORT = 7860
# Gradio reads them when it is imported: no calls home, no tunnel, no history of what was asked, no second server.
ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@contextlib.contextmanager
def served(answers: Answers, host: str = LOCAL[0], port: int = 0) -> Iterator[str]:
    """The page, as long as the context is open; gives its address.

    What is sent lies in a folder of its own until it is read, and the folder is deleted at the end.

    Args:
        host: what to listen on; only from this machine where it is one of :data:`LOCAL`.
        port: 0 for any that is free.

    Raises:
        UserError: when Gradio is not installed, or the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="pomp-page-") as folder, _environment(folder):
        page = build_page(answers)
        page.queue(default_concurrency_limit=2, max_size=32, api_open=False)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port or _free_port(host),
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=MAX_BYTES,
                footer_links=[],
                run_history=False,
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                theme=_theme(),
                css=_asset("showing.css") + _asset("page.css"),
                head=f"<script>{_asset('page.js')}</script>",
            )
        except OSError as error:
            raise UserError(f"{host}:{port} cannot be used ({error}); give another --port") from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def _theme() -> Any:
    """Fonts of the machine: none is fetched."""
    themes = gradio().themes
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return themes.Default(primary_hue="blue", neutral_hue="slate", **fonts)


def _asset(name: str) -> str:
    return (resources.files("pomp") / "assets" / "page" / name).read_text(encoding="utf-8")


def _free_port(host: str) -> int:
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _environment(folder: str) -> Iterator[None]:
    wanted = {**ENVIRONMENT, "GRADIO_TEMP_DIR": folder}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
