"""Texts from outside are shown, never obeyed, wherever a tool prints them."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.table import Table

from prompt_core.command_line import print_table, show_results
from prompt_core.visible import is_one_line, plain_console, say, shortened, show_record, show_warnings_and_logs, visible

from ..support import hostile

ROOT = Path(__file__).resolve().parents[2]
CONTROLS = set(map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))


@given(text=hostile.texts | st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not CONTROLS & set(visible(text))
    assert CONTROLS & set(visible(text, lines=True)) <= {"\n", "\t"}
    visible(text).encode("utf-8")
    assert visible(visible(text)) == visible(text)
    if is_one_line(text) and text.isascii():
        assert visible(text) == text


def test_scripts_and_emoji_stay() -> None:
    for text in ("👩\u200d🚀", "שלום", "नमस्ते", "café", "a\\b", "[red]"):
        assert visible(text) == text
        assert is_one_line(text)
    assert visible("a\x1b[31m\u202eb\ud800\n") == "a\\x1b[31m\\u202eb\\ud800\\n"
    assert not any(map(is_one_line, ("a\n", "a\tb", "\x1b", "\x85", "\u2028", "\ud800")))


@given(value=hostile.values)
@settings(max_examples=60, deadline=None)
def test_values_are_short_in_messages(value: object) -> None:
    assert len(shortened(value)) <= 400
    assert not CONTROLS & set(shortened(value))


def test_tables_obey_neither_markup_nor_control_signs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["[red]x[/red]", "[/]", ":smile:", "\x1b[31mred", "\u202egnp"]
    show_results("[b]title\x07[/b]", ["[i]name", "AP"], [[name, "1.0"] for name in names], tmp_path / "a.md")
    out = capsys.readouterr().out
    for shown in ("[b]title\\x07[/b]", "[i]name", "[red]x[/red]", "[/]", ":smile:", "\\x1b[31mred", "\\u202egnp"):
        assert shown in out
    assert not CONTROLS & set(out) - {"\n"}
    assert not CONTROLS & set((tmp_path / "a.md").read_text(encoding="utf-8")) - {"\n"}
    stream = io.StringIO()
    table = Table("name")
    table.add_row("\x1b[31mred")
    plain_console(file=stream, force_terminal=True, color_system="truecolor").print(table)
    assert "\\x1b[31mred" in stream.getvalue()  # rich's own styles stay
    assert "\x1b[1m" in stream.getvalue()


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(*2 * [st.text("ab /你", max_size=400)]), max_size=4))
def test_a_row_in_a_pipe_is_one_line(rows: list[tuple[str, str]]) -> None:
    """Wherever a data set lies: a path of any length stays whole, for whoever reads the table by the line."""
    table = Table("path", "what", box=None)
    for row in rows:
        table.add_row(*row)
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        print_table(table)
    lines = stream.getvalue().splitlines()[-len(rows) :] if rows else []
    assert [line.split() for line in lines] == [" ".join(row).split() for row in rows]


def test_logs_and_warnings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.LogRecord("a", logging.INFO, "a.py", 1, "photo %s:\n%d", ("\x1b[2J.jpg", 3), None)
    assert show_record(record)
    assert record.getMessage() == "photo \\x1b[2J.jpg:\n3"
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    show_warnings_and_logs()
    assert "\\x1b[2J" in warnings.formatwarning("class \x1b[2J", UserWarning, "a.py", 1, "x")
    say("a\x1bb\tc\nd", error=True)
    assert capsys.readouterr().err == "a\\x1bb\tc\nd\n"


def test_tools_print_through_one_function() -> None:
    """``print`` is left for JSON and for fixed words."""
    found = []
    for folder in ("prompt_core", "pomp_engine", "pomp_det", "pomp_seg", "pomp", "tools", "datasets"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name in ("visible.py", "install_detectron2.py"):  # the installer runs before its packages are there
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
                if called and not _is_harmless(node):  # type: ignore[arg-type]
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def _is_harmless(call: ast.Call) -> bool:
    fixed = all(isinstance(value, ast.Constant) for value in call.args)
    return fixed or "json.dumps(" in ast.unparse(call)


def test_a_folder_of_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from prompt_core.data.sources import open_images
    from prompt_core.errors import run_command

    folder = tmp_path / "a\x1b[31m" / "[red]cat"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(folder / "1.png")
    (folder / "2\x1b]0;t\x07.png").write_text("no photo")
    images = open_images(f"folder:{folder.parent}")
    assert images.names == ["[red]cat"]

    def main() -> None:
        images.read(1)

    with pytest.raises(SystemExit):
        run_command(main)
    with pytest.raises(SystemExit):
        run_command(lambda: open_images(f"folder:{tmp_path}/a\x1b[31m/none") and None)  # type: ignore[func-returns-value]
    shown = capsys.readouterr().err
    assert "2\\x1b]0;t\\x07.png" in shown
    assert "a\\x1b[31m/none" in shown
    assert not CONTROLS & set(shown) - {"\n"}
