"""Where an entry of the feature cache is made: kept for the next run when this one stops, published by one rename."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from prompt_core.data.encode_photos import InVain
from prompt_core.data.feature_blocks import JOURNAL
from prompt_core.errors import UserError
from prompt_core.runs.lock import alone_in
from prompt_core.temporary_files import flush_folder, new_temporary_folder


def part_of(entry: Path) -> Path:
    """Where a run that is stopped leaves what it made of an entry."""
    return entry.with_name(f"{entry.name}.part")


@contextlib.contextmanager
def workshop_of(entry: Path) -> Iterator[Path]:
    """A folder next to ``entry`` to make it in: what a stopped run left, or a temporary one while another run has that.

    It is gone afterwards, but what is left by an error is kept for the next run, unless that would be in vain.

    Raises:
        UserError: when it cannot be written.
    """
    part = part_of(entry)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(alone_in(part, again=False))
            workshop = part
        except UserError:
            with _named(entry):
                workshop = new_temporary_folder(entry)
        kept = False
        try:
            with _named(entry):
                yield workshop
        except BaseException as error:
            kept = workshop == part and _has_blocks(part) and not isinstance(error, InVain)
            raise
        finally:
            if not kept:
                for name in (JOURNAL, "entry"):
                    _remove(workshop / name)
                held.close()
                _remove(workshop)


@contextlib.contextmanager
def _named(entry: Path) -> Iterator[None]:
    """Say where the system refuses to write."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the feature cache {entry.parent}: {error.strerror or error}; "
            "free space or choose another folder"
        ) from error


def _has_blocks(workshop: Path) -> bool:
    journal = workshop / JOURNAL
    return journal.exists() and journal.stat().st_size > 0


def publish(made: Path, entry: Path, is_complete: Callable[[], bool]) -> None:
    """Rename a whole entry to its place, unless another run was faster."""
    for last in (False, True):
        try:
            made.rename(entry)
        except OSError:
            if is_complete():
                return
            if last:
                raise
            shutil.rmtree(entry, ignore_errors=True)  # a damaged entry is in the way
        else:
            flush_folder(entry.parent)
            return


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
