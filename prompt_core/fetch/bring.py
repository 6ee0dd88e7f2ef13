"""One published file to its place: downloaded, unpacked or converted, and compared with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prompt_core.errors import UserError
from prompt_core.fetch.advice import other_ways, size_text
from prompt_core.fetch.connection import Limits, Unreachable
from prompt_core.fetch.convert_backbone import convert_backbone
from prompt_core.fetch.download import Expected, Progress, download
from prompt_core.fetch.fetched_record import record_path, remember, remembered_sha256
from prompt_core.fetch.partial_file import forget_part
from prompt_core.fetch.places import Places
from prompt_core.fetch.published_files import PublishedFile, select_files
from prompt_core.fetch.unpack import unpack_zip
from prompt_core.files import sha256_of_file


@dataclass(frozen=True)
class Brought:
    """A file that is there now.

    Attributes:
        paths: it, or what it unpacked to.
        what: what was done, for a person.
    """

    paths: tuple[Path, ...]
    what: str


def bring(
    file: PublishedFile, places: Places, limits: Limits | None = None, progress: Progress | None = None
) -> Brought:
    """Fetch a file unless it is there; what is there is compared and never replaced.

    Raises:
        Unreachable: no server answers.
        UserError: it cannot be fetched (the text says how else to get it), or is another file than expected.
    """
    target = places.path_of(file.path)
    # An archive that is still there was not unpacked to its end.
    if file.unpacks and not target.is_file() and all(has_content(places.path_of(path)) for path in file.unpacks):
        return Brought(tuple(map(places.path_of, file.unpacks)), "unpacked already")
    if target.is_file():
        done = compare(file, target)
        forget_part(target)
    elif file.made_from is not None:
        return _convert(file, target, places, limits, progress)
    elif file.address is None:
        raise UserError(f"{file.name} cannot be fetched: {other_ways(file, places)}")
    else:
        done = _download(file, target, places, limits, progress)
    if not file.unpacks:
        return Brought((target,), done)
    try:
        unpack_zip(target, target.parent)
    except UserError:
        if file.sha256 is None:  # a damaged archive is not to be trusted
            record_path(target).unlink(missing_ok=True)
        raise
    products = tuple(map(places.path_of, file.unpacks))
    if absent := [path for path in products if not has_content(path)]:
        raise UserError(f"{target} was unpacked and gave no {absent[0]}; it is another archive than expected")
    target.unlink()
    return Brought(products, f"{done}, unpacked")


def compare(file: PublishedFile, path: Path) -> str:
    """Compare a file that is there with the published checksum, else with the one written down when it was fetched.

    Without either, its checksum is written down now.

    Returns:
        What was compared.

    Raises:
        UserError: when it is another file.
    """
    if file.made_from is not None:
        return "there already"
    remembered = None if file.sha256 else remembered_sha256(path)
    known = file.sha256 or remembered
    digest = sha256_of_file(path)
    if known is None:
        if file.size is not None and path.stat().st_size != file.size:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, the published file {file.size:,}; move it away")
        remember(path, None, path.stat().st_size, digest)
        return f"there already; its sha256 is written down in {record_path(path).name}"
    if digest != known:
        which = (
            f"was {known} when it was fetched ({record_path(path).name})" if remembered else f"is published as {known}"
        )
        built = "; it may have been built here" if file.build else ""
        raise UserError(f"{path} has sha256 {digest}, which {which}{built}; move it away to fetch it again")
    return "there already, unchanged since it was fetched" if remembered else "there already, as published"


def has_content(path: Path) -> bool:
    """Whether there is a file, or a folder that is not empty."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _download(
    file: PublishedFile, target: Path, places: Places, limits: Limits | None, progress: Progress | None
) -> str:
    assert file.address is not None
    remembered = None if file.sha256 else remembered_sha256(target)
    try:
        digest = download(
            file.address, target, Expected(file.size, file.sha256 or remembered), limits=limits, progress=progress
        )
    except Unreachable:
        raise
    except UserError as error:
        hints = [f"to take another file than before, delete {record_path(target)}"] if remembered is not None else []
        hints += [other_ways(file, places)] if file.page is not None or file.build else []
        raise UserError("; ".join([str(error), *hints])) from error
    size = target.stat().st_size
    if file.sha256 is not None:
        return f"fetched, {size_text(size)}, as published"
    if remembered is None:
        remember(target, file.address, size, digest)
        return (
            f"fetched, {size_text(size)}; nobody publishes its sha256, it is written down in {record_path(target).name}"
        )
    return f"fetched, {size_text(size)}, the same as before"


def _convert(
    file: PublishedFile, target: Path, places: Places, limits: Limits | None, progress: Progress | None
) -> Brought:
    assert file.made_from is not None
    [source] = select_files([file.made_from])
    before = bring(source, places, limits, progress)
    count = convert_backbone(before.paths[0], target)
    return Brought((target,), f"{count} arrays of {PurePosixPath(source.path).name} ({before.what})")
