"""The model zoo page: what each configuration file is, how to run it, and its measured and published numbers.

The page is generated from the files themselves: head comments of ``configs``, results files in ``docs/results``,
published tables. ``assets/zoo.json`` maps configuration files to published rows.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pomp_engine.yaml_files import read_yaml
from pomp_lab.report.columns import ordered_columns
from pomp_lab.report.published import load_published
from pomp_lab.report.results import Run, read_runs
from pomp_lab.report.rows import Row
from prompt_core.documents.yaml_with_bases import load_yaml
from prompt_core.errors import UserError, nearest
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.files import read_sealed_json

TASKS = ("classification", "detection", "segmentation")
_VERBS = {"classification": "classify", "detection": "detect", "segmentation": "segment"}
RESULTS = "docs/results"
# The metrics that the page shows of a data set, and their labels.
METRICS = {"top1": "top-1", "box_AP": "box AP", "box_APr": "box APr", "mask_AP": "mask AP", "mask_APr": "mask APr"}
METRICS |= {"hIoU": "hIoU", "mIoU-seen": "seen mIoU", "mIoU-unseen": "unseen mIoU", "mIoU": "mIoU"}
_INTRODUCTION = """\
# Model zoo

<!-- Written by tools/model_zoo.py; edit the head comments of the configurations, docs/results or the tool instead. -->

Every runnable configuration, with its commands and its numbers. The page is generated from the files themselves:
`python tools/model_zoo.py --output docs/model_zoo.md`.

- **measured here**: with these commands, or as the line says; the results file has seed, versions and protocol.
- **published**: by others, with their code; the source is named. Whether this file reproduces the number has not been
  measured, unless a measured number stands next to it. In percent.
- **not yet measured**: the configuration loads, and what it builds is tested on small data; nothing more is known.

Weights are not shipped, except for the embedded `mini`. {count} configurations: {measured} measured here, {published}
with published numbers, {neither} with neither.
"""


@dataclass(frozen=True)
class Configuration:
    """One YAML file below ``configs``.

    Attributes:
        name: path below the repository, with ``/``.
        settings: what the file sets and inherits.
        head: the comment at its top, without the ``#`` marks.
        only_tested: whether it takes a trained model and sets no data to train on.
    """

    name: str
    settings: dict[str, Any]
    head: str
    only_tested: bool = False

    @property
    def task(self) -> str:
        """One of :data:`TASKS`, by the keys that only that task has."""
        model = self.settings.get("MODEL", {})
        if "SEM_SEG_HEAD" in model or "CLIP_ADAPTER" in model:
            return "segmentation"
        return "detection" if "ROI_HEADS" in model else "classification"

    @property
    def small(self) -> bool:
        """Whether it is for a laptop: ``mini`` is a word of such a path."""
        return "mini" in re.split(r"[/_.]", self.name)

    @property
    def runnable(self) -> bool:
        """Whether it can be run: files called base, or without data, are only inherited from."""
        words = Path(self.name).stem.split("_")
        sets = self.settings.get("DATASETS", {})
        data = [self.settings.get("DATA", {}).get("TRAIN"), sets.get("TRAIN"), sets.get("TEST")]
        return "base" not in (words[0], words[-1]) and any(data)

    @property
    def about(self) -> str:
        """The first sentence of the head comment.

        Raises:
            UserError: where there is none.
        """
        lines = [line.strip() for line in self.head.splitlines()]
        text = " ".join(line for line in lines if line and not line.startswith(("python ", "--")))
        if not text:
            raise UserError(f"{self.name} does not begin with a comment that says what it is; write one")
        # A full stop ends the sentence where a capital follows, also after a quotation mark or a bracket.
        sentence = re.match(r"(.*?[^.\s][.:]?[\")]*\.[\")]*)\s+(?=[A-Z\"`])", text)
        return sentence.group(1) if sentence else text


def read_configurations(root: Path) -> dict[str, Configuration]:
    """All files below ``root/configs`` by name, in sorted order.

    Raises:
        UserError: when there are none, or one cannot be read.
    """
    files = {}
    for path in sorted((root / "configs").rglob("*.yaml")):
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        try:
            written, settings = load_yaml(text, name), read_yaml(path)
        except UserError as error:
            raise UserError(f"{name} cannot be read: {error}") from error
        comment = re.match(r"(#.*\n)*", text)
        sets, weights = written.get("DATASETS", {}), written.get("MODEL", {}).get("WEIGHTS")
        only_tested = "TEST" in sets and "TRAIN" not in sets and weights is not None
        head = re.sub(r"(?m)^#", "", comment.group() if comment else "")
        files[name] = Configuration(name, settings, head, only_tested)
    if not files:
        raise UserError(f"no configuration below {root / 'configs'}; give the folder of the repository")
    return files


def commands(file: Configuration, files: Mapping[str, Configuration], root: Path) -> list[str]:
    """The commands that run a file, in order: those of its head comment.

    Where none of them names the file, they only prepare it; then follow the commands in the docstring of the tool that
    the comment (or the comment of a file that it mentions) names, or else the command of the task's own tool.
    """
    lines = _commands_in(file.head)
    if any(f"{file.name} " in f"{line} " for line in lines):
        return lines
    heads = [file.head, *(other.head for other in files.values() if Path(other.name).name in file.head)]
    if tools := re.findall(r"(?<!python )\btools/\w+\.py\b", "\n".join(heads)):
        return lines + _commands_in(ast.get_docstring(ast.parse((root / tools[0]).read_text(encoding="utf-8"))) or "")
    if file.task == "classification":
        return [*lines, f"python tools/pretrain_prompt.py --config {file.name} --output runs/{Path(file.name).stem}"]
    processes = "--num-gpus 0 --num-processes 2" if file.small else "--num-gpus 8"
    return [*lines, f"python tools/train_net.py --config {file.name} {processes}" + " --eval-only" * file.only_tested]


def _commands_in(text: str) -> list[str]:
    """Lines of a text that begin with ``python``; lines that a backslash continues are joined."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [re.sub(r" {2,}", " ", line.strip()) for line in joined.splitlines() if line.strip().startswith("python ")]


