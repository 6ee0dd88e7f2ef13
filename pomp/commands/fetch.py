"""Fetch published files: class matrices, backbones, prompts, checkpoints, annotations.

    python tools/fetch.py lvis_v1_clip_pomp+cname.npy
    python tools/fetch.py lvis --root /data
    python tools/fetch.py --list lvis prompts

A name is that of a file, its path as configurations write it, or a group. A download that was broken off goes on where
it stopped. What is there already is compared and never replaced. docs/published_files.md lists every file.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from prompt_core.command_line import ArgumentParser, print_table
from prompt_core.data.check import MISSING
from prompt_core.data.check_published import check_file
from prompt_core.errors import UserError
from prompt_core.fetch.advice import other_ways, size_text
from prompt_core.fetch.bring import bring
from prompt_core.fetch.connection import Unreachable
from prompt_core.fetch.documentation import published_page
from prompt_core.fetch.download import Progress
from prompt_core.fetch.places import Places
from prompt_core.fetch.published_files import PublishedFile, groups, optional_for, published_files, select_files
from prompt_core.files import data_root, write_text
from prompt_core.visible import say


def show(files: list[PublishedFile], places: Places) -> None:
    """One row for each file: what it is, whether it is there, and where."""
    from rich.table import Column, Table

    # names and places are there to be copied: folded, not cut
    columns = (Column("name", overflow="fold"), "state", "size", "licence", Column("place", overflow="fold"), "what")
    table = Table(*columns, box=None)
    for file in files:
        finding = check_file(
            "", file, places, absent="by hand" if file.page else "absent" if file.fetchable else "built"
        )
        size = size_text(file.size) if file.fetchable else ""
        cells = (file.name, finding.state, size, file.licence or "", str(finding.path), file.what)
        table.add_row(*cells)
    print_table(table)


@contextlib.contextmanager
def progress_of_bytes(name: str) -> Iterator[Progress]:
    """A bar of bytes on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def fetch(files: list[PublishedFile], places: Places, named: set[str]) -> list[str]:
    """Bring each file and print what was done; what went wrong with some of them.

    Args:
        named: names that were asked for as such; of a group's other files, those that are only built are mentioned.

    Raises:
        Unreachable: at once, since the next one would wait as long.
    """
    wrong = []
    for file in files:
        if not file.fetchable and file.name not in named and check_file("", file, places).state == MISSING:
            say(f"{file.path}: not published; {other_ways(file, places)}")
            continue
        try:
            with progress_of_bytes(file.name) as progress:
                done = bring(file, places, progress=progress)
        except Unreachable:
            raise
        except UserError as error:
            wrong.append(str(error))
            continue
        for path in done.paths:
            say(f"{path}: {done.what}")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """List, or fetch."""
    parser = ArgumentParser(
        description=__doc__,
        epilog=f"groups: {', '.join(groups())}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a file, its path in a configuration, or a group")
    parser.add_argument("--list", action="store_true", help="show the files (all, or those named) and fetch nothing")
    parser.add_argument("--root", metavar="DIR", help="data root (default: POMP_DATA, else datasets)")
    parser.add_argument("--models", metavar="DIR", default="models", help="folder of checkpoints (default: models)")
    parser.add_argument("--write-page", metavar="FILE", help="write docs/published_files.md")
    values = parser.parse_args(arguments)
    places = Places(data_root(values.root), Path(values.models))
    if values.write_page:
        write_text(values.write_page, published_page(published_files()))
        return 0
    if values.list:
        show(select_files(values.names) if values.names else list(published_files()), places)
        return 0
    if not values.names:
        raise UserError(f"name a file or a group ({', '.join(groups())}), or give --list")
    files = select_files(values.names)
    in_groups = set(values.names) & set(groups())
    wrong = fetch(files, places, {file.name for file in select_files(set(values.names) - in_groups)})
    for group in sorted(in_groups):
        left_out = [file.name for file in optional_for(group) if file not in files]
        if left_out:
            say(f"{group} can do without, and these were left: {', '.join(left_out)}")
    for text in wrong[:-1]:
        say(f"error: {text}", error=True)
    if wrong:
        raise UserError(wrong[-1])
    return 0
