"""What all command line tools share: ``--config``, ``--output``, trailing overrides, Ctrl-C, progress and tables."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_core.errors import UserError
from prompt_core.files import write_text
from prompt_core.ranges import Range
from prompt_core.runs.signals import ENDING, handling
from prompt_core.visible import plain_console, shortened, visible

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode
    from rich.table import Table

    from prompt_core.clip import Clip
    from prompt_core.methods.base import Method
    from prompt_core.prompt import SoftPrompt
    from prompt_core.towers.origin import Origin


_WIDEST = 100_000  # characters of a line; what is written to a file or a pipe is not folded before


class ArgumentParser(argparse.ArgumentParser):
    """argparse, with its errors reported in one line like all others."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """One line and exit code 2, through :func:`prompt_core.errors.run_command`."""
        raise UserError(f"{message}; see {self.prog} --help")


def config_parser(description: str | None, output: str = "folder for what the run writes") -> ArgumentParser:
    """A parser with ``--config`` (alias ``--config-file``), ``--output`` and trailing ``KEY VALUE`` overrides."""
    parser = ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", "--config-file", metavar="FILE", help="YAML configuration")
    parser.add_argument("--output", metavar="PATH", help=output)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="configuration overrides")
    return parser


def parse_with_overrides(parser: ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse options and overrides in any order; an unknown option is an error, not an override."""
    return parser.parse_intermixed_args(arguments)


def whole_number(allowed: Range) -> Callable[[str], int]:
    """A type of :mod:`argparse`: whole numbers of a range."""
    return lambda text: _number_within(text, int, "a whole number", allowed)


def real_number(allowed: Range) -> Callable[[str], float]:
    """A type of :mod:`argparse`: numbers of a range, which are finite."""
    return lambda text: _number_within(text, float, "a number", allowed)


def _number_within(text: str, kind: Callable[[str], Any], name: str, allowed: Range) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = None
    if not allowed.holds(number):
        raise argparse.ArgumentTypeError(f"{name}, {allowed}, is expected, given {shortened(text)}")
    return number


def add_subject_arguments(parser: ArgumentParser) -> None:
    """``--prompt`` or ``--template``, and the CLIP that reads them."""
    parser.add_argument("--prompt", metavar="FILE", help="prompt.safetensors, a published .pth.tar or its folder, mini")
    parser.add_argument("--template", action="append", default=[], help="hand-written template with {}; may repeat")
    parser.add_argument("--clip", help="architecture (default: what the prompt was learned with, else MODEL.NAME)")
    parser.add_argument("--pretrained", help="weights of --clip: a tag or a file")
    parser.add_argument("--random-weights", action="store_true", help="go on without such weights, to try things out")


def resolve_subject(arguments: argparse.Namespace) -> tuple[CfgNode, SoftPrompt | list[str]]:
    """The configuration with the CLIP filled in, and the prompt or templates.

    Raises:
        UserError: unless exactly one of ``--prompt`` and ``--template`` is given.
    """
    from prompt_core.config import load_config
    from prompt_core.prompt import SoftPrompt
    from prompt_core.towers.origin import stated_origin

    if bool(arguments.prompt) == bool(arguments.template):
        raise UserError("give either --prompt FILE or one or more --template TEXT")
    cfg = load_config(arguments.config, arguments.overrides).clone()
    cfg.defrost()
    subject = SoftPrompt.load(arguments.prompt) if arguments.prompt else arguments.template
    _fill_clip_in(cfg, arguments, stated_origin(subject.metadata) if arguments.prompt else None)
    return cfg, subject


