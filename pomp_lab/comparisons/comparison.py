"""Tables of detectors and segmenters: each row is trained, or only evaluated, as by ``tools/train_net.py``, in a
separate process."""

from __future__ import annotations

import argparse
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pomp_lab.arguments import chosen, whole_numbers
from pomp_lab.runs import METRICS_FILE, Document, Run, RunStore, learn, mean_text, part_of, run_missing, run_process
from prompt_core.command_line import ArgumentParser, show_results
from prompt_core.config import load_config, override_pairs
from prompt_core.files import make_output_folder, read_sealed_json, sha256_of_json

FINAL_WEIGHTS = "model_final.pth"
UNUSUAL = "metrics_*.json"  # an evaluation with other regions or several views says so in the name of its file


class Comparison(ABC):
    """The missing runs of a table, and the table of finished ones.

    Args:
        configs: the folder ``configs``.
        store: of the runs.
        overrides: ``KEY VALUE`` pairs for all rows, flat.

    Attributes:
        title: of the printed table.
        heading: of the column with the rows' names.
        rows: by name; each says with ``overrides`` what it sets besides, with ``hand`` whether its prompt is a
            hand-written one, and with ``evaluated`` whether it is only evaluated.
        columns: metrics, with a space instead of the underscore.
        dataset: the test set whose numbers are shown.
        facts: anything else that identifies the data, as JSON.
    """

    title: str
    heading: ClassVar[str]
    rows: ClassVar[Mapping[str, Any]]
    columns: ClassVar[Sequence[str]]
    dataset: str
    facts: Any

    def __init__(self, configs: Path, store: RunStore, overrides: Sequence[Any] = ()) -> None:
        self.configs, self.store, self.overrides = configs, store, list(overrides)

    @property
    def datasets(self) -> Sequence[str]:
        """The test sets whose numbers are kept."""
        return (self.dataset,)

    def metric_key(self, column: str) -> str:
        """Where a column's number stands in ``metrics.json``."""
        return f"{self.dataset}/{column.replace(' ', '_')}"

    @abstractmethod
    def config_file(self, row: str) -> str:
        """The configuration of a row, below ``configs``."""

    @abstractmethod
    def config_hash(self, row: str) -> str:
        """Hash of all configurations that a row depends on."""

    @abstractmethod
    def settings(self, row: str, seed: int) -> dict[str, Any]:
        """Settings of a run; its inputs (a prompt, weights to start from) are made here."""

    def run_of(self, row: str, seed: int) -> Run:
        """The run of a row, with everything that determines it."""
        identity = {
            "row": row,
            "seed": seed,
            "config": self.config_hash(row),
            "overrides": [[key, str(value)] for key, value in self.rows[row].overrides],
            "more_overrides": [str(text) for text in self.overrides],
            "shapes": self.facts,
        }
        return Run(row, seed, identity)

    def run(self, row: str, seed: int) -> Document:
        """The numbers of a row: read if this run is done, else from a separate process.

        Raises:
            UserError: when that process stops.
        """
        return self.store.document(self.run_of(row, seed)) or self.do(row, seed)

    def do(self, row: str, seed: int) -> Document:
        """Train and evaluate a row, or continue where it was interrupted; or evaluate it."""
        run, plan = self.run_of(row, seed), self.rows[row]
        folder = self.store.folder_of(run)
        settings = {"SEED": seed, "OUTPUT_DIR": str(folder), **self.settings(row, seed), **dict(plan.overrides)}
        settings |= dict(override_pairs(self.overrides))
        work = evaluate if plan.evaluated else train
        work(self.configs / self.config_file(row), settings, f"row {row!r}, seed {seed},")
        metrics = next(folder.glob(UNUSUAL), folder / METRICS_FILE)
        document = part_of(read_sealed_json(metrics), self.datasets)
        about = {"config_file": f"configs/{self.config_file(row)}", **({"hand_prompt": True} if plan.hand else {})}
        decided = {key: value for key, value in run.identity.items() if key not in ("row", "seed")}
        return self.store.keep(run, document, settings=decided, **about)

    def learned_prompt(self, config: str, seed: int, train: str, vocabulary: str) -> Path:
        """A prompt file learned with a configuration of ``configs/prompt``; reused if it exists.

        Args:
            train: ``DATA.TRAIN``, and ``vocabulary`` ``DATA.VOCABULARY``.

        Raises:
            KeyboardInterrupt: on Ctrl-C.
        """
        identity = sha256_of_json([self.read(f"prompt/{config}"), seed, train, vocabulary, self.facts])
        path = self.store.folder / f"prompt_{identity[:16]}" / "prompt.safetensors"
        settings = ["SEED", str(seed), "DATA.TRAIN", train, "DATA.VOCABULARY", vocabulary]
        cfg = load_config(self.configs / "prompt" / config, settings)
        return self.store.once(path, lambda: learn(cfg, path.parent))

    def read(self, file: str) -> str:
        """The text of a configuration below ``configs``."""
        return (self.configs / file).read_text(encoding="utf-8")

    def table(self, rows: Sequence[str], seeds: Sequence[int]) -> tuple[list[str], list[list[str]]]:
        """Headings and cells: mean over the finished seeds ± half the range."""
        cells = []
        for row in rows:
            documents = [self.store.document(self.run_of(row, seed)) for seed in seeds]
            done = [document for document in documents if document is not None]
            line = [row, str(len(done))]
            for column in self.columns:
                values = [document.get(self.metric_key(column)) for document in done]
                line.append(mean_text([math.nan if value is None else value for value in values]))
            cells.append(line)
        return [self.heading, "seeds", *self.columns], cells


