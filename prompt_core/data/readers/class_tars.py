"""ImageNet-21K's archives, read in place: the tar of per-class tars, a folder of class tars, or shards.

``winter21_whole.tar`` holds ``winter21_whole/n01440764.tar``, which holds ``n01440764_10026.JPEG``. A photo is a piece
of the outer file; nothing is unpacked.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from prompt_core.data.photo_files import is_file, is_folder, is_photo_name
from prompt_core.data.photo_index import Archive, ArchivePhotos, PhotoIndex, photo_index
from prompt_core.data.readers.folder import WNID
from prompt_core.data.readers.webdataset import expand_shards
from prompt_core.data.tar_members import GZIP, tar_members
from prompt_core.errors import UserError
from prompt_core.visible import visible, visible_path
from prompt_core.vocabulary import Vocabulary

# ImageNet names all of its photos so, whatever an archive has made of them.
_PHOTO = re.compile(r"(n\d{8}_\d+)\.\w+", re.ASCII)
NAME_BYTES = 200  # of an index; a file system takes 255


def archive_files(text: str) -> list[Path]:
    """The archives of a file, a folder of ``.tar`` files, or a pattern of shards (:func:`expand_shards`).

    Raises:
        UserError: when there are none.
    """
    path = Path(text)
    if is_folder(path):
        files = sorted(path.glob("*.tar")) or sorted(path.glob("*.tar.gz"))
        if not files:
            raise UserError(f"no archives in {path}: expected winter21_whole.tar, n01440764.tar or shards")
        return files
    return expand_shards(text)


def class_tar_index(text: str, files: Sequence[Path]) -> PhotoIndex:
    """The index of archives, next to them; it is built at the first call.

    Args:
        text: what the user gave, by which the index is named.
        files: the archives that it stands for.

    Raises:
        UserError: when there is no photo of ImageNet-21K, or the index cannot be written.
    """
    return photo_index(
        index_folder(text, files), files, functools.partial(archives_in, files), functools.partial(read_archive, files)
    )


def index_folder(text: str, files: Sequence[Path]) -> Path:
    """Where the index is: ``winter21_whole.tar.index`` for that file, ``class_tars.index`` in a folder."""
    name = "class_tars" if is_folder(Path(text)) else re.sub(r"[^\w.-]+", "_", Path(text).name)
    if len(name.encode()) > NAME_BYTES:
        name = f"{name[:20]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return files[0].parent / f"{name}.index"


def archives_in(files: Sequence[Path], faults: list[str]) -> Iterator[Archive]:
    """The archives that hold photos: members of the files that are archives, or the files themselves.

    Args:
        faults: takes a line for each thing that is wrong with a file.

    Raises:
        UserError: when the system cannot read a file.
    """
    for number, path in enumerate(files):
        nested = False
        try:
            for member, _ in tar_members(path):
                name = member.name.rpartition("/")[2]
                if name.endswith(".tar") and not name.startswith("."):
                    nested = True
                    yield Archive(visible(name), number, member.offset_data, member.size)
                elif is_photo_name(name):
                    if not nested:
                        yield Archive(visible(path.name), number, 0, path.stat().st_size)
                        break
                    faults.append(f"{visible_path(path)}: {visible_path(member.name)} is in no class tar; left out")
        except UserError as error:
            if isinstance(error.__cause__, OSError):
                raise
            faults.append(str(error))


def read_archive(files: Sequence[Path], archive: Archive) -> ArchivePhotos:
    """The photos of an archive with their wnids: that of ``n01440764.tar``, else of ``n01440764_1.jpg`` or its folder.

    Raises:
        UserError: when the system cannot read the file.
    """
    part = ArchivePhotos(archive, [], [], [], [])
    own, path = archive.name.partition(".")[0], files[archive.file]
    inner = archive.size != path.stat().st_size
    shown = visible_path(archive.name)
    unknown: set[str] = set()
    try:
        for member, _ in tar_members(path, f"{shown} in" if inner else "archive", archive.start, archive.size):
            folder, _, name = member.name.rpartition("/")
            wnid = next(filter(WNID.fullmatch, (own, name.partition("_")[0], folder.rpartition("/")[2])), None)
            if not is_photo_name(name):
                part.others += 1
                if own == wnid:
                    part.faults.append(f"{shown}: {visible_path(member.name)} is no photo; left out")
            elif wnid is None or wnid not in synsets() or not name.isprintable():
                unknown.add(visible_path(name) if wnid is None or wnid in synsets() else wnid)
            else:
                exact = _PHOTO.fullmatch(name)
                part.names.append(f"{exact[1]}.JPEG" if exact else name)
                part.classes.append(wnid)
                part.offsets.append(archive.start + member.offset_data)
                part.sizes.append(member.size)
    except UserError as error:
        if isinstance(error.__cause__, OSError):
            raise
        part.faults.append(f"{error}; {len(part.names):,} photos before that are used")
    part.faults += [f"{shown}: {name}: no synset of ImageNet-21K; left out" for name in sorted(unknown)]
    return part


@functools.cache
def synsets() -> frozenset[str]:
    """The 21,843 wnids of ImageNet-21K, and n04399382, which only ImageNet-1K has."""
    return frozenset(str(wnid) for name in ("imagenet21k", "imagenet1k") for wnid in Vocabulary.load(name).ids or ())


@functools.cache
def processed_wnids() -> tuple[str, ...]:
    """The 10,450 wnids of the processed winter-21 release, sorted, as timm lists them.

    Raises:
        UserError: when this timm has no such list.
    """
    from importlib import resources

    try:
        file = resources.files("timm.data") / "_info" / "imagenet21k_miil_w21_synsets.txt"
        return tuple(sorted(file.read_text(encoding="utf-8").split()))
    except OSError as error:
        raise UserError("timm has no list of ImageNet-21K's processed classes; pip install --upgrade timm") from error


def holds_class_tars(path: Path) -> bool:
    """Whether a file is the tar of class tars, by its first member; or its name says so, and gzip has compressed it."""
    if not is_file(path):
        return False
    try:
        with open(path, "rb") as stream:
            if stream.read(2) == GZIP:
                return path.name.endswith((".tar.gz", ".tgz"))
        first = next((member.name for member, _ in tar_members(path)), "")
    except (OSError, UserError):
        return False
    return WNID.fullmatch(os.path.basename(first).removesuffix(".tar")) is not None and first.endswith(".tar")  # noqa: PTH119


def has_archives(text: str) -> bool:
    """Whether a text names archives: a file, a pattern of shards, or a folder with ``.tar`` files."""
    path = Path(text)
    return is_file(path) or glob.has_magic(text) or "{" in text or (is_folder(path) and any(path.glob("*.tar*")))