def resolve_method(arguments: argparse.Namespace) -> tuple[CfgNode, Callable[[Clip], Method]]:
    """The configuration with the CLIP filled in, and a factory of the method of ``--prompt``, templates, an ensemble or
    a classifier.

    Raises:
        UserError: unless exactly one of them is given.
    """
    from prompt_core.classifier import TextClassifier
    from prompt_core.config import load_config
    from prompt_core.dassl.checkpoints import checkpoint_file, read_checkpoint
    from prompt_core.methods.from_dassl import method_of
    from prompt_core.methods.frozen_rows import FrozenRows
    from prompt_core.methods.registry import load_method, method_file_metadata
    from prompt_core.methods.soft_prompt import SoftPromptMethod
    from prompt_core.methods.templates import TemplateMethod
    from prompt_core.prompt import SoftPrompt, packaged_prompt
    from prompt_core.text.encoder import PromptedTextEncoder
    from prompt_core.towers.origin import origin_by_name, stated_origin

    matrix = getattr(arguments, "classifier", None)
    if sum(map(bool, (arguments.prompt, arguments.template, arguments.ensemble, matrix))) != 1:
        raise UserError("give one of --prompt FILE, --classifier FILE, --ensemble NAME, or one or more --template TEXT")
    if matrix:
        classifier = TextClassifier.load(matrix)
        cfg = load_config(arguments.config, arguments.overrides).clone()
        cfg.defrost()
        _fill_clip_in(cfg, arguments, stated_origin(classifier.metadata))
        return cfg, lambda clip: FrozenRows(clip, classifier).to(clip.device).eval()
    published = None
    if arguments.prompt:
        file = checkpoint_file(packaged_prompt(arguments.prompt))
        if not file.is_file():
            raise UserError(f"prompt file {file} does not exist")
        arguments.prompt = str(file)
        published = read_checkpoint(file) if file.suffix != ".safetensors" else None
    metadata = method_file_metadata(arguments.prompt) if arguments.prompt else None
    if metadata is None and published is None and not arguments.ensemble:
        cfg, subject = resolve_subject(arguments)
        if isinstance(subject, SoftPrompt):
            return cfg, lambda clip: SoftPromptMethod.around(PromptedTextEncoder(clip), subject)
        return cfg, lambda clip: TemplateMethod(clip, "ensemble", templates=subject)
    cfg = load_config(arguments.config, arguments.overrides).clone()
    cfg.defrost()
    learned_with = origin_by_name(Path(arguments.prompt)) if published is not None else stated_origin(metadata or {})
    _fill_clip_in(cfg, arguments, learned_with)
    if published is not None:
        return cfg, lambda clip: method_of(published, Path(arguments.prompt), clip, cfg)
    if metadata is not None:
        return cfg, lambda clip: load_method(arguments.prompt, clip)
    return cfg, lambda clip: TemplateMethod.ensemble(clip, arguments.ensemble)


def _fill_clip_in(cfg: CfgNode, arguments: argparse.Namespace, learned_with: Origin | None) -> None:
    """``MODEL.NAME`` and ``MODEL.PRETRAINED`` by the options, else as the prompt or method was learned.

    Weights that were loaded from a file then must be given again.
    """
    import open_clip

    if learned_with is not None and not arguments.config and not arguments.clip:
        cfg.MODEL.NAME = learned_with.clip
        tags = open_clip.list_pretrained_tags_by_model(learned_with.clip)
        known = learned_with.pretrained if learned_with.pretrained in tags else ""
        cfg.MODEL.PRETRAINED = cfg.MODEL.PRETRAINED or known
    cfg.MODEL.NAME = arguments.clip or cfg.MODEL.NAME
    cfg.MODEL.PRETRAINED = arguments.pretrained or cfg.MODEL.PRETRAINED


def load_model(cfg: CfgNode, random_weights: bool = True) -> Clip:
    """The CLIP of ``cfg.MODEL`` on ``cfg.DEVICE``.

    Raises:
        UserError: anything that cannot be loaded; random weights, unless ``random_weights`` allows them.
    """
    import warnings

    import torch

    from prompt_core.clip import PRECISIONS, load_clip
    from prompt_core.config import one_of

    device = cfg.DEVICE
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(device)
    except RuntimeError as error:
        raise UserError(f"DEVICE is {device!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"DEVICE is {device!r} but no GPU is usable here; use DEVICE cpu")
    model = (cfg.MODEL.NAME, cfg.MODEL.PRETRAINED or None, device, one_of(cfg, "MODEL.PRECISION", PRECISIONS))
    if random_weights:
        return load_clip(*model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the weights are random")
        clip = load_clip(*model)
    if clip.pretrained is None:
        raise UserError(
            f"{clip.name} has no pretrained weights, and random ones know no classes; give --pretrained with a tag or "
            "a file, or --random-weights to try things out"
        )
    return clip


@contextlib.contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a function of (done, total); silent when standard error is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(visible(description), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that Ctrl-C, SIGTERM and SIGHUP fill, so that no step is interrupted; a second Ctrl-C stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    with handling((signal.SIGINT, *ENDING), ask):
        yield asked


def print_table(table: Table) -> None:
    """Print a table, as wide as it needs to be when the output is not a terminal; its texts are shown as they are."""
    console = plain_console(file=sys.stdout)
    if not console.is_terminal:
        needed = plain_console(file=sys.stdout, width=_WIDEST).measure(table).maximum
        console = plain_console(file=sys.stdout, width=needed)
    console.print(table)


def show_results(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], file: Path) -> None:
    """Print a table of results, whose first column is text and whose others are numbers, and write it as Markdown."""
    from rich.table import Table

    table = Table(title=title)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    print_table(table)
    lines = [headings, ["---"] * len(headings), *([visible(cell) for cell in row] for row in rows)]
    write_text(file, "".join(f"| {' | '.join(cells)} |\n" for cells in lines))
