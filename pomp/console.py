"""The command ``pomp``: which words it knows, and the module that answers each."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Any

from prompt_core.errors import UserError, nearest, run_command
from prompt_core.visible import say


@dataclass(frozen=True)
class Command:
    """A word after ``pomp``.

    Attributes:
        module: has ``main() -> int | None``, which reads ``sys.argv``. By name, for two reasons: what the other words
            need is not loaded, and experiments (``pomp_lab``) stay above this package.
        summary: one line of ``pomp --help``.
    """

    module: str
    summary: str


COMMANDS = {
    "classify": Command("pomp.commands.classify", "name photos by your words, or none of these"),
    "detect": Command("pomp.commands.detect", "find things by your words: boxes and masks"),
    "segment": Command("pomp.commands.segment", "give each pixel one of your words"),
    "import": Command("pomp.commands.import_corrections", "read corrections made in another tool"),
    "learn": Command("pomp.commands.learn", "learn a prompt from corrected photos or boxes"),
    "thresholds": Command("pomp.commands.thresholds", "the threshold of each word for a wanted precision"),
    "train": Command("pomp.commands.train", "fine-tune the detector on a COCO file"),
    "export": Command("pomp.commands.export", "class matrices, ONNX and torch.export"),
    "app": Command("pomp.commands.app", "the web page, on this machine"),
    "demo": Command("pomp.commands.demo", "the whole loop on the photos of the package"),
    "models": Command("pomp.commands.models", "models and configurations by name"),
    "fetch": Command("pomp.commands.fetch", "fetch published files"),
    "check": Command("pomp.commands.check", "check data sets"),
    "doctor": Command("pomp.commands.doctor", "what is installed, what is missing"),
    "evaluate": Command("pomp.commands.evaluate", "score a prompt or a method on image sets"),
    "report": Command("pomp_lab.report.report_command", "tables of runs beside the published numbers"),
    "reproduce": Command("pomp_lab.tables.reproduce", "reproduce a table of the paper"),
}


def pomp() -> None:
    """The console command; ends the process."""
    run_command(dispatch)


def dispatch(arguments: list[str] | None = None) -> int:
    """Run the command that ``arguments`` (default: those of the process) begin with; returns the exit code.

    Raises:
        UserError: without a known command.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        say(_usage())
        return 0
    if given[0] == "--version":
        from pomp import __version__

        say(__version__)
        return 0
    name, *rest = given
    if name not in COMMANDS:
        raise UserError(f"{name!r} is not a command of pomp{nearest(name, tuple(COMMANDS))}; see pomp --help")
    module: Any = importlib.import_module(COMMANDS[name].module)
    before = sys.argv
    sys.argv = [f"pomp {name}", *rest]  # parsers call themselves by the first
    try:
        return int(module.main() or 0)
    finally:
        sys.argv = before


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {command.summary}" for name, command in COMMANDS.items()]
    head = ["Photos and words in; names, boxes and masks out, on this machine.", "", "usage: pomp COMMAND …", ""]
    return "\n".join([*head, *lines, "", "pomp COMMAND --help tells its options."])