def measured(root: Path, files: Mapping[str, Configuration]) -> dict[str, list[str]]:
    """Lines of numbers by configuration, from the results files in ``root/docs/results``; means over seeds.

    Raises:
        UserError: for results that cannot be read, and rows of ``assets/zoo.json`` that do not exist.
    """
    rows: dict[tuple[str, str], list[Run]] = {}
    for path in sorted((root / RESULTS).glob("*.json")):
        document = read_sealed_json(path)
        # Benchmarks of costs are not results of configurations.
        for run in read_runs(path, document, path.stem) if isinstance(document.get("runs"), dict) else ():
            rows.setdefault((path.relative_to(root).as_posix(), run.label), []).append(run)
    notes = {}
    for entry in load_mapping()["measured"] if rows else ():
        _known(entry["row"], {row for file, row in rows if file == entry["file"]}, f"row of {entry['file']}")
        notes[entry["file"], entry["row"]] = entry
    lines: dict[str, list[str]] = {}
    for (file, label), runs in rows.items():
        note = notes.get((file, label), {})
        name = str(note.get("configuration", runs[0].about.get("config_file")))
        numbers = _numbers(Row(0, label, tuple(runs), {}))
        if name in files and numbers:
            overrides = re.search(r"(?<=\s)[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+[ =].*", str(runs[0].about.get("command")))
            how = [f"with `{overrides.group()}`"] if overrides else []
            how += [note["note"]] if note else []
            how += [ON_REPORTED] if any(run.selected_on_test for run in runs) else []
            seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
            text = f"**measured here** ({label}{seeds}): {'; '.join([*numbers, *how])}"
            lines.setdefault(name, []).append(f"{text} ([{Path(file).name}]({{{file}}}))")
    return lines


def _numbers(row: Row) -> list[str]:
    """The means of a row, a text for each data set."""
    texts: dict[str, list[str]] = {}
    for column in ordered_columns(row.means):
        if column.metric in METRICS and (mean := row.defined(column)):
            texts.setdefault(column.dataset, []).append(
                f"{METRICS[column.metric]} {mean.text(column.metric, row.seeds)}"
            )
    return [f"`{dataset}` {', '.join(numbers)}" for dataset, numbers in texts.items()]


