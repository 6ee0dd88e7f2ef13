"""The page and the Markdown: whole, escaped, self-contained, and opened in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="drawings need matplotlib (extra `demo`)")

from pomp_lab.report.build import write_report
from pomp_lab.report.page import (
    Cell,
    Code,
    Figure,
    Page,
    Section,
    Table,
    markdown_table,
    plain,
    render_html,
    render_markdown,
)
from prompt_core.errors import UserError

Write = Callable[..., Path]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "link", "br", "img", "input", "hr"}
AWKWARD = [
    "<script>alert(1)</script>",
    'a" onclick="b',
    "a|b\\c*d`e`",
    "ünïcödé 測試 🙂",
    "{{ 7 * 7 }}",
    "a\nb",
    "&amp;",
]


class Parsed(HTMLParser):
    """Tags of a page, checked for balance; ids, addresses, headers of tables, numbers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.unscoped: list[str] = []
        self.numbers: list[float] = []
        self.widths: list[list[int]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] += 1
        self.ids += [str(values["id"])] if "id" in values else []
        self.addresses += [str(values[name]) for name in ("src", "href", "xlink:href", "srcset") if name in values]
        if tag == "th" and not values.get("scope"):
            self.unscoped.append(str(attrs))
        if tag == "data":
            self.numbers.append(float(str(values["value"])))
        if tag == "table":
            self.widths.append([])
        if tag == "tr":
            self.widths[-1].append(0)
        if tag in ("td", "th"):
            self.widths[-1][-1] += int(values.get("colspan") or 1)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open
        assert self._open.pop() == tag


