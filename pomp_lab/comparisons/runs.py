"""Tables of runs: each run once, in a process of its own, its numbers in a small file that says what was run."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_core.command_line import ArgumentParser
from prompt_core.errors import UserError, nearest
from prompt_core.files import make_output_folder, read_json, sha256_of_json, write_json


def comparison_parser(description: str) -> ArgumentParser:
    """The options that all tools with a table of runs have."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--results", metavar="DIR", help="folder of the results (default: --output/results)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", help="rows to run, separated by ';' (default: all)")
    parser.add_argument("--table-only", action="store_true", help="print what is done and run nothing")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="configuration overrides")
    return parser


def chosen_runs(arguments: argparse.Namespace, known: Iterable[str]) -> tuple[list[str], list[int]]:
    """Names of rows, and seeds.

    Raises:
        UserError: for an unknown row, seeds that are no numbers, an override without a value.
    """
    known = list(known)
    names = arguments.rows.split(";") if arguments.rows else known
    for name in names:
        if name not in known:
            raise UserError(f"unknown row {name!r}{nearest(name, known)}; expected some of {'; '.join(known)}")
    if len(arguments.overrides) % 2:
        raise UserError(f"overrides are {arguments.overrides}; KEY VALUE pairs are expected")
    try:
        return names, [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds is {arguments.seeds!r}; whole numbers joined by commas are expected") from error


def run_folders(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Folders of runs and results, made where they are absent.

    Raises:
        UserError: when one cannot be written.
    """
    output = make_output_folder(arguments.output)
    return output, make_output_folder(arguments.results or output / "results")


class RunStore:
    """Where runs and their numbers lie, by what identifies a run.

    Args:
        folder: for the runs themselves.
        results: for one JSON file of each run; it travels without the runs.
    """

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder, self.results = folder, results

    def path(self, identity: Mapping[str, Any]) -> Path:
        """File of the numbers."""
        return self.results / f"{sha256_of_json(dict(identity))[:16]}.json"

    def output(self, identity: Mapping[str, Any]) -> Path:
        """Folder of the run."""
        return self.folder / self.path(identity).stem

    def known(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """The numbers of this very run where it is done."""
        path = self.path(identity)
        if not path.is_file():
            return None
        found: dict[str, Any] = read_json(path)
        return found

    def keep(self, identity: Mapping[str, Any], dataset: str) -> dict[str, Any]:
        """Read ``metrics.json`` of a finished run and write its numbers on one data set."""
        document = read_json(self.output(identity) / "metrics.json")
        numbers = {key.partition("/")[2]: value for key, value in document.items() if key.startswith(f"{dataset}/")}
        result = {
            "row": identity["row"],
            "seed": identity["seed"],
            "metrics": numbers,
            "settings": dict(identity),
            "_protocol": document["_protocol"][dataset],
            "versions": document["_run"]["versions"],
        }
        write_json(self.path(identity), result)
        return result


def run_process(target: Callable[..., None], arguments: tuple[Any, ...], what: str) -> None:
    """Run ``target`` in a new process, so that runs share nothing.

    Raises:
        UserError: when it ends with another code than 0.
    """
    worker = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    worker.start()
    worker.join()
    if worker.exitcode:
        raise UserError(f"the run of {what} stopped with code {worker.exitcode}")


def learned_prompt(config: Path, folder: Path, seed: int, train: str, vocabulary: str, data: Any = None) -> Path:
    """A prompt file learned by a configuration of ``configs/prompt``; read where it is there, gone on with if stopped.

    Args:
        folder: for the run, whose name there says what it was made from.
        train: ``DATA.TRAIN``.
        vocabulary: ``DATA.VOCABULARY``.
        data: what else tells one data set from another, as JSON.

    Raises:
        KeyboardInterrupt: when Ctrl-C stopped it.
    """
    from prompt_core.config import load_config
    from prompt_core.training.recipe import pretrain

    identity = sha256_of_json([config.read_text(encoding="utf-8"), seed, train, vocabulary, data])
    output = folder / f"prompt_{identity[:16]}"
    path = output / "prompt.safetensors"
    if not path.is_file():
        cfg = load_config(config).clone()
        cfg.defrost()
        cfg.SEED, cfg.DATA.TRAIN, cfg.DATA.VOCABULARY = seed, train, vocabulary
        if pretrain(cfg, str(output), resume=(output / "state.pt").exists()):
            raise KeyboardInterrupt
    return path


def mean_row(name: str, done: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Cells of a table: name, number of runs, and for each metric the mean with half the range behind it."""
    from pomp_lab.comparisons.prompts import mean_and_spread

    cells = [name, str(len(done))]
    for metric in metrics:
        values = [each["metrics"].get(metric, float("nan")) for each in done]
        mean, spread = mean_and_spread(values) if values else (float("nan"), 0.0)
        cells.append(f"{mean:.1f}" + (f" ± {spread:.1f}" if len(values) > 1 else ""))
    return cells
