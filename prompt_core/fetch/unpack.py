"""Unpacking a zip archive: every member stays below the folder, and files appear whole."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible

# Files of an archive (COCO's photos: 118,287), and how much larger they may be than the archive (JSON: about 10 times).
MEMBERS, RATIO = 10_000_000, 200


def check_member(info: zipfile.ZipInfo) -> None:
    """Refuse archive members that would land outside the folder they are unpacked into.

    Raises:
        UserError: on an absolute path, a drive letter, a backslash, a ``..`` part or a symbolic link.
    """
    # zipfile cuts names at a NUL byte and turns the system's separator into a slash; the raw name is what counts.
    name = info.orig_filename
    parts = name.split("/")
    symbolic_link = (info.external_attr >> 16) & 0o170000 == 0o120000
    if not name or name.startswith("/") or ".." in parts or re.search(r"[\\:\0]", name) or symbolic_link:
        shown = shortened(name, 200)
        raise UserError(f"the archive holds {shown}, which would be written outside its folder; it was refused")


def unpack_zip(archive: Path, folder: Path) -> int:
    """Write the files of an archive below ``folder``; files that are there already stay as they are.

    They are first written next to it, each with its checksum compared, and then renamed into place.

    Returns:
        How many files the archive has.

    Raises:
        UserError: a member outside the folder, sizes that no archive has, a damaged or encrypted archive, too little
            space. Nothing is written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            for info in members:
                check_member(info)
            files = [info for info in members if not info.is_dir()]
            needed, free = sum(info.file_size for info in files), shutil.disk_usage(archive.parent).free
            if len(files) > MEMBERS or needed > RATIO * archive.stat().st_size:
                raise UserError(
                    f"{archive} claims {len(files):,} files of {needed:,} bytes, far more than an archive of its size "
                    "holds; it was refused"
                )
            if needed > free:
                raise UserError(f"{folder} has {free:,} bytes free, {archive.name} unpacks to {needed:,}")
            folder.mkdir(parents=True, exist_ok=True)
            _move_out(opened, files, folder, folder / f".{archive.name}.unpacking")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{archive} cannot be unpacked into {folder}: {error.strerror or error}") from error
    except Exception as error:  # of a damaged archive: BadZipFile, zlib.error, EOFError, UnicodeDecodeError, …
        reason = visible(" ".join(str(error).split())[:200])
        raise UserError(f"{archive} cannot be unpacked ({reason}); delete it and fetch it again") from error
    return len(files)


def _move_out(opened: zipfile.ZipFile, files: list[zipfile.ZipInfo], folder: Path, passage: Path) -> None:
    """Write all files to ``passage``, which a killed process may have left, and move them from there."""
    shutil.rmtree(passage, ignore_errors=True)
    try:
        for info in files:
            opened.extract(info, passage)
        for info in files:
            target = folder / info.filename
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                (passage / info.filename).replace(target)
    finally:
        shutil.rmtree(passage, ignore_errors=True)