def published(files: Mapping[str, Configuration]) -> dict[str, list[str]]:
    """Lines of published numbers by configuration, as ``assets/zoo.json`` maps them.

    Raises:
        UserError: for a configuration, table, row or column that does not exist.
    """
    tables = {table.name: table for table in load_published()}
    lines: dict[str, list[str]] = {}
    for entry in load_mapping()["published"]:
        table = tables[_known(entry["table"], tables, "published table")]
        rows = dict(table.rows)
        values = rows[_known(entry["row"], rows, f"row of {table.name!r}")]
        of_row = {c.heading: v for c, v in zip(table.columns, values, strict=True) if math.isfinite(v)}
        numbers = []
        for beginning in entry["columns"]:
            matching = [heading for heading in of_row if f"{heading} ".startswith(f"{beginning} ")]
            matching = matching or [_known(beginning, of_row, f"number in row {entry['row']!r} of {table.name!r}")]
            numbers += [f"{heading} {of_row[heading]:.1f}" for heading in matching]
        note = f"; {entry['note']}" if "note" in entry else ""
        text = f"**published** ({entry['row']}): {', '.join(numbers)}{note} ({table.name}: {table.source})"
        for name in entry["configurations"]:
            lines.setdefault(_known(name, files, "configuration"), []).append(text)
    return lines


def load_mapping() -> dict[str, Any]:
    """``assets/zoo.json``: which published row and which result belong to a configuration."""
    text = (resources.files("pomp_lab") / "assets" / "zoo.json").read_text(encoding="utf-8")
    mapping: dict[str, Any] = json.loads(text)
    return mapping


def _known(name: str, known: Iterable[str], kind: str) -> str:
    if name not in known:
        raise UserError(f"no {kind} is called {name!r}{nearest(name, known)}; correct pomp_lab/assets/zoo.json")
    return name


def zoo_entries(root: Path) -> dict[str, dict[str, Any]]:
    """What an installed package says of its configurations, by their names without ``configs/`` and ending.

    Args:
        root: the repository.

    Raises:
        UserError: as :func:`zoo_page`.
    """
    files = read_configurations(root)
    ours, theirs = measured(root, files), published(files)
    entries = {}
    for name, file in files.items():
        weights = str(file.settings.get("MODEL", {}).get("WEIGHTS", ""))
        embedded = weights.startswith(f"package://pomp_{'det' if file.task == 'detection' else 'seg'}/")
        entries[name.removeprefix("configs/").removesuffix(".yaml")] = {
            "task": _VERBS[file.task],
            "about": file.about if file.runnable or embedded else "a base of others",
            "weights": weights,
            "measured": [_plain(text) for text in ours.get(name, [])],
            "published": [_plain(text) for text in theirs.get(name, [])],
            "runnable": file.runnable or embedded,
        }
    return entries


def _plain(text: str) -> str:
    """A line of the page without bold marks and links."""
    return re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text.replace("**", ""))


def zoo_page(root: Path, folder: Path) -> str:
    """The page as it would stand in ``folder``.

    Args:
        root: the repository.

    Raises:
        UserError: for files that cannot be read, and mappings to what does not exist.
    """
    files = read_configurations(root)
    ours, theirs = measured(root, files), published(files)
    runs = {name: file for name, file in files.items() if file.runnable}
    text = _INTRODUCTION.format(
        count=len(runs),
        measured=len(runs.keys() & ours.keys()),
        published=len(runs.keys() & theirs.keys()),
        neither=len(runs.keys() - ours.keys() - theirs.keys()),
    )
    for task, small in itertools.product(TASKS, (False, True)):
        rows = []
        for name, file in runs.items():
            if (file.task, file.small) == (task, small):
                how = "<br>".join(f"`{command}`" for command in commands(file, files, root))
                numbers = "<br>".join([*ours.get(name, []), *theirs.get(name, [])]) or "not yet measured"
                cells = [_link(name), file.about, how, numbers]
                rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
        if rows:
            text += f"\n## {task.capitalize()}{' on a laptop' * small}\n\n"
            text += "| configuration | what | commands | numbers |\n|---|---|---|---|\n" + "".join(rows)
    if inherited := [_link(name) for name in files if name not in runs]:
        text += f"\n## Bases\n\nOther configurations inherit from these; they cannot be run: {', '.join(inherited)}.\n"
    return re.sub(
        r"\]\(\{(.*?)\}\)", lambda link: f"]({Path(os.path.relpath(root / link[1], folder)).as_posix()})", text
    )


def _link(name: str) -> str:
    return f"[`{name.removeprefix('configs/').removesuffix('.yaml')}`]({{{name}}})"
