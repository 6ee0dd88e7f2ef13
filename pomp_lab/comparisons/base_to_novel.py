"""From base to novel classes of Tiny-ImageNet: hand prompts, POMP with several K and corrections, the full softmax.

160 base classes have training photos, 40 novel ones have none; negatives come from all names of ImageNet-21K. All rows
are learned in the same number of steps, whatever their number of photos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pomp_lab.runs import Document, RunStore, mean_text, plain_command
from pomp_lab.tables.data_folders import PHOTOS, TINY, DataFolders
from pomp_lab.tables.jobs import Inputs, Job, make_jobs
from pomp_lab.tables.plan import Row, Table
from pomp_lab.tables.runner import TableRunner
from pomp_lab.tables.scored_sets import Question

# Name of the row: K and the correction; K = 0 is the exact full softmax.
METHODS = {
    "POMP K=100": (100, "log10"),
    "POMP K=100, no correction": (100, "none"),
    "POMP K=500": (500, "log10"),
    "POMP K=500, no correction": (500, "none"),
    "POMP K=1000": (1000, "log10"),
    "POMP K=1000, no correction": (1000, "none"),
    "POMP K=1000, ln": (1000, "ln"),
    "POMP K=1000, margin 2": (1000, "2"),
    "full softmax": (0, "none"),
}


@dataclass(frozen=True)
class BaseToNovel:
    """The settings that all runs share.

    Attributes:
        config: of prompt learning; None for the defaults.
        overrides: ``KEY VALUE`` pairs for all rows, flat.
        tiny_imagenet: its folder, in its standard layout.
        photos: folder with ``labels.csv`` of photos of the 1,000 ImageNet classes, or None.
        half: of the validation photos that is scored, ``tune`` or ``report``.
        updates: steps of each run; the batch follows from it.
        output: folder of the runs.
        results: the results file.
    """

    config: Path | None
    overrides: Sequence[str]
    tiny_imagenet: Path
    photos: Path | None
    half: str
    updates: int
    output: Path
    results: Path

    def run(self, methods: Sequence[str], shots: Sequence[int], seeds: Sequence[int]) -> list[list[str]]:
        """Learn and score what is missing, and write the results file; headings and cells of the table.

        Raises:
            KeyboardInterrupt: on Ctrl-C; the same call continues.
        """
        places = {TINY: self.tiny_imagenet, **({PHOTOS: self.photos} if self.photos else {})}
        inputs = Inputs(DataFolders(Path(), places), self.output / "lists", self.half)
        targets = [f"{TINY}_base_novel", *([f"{PHOTOS}_with_tiny"] if self.photos else [])]
        rows = table_rows("" if self.config is None else str(self.config.absolute()), methods, shots)
        table = Table("base_novel", "laptop", "Base to novel classes of Tiny-ImageNet", "", rows, tuple(targets))
        jobs = [self._with_updates(job, inputs) for job in make_jobs(rows, seeds, Path(), self.overrides, inputs)]
        jobs.sort(key=lambda job: (job.learns, job.cfg.DATA.SHOTS if job.learns else 0, job.seed or 0))
        store = RunStore(self.output / "runs", self.results, lambda line: print(line, flush=True))
        runner = TableRunner(table, inputs, store, self.output / "learned", lambda line: print(line, flush=True))
        runner.run(jobs, targets)
        scored = ((runner.run_of(job).key, runner.document(job, targets)) for job in jobs)
        documents = {key: document for key, document in scored if document is not None}
        store.write_results({"command": plain_command(), "title": table.title}, documents)
        questions = [question for name in targets for question in inputs.target(name).questions]
        return table_cells([row.name for row in rows], list(documents.values()), questions)

    def _with_updates(self, job: Job, inputs: Inputs) -> Job:
        """The batch size that makes :attr:`updates` steps of all epochs together."""
        if not job.learns:
            return job
        images, cfg = len(inputs.few_shot(job.cfg)), job.cfg.clone()
        cfg.defrost()
        cfg.OPTIM.BATCH = max(1, images * cfg.OPTIM.EPOCHS // self.updates)
        cfg.freeze()
        return replace(job, cfg=cfg)


def table_rows(config: str, methods: Sequence[str], shots: Sequence[int]) -> tuple[Row, ...]:
    """Hand prompts, then each method with each number of photos of a class."""
    # As in overrides: {} without quotes would be an empty dictionary.
    zero_shot = {'"{}"': '"{}"', '"a photo of a {}."': "a photo of a {}."}
    hand = [
        Row(name, config, settings=(("METHOD.NAME", "zero_shot"), ("METHOD.ZERO_SHOT.TEMPLATE", template)))
        for name, template in zero_shot.items()
    ]
    ensemble = (("METHOD.NAME", "ensemble"), ("METHOD.ENSEMBLE.TEMPLATES", "imagenet"))
    hand.append(Row("80 templates", config, settings=ensemble))
    learned = [
        Row(f"{method}, {number} shots", config, TINY, True, _learned(method, number))
        for number in shots
        for method in methods
    ]
    return (*hand, *learned)


def _learned(method: str, shots: int) -> tuple[tuple[str, str], ...]:
    number, correction = METHODS[method]
    loss = (("LOSS.NUM_CLASSES", str(number)), ("LOSS.CORRECTION", correction))
    return (("METHOD.NAME", "pomp"), *loss, ("DATA.SHOTS", str(shots)))


def table_cells(rows: Sequence[str], documents: Sequence[Document], questions: Sequence[Question]) -> list[list[str]]:
    """Headings, then cells: top-1 as mean ± half the range over seeds; alignment and uniformity of novel classes."""
    datasets = {f"{_images(question)} / {len(question.candidates):,}": question.dataset for question in questions}
    table = [["prompt", "runs", *datasets, "alignment", "uniformity"]]
    for row in rows:
        runs = [document for document in documents if document["_run"]["row"] == row]
        if runs:
            cells = [mean_text(_numbers(runs, f"{dataset}/top1")) for dataset in datasets.values()]
            geometry = [_numbers(runs, f"{TINY}_novel_of_own/{metric}") for metric in ("alignment", "uniformity")]
            table.append([row, str(len(runs)), *cells, *(f"{np.mean(values):.3f}" for values in geometry)])
    return table


def _numbers(documents: Sequence[Document], key: str) -> list[float]:
    """The value as a number; NaN where it is undefined."""
    return [math.nan if (value := document.get(key)) is None else value for document in documents]


def _images(question: Question) -> str:
    """The classes of a column's photos."""
    return str(question.protocol.get("images_of", "photos")).removesuffix(" classes")
