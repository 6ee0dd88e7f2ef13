"""How to get a published file, as a person is told."""

from __future__ import annotations

import shlex
from pathlib import Path

from prompt_core.fetch.places import Places
from prompt_core.fetch.published_files import PublishedFile, find_file
from prompt_core.files import data_root
from prompt_core.lazy import command_here


def how_to_get(file: PublishedFile, places: Places) -> str:
    """The command that fetches a file, and that which builds it where there is one."""
    if not file.fetchable:
        return command_here(" && ".join(map(places.command, file.build))) or other_ways(file, places)
    command = command_here(f"python tools/fetch.py {shlex.quote(file.name)}")
    if file.path.startswith("datasets/") and places.data != data_root():
        command += f" --root {shlex.quote(str(places.data))}"
    elif file.path.startswith("models/") and places.models != Path("models"):
        command += f" --models {shlex.quote(str(places.models))}"
    otherwise = other_ways(file, places) if file.page or file.build else ""
    return f"{command} ({size_text(file.size)})" + (f"; or {otherwise}" if otherwise else "")


def other_ways(file: PublishedFile, places: Places) -> str:
    """How to get a file without ``tools/fetch.py``."""
    ways = []
    if file.page is not None:
        ways.append(f"open {file.page} in a browser and save the file as {places.path_of(file.path)}")
    if file.build:
        ways.append(f"build it: {command_here(' && '.join(map(places.command, file.build)))}")
    if file.note and not ways:
        ways.append(file.note)
    return "; or ".join(ways) or "nothing is known of it but its name"


def where_from(path: str | Path) -> str:
    """``; get it: COMMAND`` for the path of a published file that is absent, else an empty text; ends an error."""
    file = find_file(str(path))
    return f"; get it: {how_to_get(file, Places(data_root()))}" if file is not None else ""


def size_text(size: int | None) -> str:
    """``1.2 MB``, or ``size unknown``."""
    if size is None:
        return "size unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
