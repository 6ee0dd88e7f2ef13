"""Hypothesis strategies of what comes from outside, by kind: plain, damaged, and made to do harm.

Each strategy gives the bytes of a file. A reader that is given them either succeeds or raises a :class:`UserError`:
:func:`success_or_one_line` says so for a call.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from prompt_core.errors import UserError

CONTROLS = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\nb",
    "tab\there",
    "\r",
    "\x00",
    "\x9b2J",
    "\u202egnp.exe",
    "\u2028",
]
MARKUP = [
    "[red]x[/red]",
    "[/]",
    "[link=file:///etc]x[/link]",
    ":smile:",
    "<script>alert(1)</script>",
    "${{}}",
    "{0}",
    "%s%n",
]
PATHS = [
    "..",
    "../a.jpg",
    "/etc/passwd",
    "C:\\a.jpg",
    "a\\..\\b.jpg",
    "//host/share/a.jpg",
    "a/../../b.jpg",
    "a\x00.jpg",
    "",
    ".",
]
NUMBERS: list[Any] = [0, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -0.0, float("nan"), float("inf"), True]

texts = st.one_of(
    st.text(max_size=12), st.sampled_from([*CONTROLS, *MARKUP, *PATHS, "é" * 300, "a" * 5000, "👩\u200d🚀", "שלום"])
)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from(NUMBERS))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def success_or_one_line(call: Callable[[], Any]) -> Any:
    """The result of ``call``, or None where it raised a one-line :class:`UserError`; any other error passes."""
    try:
        return call()
    except UserError as error:
        message = " ".join(str(error).split())
        assert message
        assert len(message) < 2000
        return None


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """A document with one to three of its parts replaced, removed or repeated."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        place = document
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
            if isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 3)):
                place = place[key]
                continue
            how = draw(st.sampled_from(["replace", "replace", "remove", "repeat"]))
            if how == "remove":
                del place[key]
            elif how == "repeat" and isinstance(place, list):
                place.append(copy.deepcopy(place[key]))
            else:
                place[key] = draw(values)
            break
    return document


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file that was cut, or in which a few bytes are others."""
    if draw(st.booleans()):
        return content[: draw(st.integers(0, len(content)))]
    changed_bytes = bytearray(content)
    for _ in range(draw(st.integers(1, 8)) if content else 0):
        changed_bytes[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(changed_bytes)


def as_json(value: Any) -> bytes:
    """JSON with NaN and lone surrogates as Python writes them."""
    return json.dumps(value).encode()


ODD_JSON = [
    b"",
    b"\xef\xbb\xbf[]",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 10_000,
    b"1e999",
    b"NaN",
    b'"\\ud800"',
    b"\xff",
    b'{"a": 1, "a": 2}',
    b"[1,]",
    b'["\x00"]',
    b"-" * 50,
]


def json_files(document: Any) -> st.SearchStrategy[bytes]:
    """A JSON document with faults in its values, in its bytes, or of its own kind."""
    whole = as_json(document)
    return st.one_of(
        changed(document).map(as_json), damaged(whole), st.sampled_from([whole, *ODD_JSON]), values.map(as_json)
    )


VOCABULARY = {
    "names": ["cat", "hot dog"],
    "ids": [1, 2],
    "synonyms": [["kitty"], []],
    "frequency": ["r", "f"],
    "source": "me",
}
CATEGORIES = {"categories": [{"id": 2, "name": "dog", "synonyms": ["hound"]}, {"id": 1, "name": "cat", "synonyms": []}]}
ANNOTATIONS = {
    "images": [
        {
            "id": 1,
            "width": 8,
            "height": 6,
            "file_name": "a.png",
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [],
        },
        {
            "id": 2,
            "width": 8,
            "height": 6,
            "file_name": "b.png",
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [1],
        },
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [1, 1, 4, 3],
            "area": 12.0,
            "iscrowd": 0,
            "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]],
        },
        {
            "id": 2,
            "image_id": 2,
            "category_id": 2,
            "bbox": [0.5, 0, 2, 2],
            "area": 4.0,
            "iscrowd": 0,
            "segmentation": {"size": [6, 8], "counts": [0, 2, 46]},
        },
    ],
    "categories": [
        {"id": 1, "name": "cat", "frequency": "f", "synset": "cat.n.01", "synonyms": ["cat"]},
        {"id": 2, "name": "dog", "frequency": "r", "synset": "dog.n.01", "synonyms": ["dog"]},
    ],
}
METRICS = {
    "coco/box_AP": 41.5,
    "_run": {"seed": 1, "config": {"A": 1}, "device": "cpu"},
    "_protocol": {"coco": {"split": "val", "metric": "AP", "scorer": "hotcoco 1.3"}},
}
SPLIT = {"train": [["a/1.png", 0, "cat"]], "val": [["a/2.png", 0, "cat"]], "test": [["b/1.png", 1, "dog"]]}
CSV = b"id,name,synonyms,frequency\n1,cat,kitty|puss,f\n2,hot dog,,r\n"
YAML = b"SEED: 1\nOPTIM: &o {LR: 0.1, EPOCHS: 2}\nPROMPT: {N_CTX: 4}\nDATA:\n  SHOTS: 16\n"

vocabulary_files = st.one_of(json_files(VOCABULARY), json_files(CATEGORIES), json_files(["cat", "dog"]))
annotation_files = json_files(ANNOTATIONS)
metrics_files = json_files(METRICS)
split_files = json_files(SPLIT)
text_files = st.one_of(
    st.lists(texts, max_size=5).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")),
    damaged(b"cat\nhot dog\n"),
)


@st.composite
def csv_files(draw: st.DrawFn, table: bytes = CSV) -> bytes:
    """A table with hostile cells, rows of other lengths, open quotes, or damaged bytes."""
    if draw(st.booleans()):
        return draw(damaged(table))
    header, *rows = [line.split(",") for line in table.decode().splitlines()]
    for row in rows:
        row[draw(st.integers(0, len(row) - 1))] = draw(texts)
        if draw(st.booleans()):
            row.insert(draw(st.integers(0, len(row))), draw(texts))
    return "\n".join(",".join(row) for row in [header, *rows]).encode("utf-8", "surrogatepass")


def laughs(levels: int, width: int, merge: bool = False) -> bytes:
    """Aliases of aliases: ``width ** levels`` values in a few lines."""
    start = "a0: &a0 {x: 1}\n" if merge else "a0: &a0 [x]\n"
    line = "a{1}: &a{1} {{<<: [{0}]}}\n" if merge else "a{1}: &a{1} [{0}]\n"
    lines = [line.format(", ".join([f"*a{level - 1}"] * width), level) for level in range(1, levels + 1)]
    return (start + "".join(lines)).encode()


ODD_YAML = [
    laughs(9, 9),
    laughs(9, 9, merge=True),
    laughs(60, 1),
    b"a: &a [*a]\n",
    b"a: &a {b: *a}\n",
    b"[" * 20_000,
    b"a: " + b"1" * 5000,
    b"a: " + b"1:1" * 3000,
    b"!!python/object/apply:os.system ['true']",
    b"a: !!python/object/apply:eval ['9**9**9']",
    b"_BASE_: own.yaml",
    b"_BASE_: [own.yaml, own.yaml]",
    b"a: !!timestamp x",
    b"a: !!int x",
    b"a: !!binary x",
    b"? [a]\n: 1",
    b"a: 2024-13-45",
    b"\x00",
    b"\xff\xfe",
    b"- 1",
    b"",
    b"a: *b",
    b"--- 1\n--- 2",
    b"%TAG ! x",
    b"a:\n\t- 1",
    b"<<: 1",
    b"1: 2",
    b"a: !!set {b, c}",
    b"_BASE_: /dev/zero",
    b"_BASE_: {}",
]
yaml_files = st.one_of(
    damaged(YAML), st.sampled_from(ODD_YAML), texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
)


def photo_bytes(mode: str, format: str, size: tuple[int, int] = (8, 6), **options: Any) -> bytes:
    """A small photo in a file."""
    stream = io.BytesIO()
    Image.new(mode, size, 7 if mode in ("I;16", "I", "F", "L", "P", "1") else None).save(stream, format, **options)
    return stream.getvalue()


def claimed_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


PHOTO_KINDS = [
    ("RGB", "JPEG"),
    ("L", "JPEG"),
    ("CMYK", "JPEG"),
    ("RGBA", "PNG"),
    ("LA", "PNG"),
    ("P", "PNG"),
    ("1", "PNG"),
    ("I;16", "PNG"),
    ("I;16", "TIFF"),
    ("F", "TIFF"),
    ("I", "TIFF"),
    ("RGB", "WEBP"),
    ("P", "GIF"),
    ("RGB", "BMP"),
    ("RGB", "PPM"),
]


@st.composite
def photos(draw: st.DrawFn) -> bytes:
    """Photos of every mode and format, damaged ones, and headers that claim much."""
    if draw(st.integers(0, 3)) == 0:
        sides = st.sampled_from([0, 1, 100_000, 60_000, 2**31 - 1])
        return claimed_png(draw(sides), draw(sides))
    whole = photo_bytes(*draw(st.sampled_from(PHOTO_KINDS)))
    return draw(damaged(whole)) if draw(st.booleans()) else whole


_MEMBER_TYPES = [
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    tarfile.DIRTYPE,
    tarfile.GNUTYPE_SPARSE,
]


@st.composite
def tar_files(draw: st.DrawFn) -> bytes:
    """Archives with names that lead out, links, devices, sizes that lie, and damaged bytes."""
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    ) as archive:
        for number in range(draw(st.integers(0, 4))):
            name = draw(st.one_of(st.just(f"{number}.png"), st.just(f"{number}.cls"), st.just(f"{number}.json"), texts))
            member = tarfile.TarInfo(name.encode("utf-8", "replace").decode() or "x")
            member.type = draw(st.sampled_from([tarfile.REGTYPE, *_MEMBER_TYPES]))
            member.linkname = draw(st.sampled_from(["", "../../etc/passwd", "/etc/passwd", "0.png"]))
            content = draw(
                st.sampled_from([b"0", b"9" * 9000, b"", photo_bytes("RGB", "PNG"), b'{"label": 1}', ODD_JSON[2]])
            )
            member.size = len(content) if member.type == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    whole = stream.getvalue()
    return draw(damaged(whole)) if draw(st.booleans()) else whole


@st.composite
def zip_files(draw: st.DrawFn) -> bytes:
    """Zip archives with names that lead out, links, much zeros in few bytes, and damaged bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(draw(st.integers(0, 3))):
            info = zipfile.ZipInfo(
                draw(st.one_of(st.just(f"{number}.txt"), texts)).encode("utf-8", "replace").decode() or "x"
            )
            info.external_attr = draw(st.sampled_from([0, 0o120777 << 16, 0o020777 << 16]))
            archive.writestr(info, draw(st.sampled_from([b"", b"text", b"\0" * 200_000])), zipfile.ZIP_DEFLATED)
    whole = stream.getvalue()
    return draw(damaged(whole)) if draw(st.booleans()) else whole


def claimed_npy(header: str, content: bytes = b"") -> bytes:
    """A .npy file with a header of one's own."""
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + content


@st.composite
def npy_files(draw: st.DrawFn) -> bytes:
    """Arrays, damaged ones, and headers that claim terabytes, objects, or nothing that makes sense."""
    kind = draw(st.sampled_from(["<f4", "<f8", "|O", "<U5", "<i8", "|V0", "<f2", "x", "[('a', '<f4')]"]))
    shape = draw(
        st.sampled_from(["(2, 3)", "(1000000000000, 8)", "(0, 3)", "(-1, 3)", "()", "(2,)", "(2**62, 4)", "x"])
    )
    stream = io.BytesIO()
    np.save(stream, np.arange(6, dtype=np.float32).reshape(2, 3))
    claimed = claimed_npy(f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}", b"\0" * 24)
    return draw(st.one_of(st.just(stream.getvalue()), damaged(stream.getvalue()), st.just(claimed)))
