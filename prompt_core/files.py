"""Files: written under a temporary name and renamed, so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_core.documents.json_files import decode_json
from prompt_core.documents.json_files import read_json as read_json
from prompt_core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it into place on success, delete it on any error.

    Raises:
        UserError: when the folder cannot be created or written, or ``path`` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"cannot write {target}: it is a folder, a file path was expected")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=f".tmp{target.suffix}", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; choose a writable output path") from error
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Prove that a file can be written at ``path`` before any long work starts; an existing file is not changed.

    Raises:
        UserError: when it cannot.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"cannot write {target}: it is a folder, a file path was expected")
    make_output_folder(target.parent)


def make_output_folder(path: str | os.PathLike[str]) -> Path:
    """Create an output folder and prove that it can be written before any long work starts.

    Raises:
        UserError: when it cannot be created or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose a writable --output") from error
    return folder


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def plain_value(value: Any) -> Any:
    """For ``json.dumps(default=...)``: numbers of NumPy and torch as plain ones, anything else as text."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", 0) == 0 else str(value)


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hexadecimal sha256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all data sets: ``root``, else the environment variable ``POMP_DATA``, else ``datasets``."""
    return Path(root if root is not None else os.environ.get("POMP_DATA") or "datasets")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file; values of the metadata that are JSON are decoded.

    Raises:
        UserError: when it is absent, truncated or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            notes = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} could not be read ({error}); it may be truncated") from error
    metadata: dict[str, Any] = {}
    for key, value in notes.items():
        try:
            metadata[key] = decode_json(value.encode(), key)
        except ValueError:
            metadata[key] = value
    return tensors, metadata


def resolve_path(path: str | Path) -> Path:
    """``path``; if it starts with ``datasets/`` and ``POMP_DATA`` is set, the path below that."""
    path, root = Path(path).expanduser(), os.environ.get("POMP_DATA")
    if root and not path.is_absolute() and path.parts[:1] == ("datasets",):
        return Path(root).joinpath(*path.parts[1:])
    return path
