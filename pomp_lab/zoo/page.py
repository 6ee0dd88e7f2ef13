"""The page in Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pomp_lab.zoo.configurations import FOLDER, TASKS, ConfigurationFile, bases, commands, read_configurations
from pomp_lab.zoo.measured import RESULTS, Measured, measured
from pomp_lab.zoo.published import Published, load_mapping, published

NOT_MEASURED = "not yet measured"
_HEAD = "| configuration | what | commands | numbers |\n|---|---|---|---|\n"
_INTRODUCTION = """\
# Model zoo

<!-- Written by tools/model_zoo.py; edit the head comments of the configurations, docs/results or the tool instead. -->

Every configuration that is run, with its commands and the numbers that there are of it. The page is made from the files
themselves: `python tools/model_zoo.py --output docs/model_zoo.md`.

- **measured here**: by these commands, or as the line says; the result file says seed, versions and protocol.
- **published**: by others, with their code; the source is named. That the file gives the same is not measured, unless a
  number beside it says so. In percent.
- **not yet measured**: it loads, and what it builds is tested on small data; nothing more is known.

Weights are not shipped, but for the embedded `mini`. {count} configurations: {measured} measured here, {published} with
published numbers, {neither} with neither.
"""


def zoo_page(root: Path, folder: Path) -> str:
    """The page as it would stand in ``folder``.

    Args:
        root: the repository.

    Raises:
        UserError: for files that cannot be read, and mappings to what is not there.
    """
    files = read_configurations(root)
    mapping = load_mapping()
    inherited = bases(files)
    runs = [file for name, file in files.items() if name not in inherited]
    numbers = measured(root, files, mapping["tables"])
    others = published(files, mapping["published"])
    link = _Links(root, folder)
    known = [name for name in (file.name for file in runs) if name in numbers or name in others]
    text = _INTRODUCTION.format(
        count=len(runs),
        measured=sum(file.name in numbers for file in runs),
        published=sum(file.name in others for file in runs),
        neither=len(runs) - len(known),
    )
    for task in TASKS:
        for small, title in ((False, ""), (True, " on a laptop")):
            chosen = [file for file in runs if file.task == task and file.small == small]
            if chosen:
                text += f"\n## {task.capitalize()}{title}\n\n{_HEAD}"
            for file in chosen:
                status = [link.measured(each) for each in numbers.get(file.name, [])]
                status += [_published(each) for each in others.get(file.name, [])]
                lines = "<br>".join(f"`{each}`" for each in commands(file, files))
                cells = (link.file(file), file.about, lines, "<br>".join(status) or NOT_MEASURED)
                text += f"| {' | '.join(map(_cell, cells))} |\n"
    if inherited:
        text += "\n## What others inherit from\n\nNot run by themselves: "
        text += ", ".join(link.file(files[name]) for name in sorted(inherited)) + ".\n"
    return text


class _Links:
    """Links from the page's folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder

    def to(self, name: str) -> str:
        return Path(os.path.relpath(self.root / name, self.folder)).as_posix()

    def file(self, file: ConfigurationFile) -> str:
        return f"[`{file.name.removeprefix(f'{FOLDER}/').removesuffix('.yaml')}`]({self.to(file.name)})"

    def measured(self, each: Measured) -> str:
        runs = f", {each.seeds} seeds" if each.seeds > 1 else ""
        row = f" ({each.row}{runs})" if each.row else runs
        differs = [f"with `{each.settings}`"] if each.settings else []
        differs += [each.note] if each.note else []
        numbers = "; ".join(_numbers(data, parts) for data, parts in each.numbers)
        how = f"; {'; '.join(differs)}" if differs else ""
        file = f"[{each.file.removeprefix(f'{RESULTS}/')}]({self.to(each.file)})"
        return f"**measured here**{row}: {numbers}{how} ({file})"


def _numbers(data: str, parts: Iterable[tuple[str, str]]) -> str:
    text = ", ".join(f"{metric} {number}" for metric, number in parts)
    return f"`{data}` {text}" if data else text


def _published(each: Published) -> str:
    numbers = ", ".join(f"{heading} {number:.1f}" for heading, number in each.numbers)
    note = f"; {each.note}" if each.note else ""
    return f"**published** ({each.row}): {numbers}{note} ({each.table}: {each.source})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
