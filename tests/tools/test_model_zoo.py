"""``tools/model_zoo.py`` as users run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

CallTool = Callable[..., tuple[int, str, str]]


def test_the_page_is_written_with_links_from_its_folder(call_tool: CallTool, tmp_path: Path) -> None:
    code, out, error = call_tool("model_zoo", "--output", "docs/zoo.md")
    assert (code, out, error) == (0, "written to docs/zoo.md\n", "")
    text = (tmp_path / "docs/zoo.md").read_text(encoding="utf-8")
    link = text.split("[`prompt/methods/coop`](")[1].split(")")[0]
    assert (tmp_path / "docs" / link).is_file()


def test_bad_input(call_tool: CallTool, tmp_path: Path) -> None:
    assert call_tool("model_zoo")[::2] == (
        2,
        "error: the following arguments are required: --output; see model_zoo.py --help\n",
    )
    code, _, error = call_tool("model_zoo", "--output", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert "it is a folder" in error