def comparison_parser(description: str) -> ArgumentParser:
    """The options of all tools with a table of trainings."""
    parser = ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the runs")
    parser.add_argument("--results", metavar="DIR", help="folder for the results (default: OUTPUT/results)")
    parser.add_argument("--seeds", metavar="N,N,…", default="0,1,2", help="seeds of each row (default: 0,1,2)")
    parser.add_argument("--rows", metavar="ROW;ROW", help="rows to run and show (default: all)")
    parser.add_argument("--table-only", action="store_true", help="run nothing, show what is done")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="configuration overrides")
    return parser


def parse_comparison(
    parser: ArgumentParser, rows_of: Callable[[argparse.Namespace], Mapping[str, Any]]
) -> argparse.Namespace:
    """Parse the command line: ``rows`` become names, ``seeds`` numbers.

    Args:
        rows_of: the rows that a command line may name.

    Raises:
        UserError: an unknown row, seeds that are not numbers, an override without a value.
    """
    arguments = parser.parse_intermixed_args()
    arguments.rows = chosen(arguments.rows, rows_of(arguments), "row")
    arguments.seeds = whole_numbers("--seeds", arguments.seeds)
    override_pairs(arguments.overrides)
    return arguments


def open_store(arguments: argparse.Namespace, name: str) -> RunStore:
    """The runs of a tool's ``--output`` and the results file of a table.

    Raises:
        UserError: when a folder cannot be written.
    """
    output = make_output_folder(arguments.output)
    return RunStore(output, make_output_folder(arguments.results or output / "results") / f"{name}.json")


def compare(comparison: Comparison, arguments: argparse.Namespace) -> None:
    """Run what is missing, print the table, write it and the results file."""
    rows, seeds, store = arguments.rows, arguments.seeds, comparison.store
    runs = {comparison.run_of(row, seed): (row, seed) for seed in seeds for row in rows}

    def do(run: Run) -> None:
        comparison.run(*runs[run])
        store.report(f"done: {run.label}")

    if not arguments.table_only:
        run_missing(store, list(runs), do)
    documents = {run.key: document for run in runs if (document := store.document(run)) is not None}
    if documents:
        store.write_results({"title": comparison.title}, documents)
    show_results(comparison.title, *comparison.table(rows, seeds), store.results.with_suffix(".md"))


def train(config: Path, settings: Mapping[str, Any], what: str) -> None:
    """Train and evaluate in a separate process, or continue where it was interrupted.

    Raises:
        UserError: when it ends with a code other than 0.
    """
    run_process(_work, (str(config), settings, False), what)


def evaluate(config: Path, settings: Mapping[str, Any], what: str) -> None:
    """Evaluate in a separate process; weights that a task learns are random where ``settings`` name none.

    Raises:
        UserError: when it ends with a code other than 0.
    """
    run_process(_work, (str(config), settings, True), what)


def _work(config: str, settings: Mapping[str, Any], evaluated: bool) -> None:
    """The work of a run's process; an interrupted training continues."""
    import pomp_det
    import pomp_seg
    from pomp_engine import run
    from prompt_core.errors import run_command

    def main() -> None:
        if pomp_seg.is_segmenter(config, []):
            task, cfg = pomp_seg.segmentation_task(), pomp_seg.load_config(config, settings)
        else:
            task, cfg = pomp_det.detection_task(), pomp_det.load_config(config, settings)
        if evaluated:
            run.evaluate(task, cfg)
        else:
            run.train(task, cfg, resume=True)

    run_command(main)
