"""Files: written under a temporary name and renamed, so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_core.documents.bounds import ANNOTATION_BYTES
from prompt_core.documents.json_files import decode_json
from prompt_core.documents.json_files import read_json as read_json
from prompt_core.documents.sealed_json import opened, sealed
from prompt_core.documents.sealed_tensors import SEAL, is_damaged, sealed_tensors
from prompt_core.errors import UserError
from prompt_core.temporary_files import failed_write, flush_folder, flush_to_disk, new_temporary, remove_abandoned

if TYPE_CHECKING:
    from torch import Tensor


_swept: set[str] = set()  # folders in which this process has looked for files of killed runs


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], durable: bool = False, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it into place on success, delete it on any error.

    Temporary files that killed processes left in the folder are deleted.

    Args:
        durable: for what took long to make. The bytes are on the disk before the rename, and the rename before this
            ends, so that a power failure leaves the earlier file or this one; about 20 ms on a disk.
        size: bytes of the whole file, if known, to say how much space is missing.

    Raises:
        UserError: when the folder cannot be created or written, ``path`` is a folder, or the disk is full.
    """
    target = _file_to_write(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_temporary(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; choose a writable output path") from error
    try:
        _sweep_once(target.parent, temporary)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        if durable:
            flush_to_disk(temporary)
        temporary.replace(target)
    except UserError:
        raise
    except Exception as error:
        failed = failed_write(target, temporary, error, size)
        if failed is None:
            raise
        raise failed from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    if durable:
        flush_folder(target.parent)


def _sweep_once(folder: Path, new: Path) -> None:
    place = str(folder.resolve())
    if place not in _swept:
        _swept.add(place)
        remove_abandoned(folder, new.stat().st_mtime)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Prove that a file can be written at ``path`` before any long work starts; an existing file is not changed.

    Raises:
        UserError: when it cannot.
    """
    make_output_folder(_file_to_write(path).parent)


def _file_to_write(path: str | os.PathLike[str]) -> Path:
    """A path where nothing is, or a file.

    A rename onto a device would put a file in its place, for all processes: root may do that to ``/dev/null``.

    Raises:
        UserError: for a folder, a pipe or a device.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"cannot write {target}: it is a folder, a file path was expected")
    if target.exists() and not target.is_file():
        raise UserError(f"cannot write {target}: it is a pipe or a device, a file path was expected")
    return target


def make_output_folder(path: str | os.PathLike[str]) -> Path:
    """Create an output folder and prove that it can be written before any long work starts.

    Temporary files that killed processes left there are deleted.

    Raises:
        UserError: when it cannot be created or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as new:
            remove_abandoned(folder, os.fstat(new.fileno()).st_mtime)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose a writable --output") from error
    return folder


def write_text(path: str | os.PathLike[str], text: str, durable: bool = False) -> None:
    """Write ``text`` as UTF-8 through :func:`atomic_path`."""
    content = text.encode("utf-8")
    with atomic_path(path, durable, len(content)) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike[str], value: Any, durable: bool = False) -> None:
    """Write ``value`` as indented JSON through :func:`atomic_path`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", durable)


def write_sealed_json(path: str | os.PathLike[str], document: Mapping[str, Any], durable: bool = False) -> None:
    """Write what will be read back: :func:`write_json` with a seal (:mod:`prompt_core.documents.sealed_json`)."""
    write_json(path, sealed(document), durable)


def read_sealed_json(path: str | os.PathLike[str], limit: int = ANNOTATION_BYTES) -> Any:
    """Read what :func:`write_sealed_json` wrote, or any other JSON; without the seal.

    Raises:
        UserError: as :func:`read_json`, and when a document is not what its seal says.
    """
    return opened(read_json(path, limit), path)


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


def hash_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add tensors to a digest: names in order, shapes, types and bytes of values."""
    import torch

    for key, value in sorted(tensors.items()):
        digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all data sets: ``root``, else the environment variable ``POMP_DATA``, else ``datasets``."""
    return Path(root if root is not None else os.environ.get("POMP_DATA") or "datasets")


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write tensors, each contiguous on the CPU, with ``notes`` as metadata in JSON; atomic, durable and sealed."""
    from safetensors.torch import save

    metadata = {key: json.dumps(value, default=plain_value) for key, value in notes.items()}
    # save_file writes to a file of its own, which a kill would leave
    content = sealed_tensors(save(dict(tensors), metadata))
    with atomic_path(path, durable=True, size=len(content)) as temporary:
        temporary.write_bytes(content)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file; values of the metadata that are JSON are decoded.

    Raises:
        UserError: when it is absent, truncated, of another format, or not what its seal says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if is_damaged(path):
            raise ValueError("its content does not fit its checksum")
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            notes = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} could not be read ({error}); it may be truncated or damaged") from error
    metadata: dict[str, Any] = {}
    notes.pop(SEAL, None)
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
