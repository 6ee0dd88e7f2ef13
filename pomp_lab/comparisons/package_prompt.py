"""The learned prompt of the package against hand-written ones: photos and crops of boxes, seen and novel classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pomp_lab.comparisons.base_to_novel import hand_rows
from pomp_lab.runs import Document, RunStore, mean_text
from pomp_lab.tables.data_folders import PHOTOS, TINY, DataFolders, photo_half, tiny_base_novel
from pomp_lab.tables.jobs import Inputs, Job
from pomp_lab.tables.plan import Row
from pomp_lab.tables.runner import Runner
from pomp_lab.tables.scored_sets import Question, Target
from prompt_core.config import load_config
from prompt_core.data.images import ImageSet
from prompt_core.data.joined import JOIN
from prompt_core.data.readers.coco_crops import read_crops
from prompt_core.files import make_output_folder
from prompt_core.vocabulary import Vocabulary, plain_name

TITLE = "The prompt of the package and hand-written prompts"
COCO_BOXES, VOC_BOXES = "coco_boxes", "voc_boxes"
LEARNED = "POMP K=500"
SMALLEST = 8  # pixels of a box to learn from; all boxes are scored


@dataclass(frozen=True)
class Places:
    """Where the images are, below one data root."""

    root: Path

    @property
    def train(self) -> str:
        """``DATA.TRAIN``: photos of Tiny-ImageNet, boxes of COCO's and VOC's training photos."""
        small, voc = f"smallest={SMALLEST}", self.root / "voc_boxes"
        return JOIN.join(
            [
                f"tiny_imagenet:{self.root / 'tiny-imagenet-200'}",
                f"coco_crops:{self.root}#coco_small/instances_train.json#{small}",
                f"coco_crops:{voc / 'train2007'}#{voc / 'annotations/boxes_train.json'}#{small}",
            ]
        )

    @property
    def folders(self) -> DataFolders:
        """Tiny-ImageNet and photos of the ImageNet classes."""
        return DataFolders(self.root, {TINY: self.root / "tiny-imagenet-200", PHOTOS: self.root / PHOTOS})

    def targets(self, half: str) -> list[Target]:
        """What is scored, in the order of the columns.

        Args:
            half: of the photos, ``tune`` or ``report``; crops of one photo stay together.

        Raises:
            UserError: when images are missing.
        """
        voc = self.root / "voc_boxes"
        coco_boxes = read_crops(self.root, self.root / "coco_small/instances_val.json")
        voc_boxes = read_crops(voc / "val2007", voc / "annotations/boxes_val.json")
        return [
            _tiny(self.folders.images(TINY, "val"), half),
            photos_target(self.folders, half),
            _of_boxes(COCO_BOXES, "COCO boxes", coco_boxes, Vocabulary.load("coco"), half),
            _of_boxes(VOC_BOXES, "VOC boxes", voc_boxes, Vocabulary(voc_boxes.names), half),
        ]


def photos_target(folders: DataFolders, half: str) -> Target:
    """Photos of the 1,000 ImageNet classes among their names.

    Raises:
        UserError: when they are missing.
    """
    photos, thousand = folders.images(PHOTOS, "val"), Vocabulary.load("imagenet1k")
    place = {identity: row for row, identity in enumerate(thousand.ids or [])}
    rows = np.array([place[identity] for identity in photos.ids])
    return _target(PHOTOS, "photos", photos, Vocabulary(thousand.names), rows, half)


def row_name(weight: float) -> str:
    """The row of a weight of ``LOSS.ANCHOR``."""
    return f"{LEARNED}, anchor {weight:g}" if weight else LEARNED


def _tiny(images: ImageSet, half: str) -> Target:
    every, (base, novel) = np.arange(len(images.names)), map(np.array, tiny_base_novel(images))
    columns = {"all": (every, every), "base": (base, every), "novel": (novel, every), "novel_alone": (novel, novel)}
    titles = {name: f"{name.partition('_')[0]} classes" for name in columns} | {"all": "Tiny-ImageNet"}
    questions = tuple(
        Question(f"{TINY}_{name}", asked, among, {"images_of": titles[name], "half": half})
        for name, (asked, among) in columns.items()
    )
    return Target(TINY, TINY, "val", photo_half(images, half), Vocabulary(images.names), every, questions)


def _of_boxes(name: str, title: str, images: ImageSet, names: Vocabulary, half: str) -> Target:
    place = {plain_name(text): row for row, text in enumerate(names.names)}
    return _target(name, title, images, names, np.array([place[plain_name(text)] for text in images.names]), half)


def _target(name: str, title: str, images: ImageSet, names: Vocabulary, rows: np.ndarray, half: str) -> Target:
    question = Question(name, None, np.arange(len(names)), {"images_of": title, "half": half})
    return Target(name, name, "val", photo_half(images, half), names, rows, (question,))


@dataclass(frozen=True)
class PackagePrompt:
    """What all rows share.

    Attributes:
        config: of prompt learning.
        overrides: ``KEY VALUE`` pairs for all rows, flat.
        data: where the images are.
        half: of the photos that is scored.
        output: folder of the runs.
        results: the results file.
    """

    config: Path
    overrides: Sequence[str]
    data: Places
    half: str
    output: Path
    results: Path

    def run(self, anchors: Sequence[float], seeds: Sequence[int]) -> list[list[str]]:
        """Learn and score what is missing, and write the results file; headings and cells of the table.

        Args:
            anchors: weights of ``LOSS.ANCHOR``, a row each; 0 for none.

        Raises:
            UserError: when images are missing or settings do not fit.
            KeyboardInterrupt: on Ctrl-C; the same call continues.
        """
        targets, inputs = self.data.targets(self.half), Inputs(self.data.folders, self.output / "lists")
        rows = [*hand_rows(self.config.name), *(learned_row(self.config.name, weight) for weight in anchors)]
        jobs = [
            Job(row, seed, self._config(row, seed), inputs)
            for row in rows
            for seed in (seeds if "LOSS.ANCHOR" in dict(row.settings) else [None])
        ]
        store = RunStore(make_output_folder(self.output / "runs"), self.results)
        documents = Runner(store, self.output / "learned").run(jobs, targets)
        store.write_results({"title": TITLE}, documents)
        return table_cells([row.name for row in rows], list(documents.values()), targets)

    def _config(self, row: Row, seed: int | None) -> Any:
        settings = [text for pair in row.settings for text in pair]
        train = [] if seed is None else ["DATA.TRAIN", self.data.train, "SEED", str(seed)]
        return load_config(self.config, [*self.overrides, *settings, *train])


def learned_row(config: str, weight: float) -> Row:
    """The row that is learned with a weight of ``LOSS.ANCHOR``."""
    return Row(row_name(weight), config, settings=(("LOSS.ANCHOR", f"{weight}"),))


def table_cells(rows: Sequence[str], documents: Sequence[Document], targets: Sequence[Target]) -> list[list[str]]:
    """Headings, then cells: top-1 as mean ± half the range over seeds."""
    questions = [question for target in targets for question in target.questions]
    columns = {
        question.dataset: f"{question.protocol['images_of'].removesuffix(' classes')} / {len(question.candidates):,}"
        for question in questions
    }
    table = [["prompt", "runs", *columns.values()]]
    for row in rows:
        runs = [document for document in documents if document["_run"]["row"] == row]
        if runs:
            table.append([row, str(len(runs)), *(mean_text([run[f"{name}/top1"] for run in runs]) for name in columns)])
    return table
