"""What a file of a run may be replaced by: strategies of bytes by its suffix, and things that are no file."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st

from . import hostile

# What a command must not do: where it does, the file is there.
TOUCHED = "touched_by_a_file"


class _Touch:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch ../../{TOUCHED}",)


@st.composite
def tensors_changed(draw: st.DrawFn, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Named tensors, one to three of which are of other values, shapes or types, missing or under other names."""
    state = dict(state)
    for _ in range(draw(st.integers(1, 3))):
        if not state:
            break
        name = draw(st.sampled_from(sorted(state)))
        how = draw(st.sampled_from(["nan", "infinite", "shape", "empty", "dtype", "remove", "rename", "huge"]))
        tensor = state.pop(name).clone()
        if how in ("nan", "infinite", "huge") and tensor.is_floating_point() and tensor.numel():
            tensor.view(-1)[0] = {"nan": torch.nan, "infinite": torch.inf, "huge": 1e30}[how]
        elif how == "shape":
            tensor = torch.cat([tensor.flatten(), tensor.new_zeros(3)])
        elif how == "empty":
            tensor = tensor.flatten()[:0]
        elif how == "dtype":
            tensor = tensor.to(draw(st.sampled_from([torch.float64, torch.int8, torch.complex64, torch.bool])))
        if how != "remove":
            state[draw(hostile.texts) if how == "rename" else name] = tensor
    return state


@st.composite
def safetensors_files(draw: st.DrawFn, whole: bytes) -> bytes:
    """Tensors of other values, shapes and names, hostile metadata, headers that claim much, damaged bytes."""
    from safetensors import safe_open
    from safetensors.torch import load, save

    how = draw(st.sampled_from(["tensors", "metadata", "header", "damaged"]))
    if how == "damaged":
        return draw(hostile.damaged(whole))
    if how == "header":
        length = draw(st.sampled_from([0, 1, len(whole), 2**40, 2**64 - 1]))
        header = draw(st.one_of(st.sampled_from(hostile.ODD_JSON), hostile.values.map(hostile.as_json)))
        return struct.pack("<Q", draw(st.sampled_from([length, len(header)]))) + header
    length = struct.unpack("<Q", whole[:8])[0]
    metadata = json.loads(whole[8 : 8 + length]).get("__metadata__") or {}
    state = load(whole)
    assert safe_open is not None
    if how == "tensors":
        state = draw(tensors_changed(state))
        state = {name: value.contiguous() for name, value in state.items() if value.dtype != torch.complex64}
    elif metadata:
        name = draw(st.sampled_from(sorted(metadata)))
        try:
            document = json.loads(metadata[name])
        except ValueError:
            document = metadata[name]
        changed = (
            draw(hostile.changed(document)) if isinstance(document, dict | list) and document else draw(hostile.values)
        )
        metadata[name] = draw(st.sampled_from([json.dumps(changed), str(changed), ""]))
    clean = {
        key.encode("utf-8", "replace").decode(): value.encode("utf-8", "replace").decode()
        for key, value in metadata.items()
    }
    names = {key.encode("utf-8", "replace").decode(): value for key, value in state.items()}
    names.pop("__metadata__", None)
    return save(names, clean or None)


@st.composite
def torch_files(draw: st.DrawFn, whole: bytes) -> bytes:
    """Checkpoints: with tensors of other values, other documents, pickles that call, damaged bytes."""
    how = draw(st.sampled_from(["tensors", "document", "call", "pickle", "damaged", "damaged", "other"]))
    if how == "damaged":
        return draw(hostile.damaged(whole))
    if how == "other":
        return draw(
            st.sampled_from(
                [b"", b"PK\x03\x04", b"\x80\x02.", b"\x80\x04N.", b"text", b"\x1f\x8b\x08", *hostile.ODD_JSON]
            )
        )
    document = _checkpoint(whole)
    if how == "pickle":
        content = draw(
            st.sampled_from([_Touch(), {"model": _Touch()}, {"state_dict": {"ctx": _Touch()}}, [1], {"model": 3}])
        )
        return pickle.dumps(content, protocol=draw(st.sampled_from([2, 4])))
    if how == "tensors":
        inner = next((key for key in ("model", "state_dict") if isinstance(document.get(key), dict)), None)
        if inner is None:
            inner = next((key for key, value in document.items() if isinstance(value, dict) and value), None)
        if inner is not None:
            kept = {key: value for key, value in document[inner].items() if isinstance(value, torch.Tensor)}
            others = {key: value for key, value in document[inner].items() if key not in kept}
            document = {**document, inner: {**others, **draw(tensors_changed(kept))}} if kept else document
    elif how == "document":
        document = draw(hostile.changed(document)) if document else {}
    else:
        document = {**document, draw(st.sampled_from(["model", "extra", "iteration", "optimizer"])): _Touch()}
    stream = io.BytesIO()
    torch.save(document, stream, _use_new_zipfile_serialization=draw(st.booleans()))
    return stream.getvalue()