def cells_of(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def check_markdown(text: str) -> int:
    """Every table has a line of marks and lines of one width; returns the number of tables."""
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for block in tables:
        lines = block.strip().split("\n")
        assert set(lines[1]) <= set("|-: ")
        assert len({len(cells_of(line)) for line in lines}) == 1, block
        assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    return len(tables)


def test_runs_of_all_tasks(all_kinds: Path, tmp_path: Path) -> None:
    report = write_report([all_kinds], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.md"]
    page = Parsed((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    assert [address for address in page.addresses if not address.startswith(("#", "data:"))] == []
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert page.unscoped == []
    assert page.tags["script"] == 0
    assert page.tags["table"] == len(report.tables) + 2 + 12
    assert page.tags["img"] == page.tags["figure"] == sum(map(len, report.plots.values()))
    assert {36.0, 94.5, -0.3} <= {round(number, 6) for number in page.numbers}
    markdown = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert check_markdown(markdown) == len(report.tables) + 2 + 12
    assert "| 6. detector | 1 | 36.0 | 26.5 | 32.5 |" in markdown
    assert "| POMP |  | 36.2 | 26.8 | 32.7 |" in markdown
    assert "| detector − POMP |  | −0.2 | −0.3 | −0.2 |" in markdown


def test_a_page_of_every_kind_of_block() -> None:
    table = Table(("name", "a"), [("x", Cell("1.0", 0.96, bold=True)), "all below", ("y", "")], "What it is")
    figure = Figure(b"<svg/>", "svg+xml", "A title", "A caption.")
    sections = [Section("One & two", ["A text.", table]), Section("Part", [figure, Code("make demo")], 3, folded=True)]
    page = Page("Title", ["First."], sections, ["Look here."])
    html = render_html(page)
    assert Parsed(html).numbers == [0.96]
    assert '<b><data value="0.96">1.0</data></b>' in html
    assert '<img src="data:image/svg+xml;base64,PHN2Zy8+" alt="A title">' in html
    assert '<li><a href="#section-0">One &amp; two</a></li>' in html
    assert '<details><summary id="section-1">Part</summary>' in html
    assert render_markdown(page, "page.html") == (
        "# Title\n\nFirst.\n\n- Look here.\n\n## One &amp; two\n\nA text.\n\nWhat it is\n\n"
        "| name | a |\n| --- | ---: |\n| x | **1.0** |\n| all below |  |\n| y |  |\n\n"
        "### Part\n\nA title (in page.html). A caption.\n\n```\nmake demo\n```\n"
    )


def test_one_run(write_run: Write, tmp_path: Path) -> None:
    folder = write_run("only", {"set/top1": 50.0}, {"set": {"split": "val"}})
    report = write_report([folder], tmp_path / "out")
    assert ([table.comparisons for table in report.tables], report.plots) == ([[]], {})
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "No published table has these data sets" in text
    Parsed(text)
    check_markdown((tmp_path / "out/report.md").read_text(encoding="utf-8"))


def test_many_runs(write_run: Write, tmp_path: Path) -> None:
    for number in range(60):
        history = [{"loss": 1.0 + number, "accuracy": 0.5}] * 3
        numbers = {f"set{index}/top1": float(number) for index in range(12)}
        write_run(f"run{number}", numbers, {f"set{index}": {"split": "val"} for index in range(12)}, history=history)
    report = write_report([tmp_path], tmp_path / "out")
    assert [row.label for row in report.rows][:3] == ["run0", "run1", "run2"]
    assert len(report.tables[0].columns) == 12
    Parsed((tmp_path / "out/report.html").read_text(encoding="utf-8"))


def test_runs_without_numbers(write_run: Write, tmp_path: Path) -> None:
    nothing = write_run("nothing", {})
    undefined = write_run("undefined", {"set/mIoU": float("nan"), "set/pACC": None}, {"set": {"split": "val"}})
    report = write_report([nothing, undefined], tmp_path / "out")
    page = Parsed((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert not [number for number in page.numbers if number != number]
    assert not re.search(r"\bnan\b", (tmp_path / "out/report.md").read_text(encoding="utf-8"), re.IGNORECASE)
    alone = write_report([nothing], tmp_path / "alone")
    assert alone.tables == []
    assert any("no numbers to compare" in note for note in alone.notes)
    assert len(report.rows) == 2


def test_awkward_names_are_text(write_run: Write, tmp_path: Path) -> None:
    arguments = []
    for number, name in enumerate(AWKWARD):
        history = [{"loss": 1.0, "accuracy": 0.5}] * 2
        folder = write_run(f"r{number}", {f"{name}/top1": 1.0}, {name: {"split": name}}, history=history, command=name)
        arguments.append(f"{name}={folder}" if "=" not in name else folder)
    write_report(arguments, tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    page = Parsed(text)
    assert page.tags["script"] == 0
    assert " onclick=" not in text.replace("a&#34; onclick=", "")
    assert "{{ 7 * 7 }}" in text
    assert page.unscoped == []
    markdown = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "<script>" not in markdown
    check_markdown(markdown)


def test_a_choice_on_the_reported_images_is_marked(write_run: Write, tmp_path: Path) -> None:
    protocol = {"set": {"split": "val"}}
    write_run("plain", {"set/top1": 1.0}, protocol)
    write_run("chosen", {"set/top1": 2.0}, protocol, config="SELECT_ON_TEST: true\n")
    report = write_report([tmp_path], tmp_path / "out")
    assert [column.difference for column in report.columns] == [
        "best checkpoint chosen on the reported images",
        "selection not stated",
    ]
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "Checkpoints chosen on the very images that are reported: chosen." in text
        assert "†" in text


def test_the_mark_stands_where_differences_are_too(write_run: Write, tmp_path: Path) -> None:
    config = "MODEL:\n  NAME: ViT-B-16-quickgelu\n  PRETRAINED: openai\nSELECT_ON_TEST: true\n"
    words = {"split": "test", "metric": "top-1 over all images (micro)", "images": 8_100, "candidates": 10}
    words["source"] = "eurosat, published split"
    write_report([write_run("chosen", {"eurosat/top1": 50.0}, {"eurosat": words}, config=config)], tmp_path / "out")
    assert "| chosen † − POMP |  | −2.1 |" in (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert ">chosen † − POMP</th>" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_files_that_were_not_read_are_reported(write_run: Write, tmp_path: Path) -> None:
    write_run("many/ours", {"set/top1": 1.0}, {"set": {"split": "val"}})
    (tmp_path / "many/x.json").write_text('{"a": ')
    report = write_report([tmp_path / "many"], tmp_path / "out")
    assert any("Could not be read, and left out" in note and "x.json" in note for note in report.notes)
    for name in ("report.html", "report.md"):
        assert "x.json" in (tmp_path / "out" / name).read_text(encoding="utf-8")


def test_markdown_cells_hold_no_markup() -> None:
    assert plain("a|b\\c\n<i>*d*`e`[f]") == r"a\|b\\c &lt;i&gt;\*d\*\`e\`\[f\]"
    assert markdown_table(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"


def test_nothing_is_written_when_something_is_wrong(
    write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run("run", {"set/top1": 1.0}, {"set": {"split": "val"}})
    for wrong in ([folder, tmp_path / "absent"], [folder, folder]):
        with pytest.raises(UserError):
            write_report(wrong, tmp_path / "out")
    with pytest.raises(UserError, match="no row is called"):
        write_report([folder], tmp_path / "out", baseline="none")

    def fail(*_: object) -> str:
        raise RuntimeError("broken")

    monkeypatch.setattr("pomp_lab.report.build.render_html", fail)
    with pytest.raises(RuntimeError):
        write_report([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_matplotlib_is_reported(write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    folder = write_run("run", {"set/top1": 1.0})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install -e \"\.\[demo\]\""):
        write_report([folder], tmp_path / "out")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page in")
@pytest.mark.parametrize("width", [500, 1300])
def test_page_in_a_browser(all_kinds: Path, tmp_path: Path, width: int) -> None:
    assert CHROMIUM is not None
    report = write_report([all_kinds], tmp_path / "out")
    # The page itself reports what it holds, after layout; the copy differs from the page by this script alone.
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => { document.title = JSON.stringify({
        tables: document.querySelectorAll("table").length,
        figures: [...document.images].filter(i => i.naturalWidth && i.offsetWidth > 300 && i.offsetHeight > 100).length,
        requests: performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length,
        wider: document.documentElement.scrollWidth > innerWidth }); });</script>"""
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", probe + "</body>"), encoding="utf-8")
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    quiet += ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [CHROMIUM, *quiet, "--enable-logging=stderr", f"--window-size={width},900", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    measured = json.loads(re.search(r"<title>(.*?)</title>", done.stdout).group(1))  # type: ignore[union-attr]
    figures = sum(map(len, report.plots.values()))
    assert measured == {"tables": len(report.tables) + 2 + 12, "figures": figures, "requests": 0, "wider": False}
    assert "CONSOLE" not in done.stderr
