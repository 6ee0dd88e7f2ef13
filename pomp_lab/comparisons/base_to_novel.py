"""From base to novel classes of Tiny-ImageNet: hand prompts, POMP with several K and corrections, the full softmax.

160 base classes have training photos, 40 novel ones have none; negatives come from all names of ImageNet-21K. All rows
are learned in the same number of steps, whatever their number of photos.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pomp_lab.runs import Document, RunStore, mean_text
from pomp_lab.tables.data_folders import PHOTOS, TINY, DataFolders
from pomp_lab.tables.jobs import Inputs, Job, make_jobs
from pomp_lab.tables.plan import Row, Settings
from pomp_lab.tables.runner import Runner
from pomp_lab.tables.scored_sets import Question, open_target

TITLE = "Base to novel classes of Tiny-ImageNet"
# Name of the row: K, the correction and the weight of LOSS.ANCHOR; K = 0 is the exact full softmax.
METHODS = {
    "POMP K=100": (100, "log10", 0.0),
    "POMP K=100, no correction": (100, "none", 0.0),
    "POMP K=500": (500, "log10", 0.0),
    "POMP K=500, no correction": (500, "none", 0.0),
    "POMP K=1000": (1000, "log10", 0.0),
    "POMP K=1000, no correction": (1000, "none", 0.0),
    "POMP K=1000, ln": (1000, "ln", 0.0),
    "POMP K=1000, margin 2": (1000, "2", 0.0),
    "POMP K=1000, anchor 8": (1000, "log10", 8.0),
    "full softmax": (0, "none", 0.0),
}


@dataclass(frozen=True)
class BaseToNovel:
    """What all rows share.

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
        rows = table_rows(self.config_name, methods, shots)
        documents, questions = self.measured(rows, seeds, {"title": TITLE})
        return table_cells([row.name for row in rows], list(documents.values()), questions)

    @property
    def config_name(self) -> str:
        """The configuration as rows name it."""
        return self.config.name if self.config else ""

    def measured(
        self,
        rows: Sequence[Row],
        seeds: Sequence[int],
        about: Mapping[str, Any],
        vocabularies: Mapping[str, Path] | None = None,
    ) -> tuple[dict[str, Document], list[Question]]:
        """Learn and score what is missing, and write the results file; the numbers of all rows, and the columns.

        Args:
            about: the table, for the results file.
            vocabularies: of rows whose negatives come from a file of names instead of all of them.
        """
        places = {TINY: self.tiny_imagenet} | ({PHOTOS: self.photos} if self.photos else {})
        folders = DataFolders(Path(), places)
        scored = [f"{TINY}_base_novel", *([f"{PHOTOS}_with_tiny"] if self.photos else [])]
        targets = [open_target(name, folders, self.half) for name in scored]
        config = self.config or Path()
        jobs = make_jobs(rows, seeds, config.parent, self.overrides, Inputs(folders, self.output / "lists"))
        jobs = [self._with_updates(job, (vocabularies or {}).get(job.row.name)) if job.learns else job for job in jobs]
        jobs.sort(key=lambda job: (job.learns, job.cfg.DATA.SHOTS if job.learns else 0, job.seed or 0))
        store = RunStore(self.output / "runs", self.results)
        documents = Runner(store, self.output / "learned").run(jobs, targets)
        store.write_results(about, documents)
        return documents, [question for target in targets for question in target.questions]

    def _with_updates(self, job: Job, vocabulary: Path | None) -> Job:
        """The batch size that makes :attr:`updates` steps of all epochs together."""
        images, cfg = len(job.inputs.few_shot(job.cfg)), job.cfg.clone()
        cfg.defrost()
        cfg.DATA.VOCABULARY = str(vocabulary or cfg.DATA.VOCABULARY)
        cfg.OPTIM.BATCH = max(1, images * cfg.OPTIM.EPOCHS // self.updates)
        cfg.freeze()
        return replace(job, cfg=cfg, as_configured=False)


def hand_rows(config: str) -> list[Row]:
    """The hand prompts."""
    # As in overrides: {} without quotes would be an empty dictionary.
    zero_shot = {'"{}"': '"{}"', '"a photo of a {}."': "a photo of a {}."}
    hand = [
        Row(name, config, settings=(("METHOD.NAME", "zero_shot"), ("METHOD.ZERO_SHOT.TEMPLATE", template)))
        for name, template in zero_shot.items()
    ]
    ensemble = (("METHOD.NAME", "ensemble"), ("METHOD.ENSEMBLE.TEMPLATES", "imagenet"))
    return [*hand, Row("80 templates", config, settings=ensemble)]


def table_rows(config: str, methods: Sequence[str], shots: Sequence[int]) -> tuple[Row, ...]:
    """Hand prompts, then each method with each number of photos of a class."""
    learned = []
    for number in shots:
        for method in methods:
            count, correction, anchor = METHODS[method]
            settings: Settings = (
                ("METHOD.NAME", "pomp"),
                ("LOSS.NUM_CLASSES", str(count)),
                ("LOSS.CORRECTION", correction),
                ("LOSS.ANCHOR", str(anchor)),
                ("DATA.SHOTS", str(number)),
            )
            learned.append(Row(f"{method}, {number} shots", config, TINY, True, settings))
    return (*hand_rows(config), *learned)


def table_cells(rows: Sequence[str], documents: Sequence[Document], questions: Sequence[Question]) -> list[list[str]]:
    """Headings, then cells: top-1 as mean ± half the range over seeds; alignment and uniformity of novel classes."""
    datasets = {}
    for question in questions:
        images = str(question.protocol.get("images_of", "photos")).removesuffix(" classes")
        datasets[f"{images} / {len(question.candidates):,}"] = question.dataset
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