def _checkpoint(whole: bytes) -> dict[str, Any]:
    """The document of a checkpoint that this project wrote, sealed or not."""
    loaded = torch.load(io.BytesIO(whole), weights_only=False)
    return loaded if isinstance(loaded, dict) else {"state_dict": loaded}


@st.composite
def lines_of_json(draw: st.DrawFn, whole: bytes) -> bytes:
    """A log with one hostile line."""
    lines = whole.splitlines() or [b"{}"]
    place = draw(st.integers(0, len(lines) - 1))
    try:
        document = json.loads(lines[place])
    except ValueError:
        document = {}
    lines[place] = draw(hostile.json_files(document))
    return b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"]))


@st.composite
def yaml_like(draw: st.DrawFn, whole: bytes) -> bytes:
    """A configuration with other values, hostile YAML, or damaged bytes."""
    how = draw(st.sampled_from(["changed", "changed", "damaged", "odd", "appended"]))
    if how == "changed":
        document = yaml.safe_load(whole)
        changed = draw(hostile.changed(document)) if isinstance(document, dict) and document else document
        return yaml.dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass")
    if how == "appended":
        return whole + b"\n" + draw(st.sampled_from(hostile.ODD_YAML))
    return draw(hostile.damaged(whole)) if how == "damaged" else draw(st.sampled_from(hostile.ODD_YAML))


def files_like(name: str, whole: bytes) -> tuple[str, st.SearchStrategy[bytes]]:
    """The kind of a file by its name, and what it may be replaced by."""
    suffix = Path(name).suffix.lower()
    if suffix == ".json":
        return "json", hostile.json_files(json.loads(whole))
    if suffix in (".yaml", ".yml"):
        return "yaml", yaml_like(whole)
    if suffix == ".jsonl":
        return "jsonl", lines_of_json(whole)
    if suffix == ".safetensors":
        return "safetensors", safetensors_files(whole)
    if suffix in (".pth", ".pt") or name.endswith(".pth.tar"):
        return "checkpoint", torch_files(whole)
    if suffix == ".npy":
        return "npy", st.one_of(hostile.npy_files(), hostile.damaged(whole))
    if suffix in (".png", ".jpg", ".jpeg"):
        return "photo", st.one_of(hostile.photos(), hostile.damaged(whole))
    if suffix == ".tar":
        return "tar", st.one_of(hostile.tar_files(), hostile.damaged(whole))
    if suffix == ".zip":
        return "zip", st.one_of(hostile.zip_files(), hostile.damaged(whole))
    if suffix in (".csv", ".tsv"):
        return "csv", hostile.csv_files(whole) if b"," in whole else hostile.damaged(whole)
    if suffix == ".mat":
        return "mat", hostile.damaged(whole)
    if suffix in (".txt", ".py", ""):
        return "text", st.one_of(hostile.text_files, hostile.damaged(whole), text_lines(whole))
    return "bytes", hostile.damaged(whole)


@st.composite
def text_lines(draw: st.DrawFn, whole: bytes) -> bytes:
    """A text with one line repeated, lengthened or replaced."""
    lines = whole.split(b"\n")
    place = draw(st.integers(0, len(lines) - 1))
    text = draw(hostile.texts).encode("utf-8", "surrogatepass")
    how = draw(st.sampled_from(["replace", "append", "repeat", "insert"]))
    if how == "repeat":
        lines.insert(place, lines[place])
    elif how == "insert":
        lines.insert(place, text)
    else:
        lines[place] = text if how == "replace" else lines[place] + b" " + text
    return b"\n".join(lines)


# What may stand in the place of a file, and is none: how it is made.
NO_FILES = ("absent", "empty", "folder", "dangling link", "link to itself", "endless", "pipe")


def put_no_file(path: Path, what: str) -> None:
    """Put something of :data:`NO_FILES` in the place of a file."""
    path.unlink()
    if what == "empty":
        path.touch()
    elif what == "folder":
        path.mkdir()
    elif what == "dangling link":
        path.symlink_to("nowhere")
    elif what == "link to itself":
        path.symlink_to(path.name)
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "pipe":
        os.mkfifo(path)
