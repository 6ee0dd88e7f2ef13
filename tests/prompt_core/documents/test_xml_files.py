"""XML from outside: piece by piece, bounded, without document types."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from prompt_core.documents.xml_files import DEPTH, elements, read_xml, root_name, sayable
from prompt_core.errors import UserError


def test_elements_come_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    part = "<image name='ключ &amp; a'><box x='1'/>text</image>"
    path.write_text(f"<?xml version='1.0'?><all><meta>m</meta>{part * 3}</all>", encoding="utf-8")
    found = list(elements(path, 1))
    assert [element.tag for element in found] == ["meta", "image", "image", "image"]
    assert found[3].get("name") == "ключ & a"
    assert found[3].find("box").get("x") == "1"  # type: ignore[union-attr]
    assert read_xml(path).findtext("meta") == "m"
    assert root_name(path) == "all"


def test_memory_holds_one_element(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(f"<all>{'<image><box/><box/><box/></image>' * 4_000}</all>", encoding="utf-8")
    tracemalloc.start()
    try:
        count = sum(1 for _ in elements(path, 1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 4_000
    assert peak < 1_500_000  # the elements of all images take 8 MB


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!DOCTYPE a><a/>", "document type"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "document type"),
        ("<!DOCTYPE a SYSTEM 'http://localhost:9/a.dtd'><a/>", "document type"),
        ("<a>&undefined;</a>", "not valid XML"),
        ("<a>" * (DEPTH + 1), "levels of nesting"),
        ("<a><b></a>", "not valid XML"),
        ("", "not valid XML"),
        ("no markup", "not valid XML"),
    ],
)
def test_what_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_xml(tmp_path / "a.xml")


def test_signs_that_no_document_can_hold() -> None:
    assert sayable("a\tb 犬 🐕") == "a\tb 犬 🐕"
    assert sayable("a\x01\x1b\ufffe\ud800") == "a\\x01\\x1b\\ufffe\\ud800"
