"""Tables of detectors and segmenters: each row is trained as by ``tools/train_net.py``, in a separate process."""

from __future__ import annotations

import argparse
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pomp_lab.runs import (
    METRICS_FILE,
    Document,
    Run,
    RunStore,
    learn,
    mean_text,
    part_of,
    plain_command,
    run_missing,
    run_process,
)
from prompt_core.command_line import ArgumentParser, show_results
from prompt_core.config import load_config
from prompt_core.errors import UserError, nearest
from prompt_core.files import make_output_folder, read_json, sha256_of_json

FINAL_WEIGHTS = "model_final.pth"


class Comparison(ABC):
    """The missing runs of a table, and the table of finished ones.

    Args:
        store: of the runs.
        overrides: ``KEY VALUE`` pairs for all rows, flat.

    Attributes:
        name: of the results file.
        title: of the printed table.
        heading: of the column with the rows' names.
        rows: names of all rows.
        columns: metrics, with a space instead of the underscore.
        dataset: the test set whose numbers are shown.
        facts: anything else that identifies the data, as JSON.
    """

    name: str
    title: str
    heading: ClassVar[str]
    rows: Sequence[str]
    columns: Sequence[str]
    dataset: str
    facts: Any

    def __init__(self, store: RunStore, overrides: Sequence[Any] = ()) -> None:
        self.store, self.overrides = store, list(overrides)

    @abstractmethod
    def run_of(self, row: str, seed: int) -> Run:
        """The run of a row, with everything that determines it."""

    @abstractmethod
    def training(self, row: str, seed: int) -> tuple[Path, dict[str, Any]]:
        """Configuration and settings of a run; its inputs (a prompt, weights to start from) are made here."""

    @abstractmethod
    def about(self, row: str) -> dict[str, Any]:
        """The entries of ``_run`` for a row."""

    def run(self, row: str, seed: int) -> Document:
        """The numbers of a row: read if this run is done, else from a training in a separate process.

        Raises:
            UserError: when the training stops.
        """
        run = self.run_of(row, seed)
        document = self.store.document(run)
        return self.train(row, seed) if document is None else document

    def train(self, row: str, seed: int) -> Document:
        """Train and evaluate a row, or continue where it was interrupted."""
        run = self.run_of(row, seed)
        config, settings = self.training(row, seed)
        folder = self.store.folder_of(run)
        settings = {"SEED": seed, "OUTPUT_DIR": str(folder), **settings}
        settings |= dict(zip(self.overrides[::2], self.overrides[1::2], strict=True))
        train(config, settings, f"row {row!r}, seed {seed},")
        document = part_of(read_json(folder / METRICS_FILE), [self.dataset])
        decided = {key: value for key, value in run.identity.items() if key not in ("row", "seed")}
        return self.store.keep(run, document, settings=decided, **self.about(row))

    def learned_prompt(self, config: Path, seed: int, train: str, vocabulary: str) -> Path:
        """A prompt file learned with a configuration of ``configs/prompt``; reused if it exists.

        Args:
            train: ``DATA.TRAIN``, and ``vocabulary`` ``DATA.VOCABULARY``.

        Raises:
            KeyboardInterrupt: on Ctrl-C.
        """
        identity = sha256_of_json([config.read_text(encoding="utf-8"), seed, train, vocabulary, self.facts])
        path = self.store.folder / f"prompt_{identity[:16]}" / "prompt.safetensors"
        if not path.is_file():
            settings = ["SEED", str(seed), "DATA.TRAIN", train, "DATA.VOCABULARY", vocabulary]
            learn(load_config(config, settings), path.parent)
        return path

    def table(self, rows: Sequence[str], seeds: Sequence[int]) -> tuple[list[str], list[list[str]]]:
        """Headings and cells: mean over the finished seeds ± half the range."""
        cells = []
        for row in rows:
            documents = [self.store.document(self.run_of(row, seed)) for seed in seeds]
            done = [document for document in documents if document is not None]
            line = [row, str(len(done))]
            for column in self.columns:
                metric = column.replace(" ", "_")
                values = [document.get(f"{self.dataset}/{metric}") for document in done]
                line.append(mean_text([math.nan if value is None else value for value in values]))
            cells.append(line)
        return [self.heading, "seeds", *self.columns], cells


def comparison_parser(description: str) -> ArgumentParser:
    """The options of all tools with a table of trainings."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--results", metavar="DIR", help="folder of the results (default: --output/results)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", help="rows to run, separated by ';' (default: all)")
    parser.add_argument("--table-only", action="store_true", help="print what is done and run nothing")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="configuration overrides")
    return parser


def chosen_runs(arguments: argparse.Namespace, known: Sequence[str]) -> tuple[list[str], list[int]]:
    """Names of rows, and seeds.

    Raises:
        UserError: for an unknown row, seeds that are not numbers, an override without a value.
    """
    names = arguments.rows.split(";") if arguments.rows else list(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown row {name!r}{nearest(name, known)}; expected some of {'; '.join(known)}")
    if len(arguments.overrides) % 2:
        raise UserError(f"overrides are {arguments.overrides}; KEY VALUE pairs are expected")
    try:
        return names, [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds is {arguments.seeds!r}; whole numbers joined by commas are expected") from error


def open_store(arguments: argparse.Namespace, name: str) -> RunStore:
    """The runs of a tool's ``--output`` and the results file of a table.

    Raises:
        UserError: when a folder cannot be written.
    """
    output = make_output_folder(arguments.output)
    results = make_output_folder(arguments.results or output / "results")
    return RunStore(output, results / f"{name}.json", lambda line: print(line, flush=True))


def compare(comparison: Comparison, arguments: argparse.Namespace) -> None:
    """Run what is missing, print the table, write it and the results file."""
    rows, seeds = chosen_runs(arguments, comparison.rows)
    store = comparison.store
    runs = {comparison.run_of(row, seed): (row, seed) for seed in seeds for row in rows}

    def do(run: Run) -> None:
        comparison.run(*runs[run])
        print(f"done: {run.label}", flush=True)

    if not arguments.table_only:
        run_missing(store, list(runs), do)
    documents = {run.key: document for run in runs if (document := store.document(run)) is not None}
    if documents:
        store.write_results({"command": plain_command(), "title": comparison.title}, documents)
    headings, cells = comparison.table(rows, seeds)
    show_results(comparison.title, headings, cells, store.results.with_suffix(".md"))


def train(config: Path, settings: Mapping[str, Any], what: str) -> None:
    """Train and evaluate in a separate process, or continue where it was interrupted.

    Raises:
        UserError: when it ends with a code other than 0.
    """
    run_process(_train, (str(config), settings), what)


def _train(config: str, settings: Mapping[str, Any]) -> None:
    """The work of a run's process; an interrupted run continues."""
    import pomp_det
    import pomp_seg
    from pomp_engine.run import train
    from prompt_core.errors import run_command

    def main() -> None:
        if pomp_seg.is_segmenter(config, []):
            train(pomp_seg.segmentation_task(), pomp_seg.load_config(config, settings), resume=True)
        else:
            train(pomp_det.detection_task(), pomp_det.load_config(config, settings), resume=True)

    run_command(main)
