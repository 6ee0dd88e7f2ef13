"""Segmenters side by side, one per kind of prompt: seen and unseen classes, means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.comparisons.comparison import FINAL_WEIGHTS, Comparison, train
from pomp_lab.runs import Run, RunStore
from prompt_core.files import read_json, sha256_of_json


@dataclass(frozen=True)
class Row:
    """One segmenter of the table.

    Attributes:
        learner: ``CLIP_ADAPTER.PROMPT_LEARNER`` of stage 2.
        tuning: that of stage 1, the tuning of the prompt on regions; None without it.
        overrides: further settings of stage 2.
    """

    learner: str
    tuning: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()


_PER_PIXEL = (
    ("MODEL.META_ARCHITECTURE", "ZeroShotPerPixelModel"),
    ("MODEL.SEM_SEG_HEAD.NAME", "ZeroPerPixelBaselineHead"),
    ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 116),
    ("MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", 2.0),
)

ROWS = {
    "hand prompt": Row("predefined"),
    "ZSSeg's own prompt, tuned": Row("learnable", "learnable"),
    "POMP": Row("pomp"),
    "POMP, tuned": Row("pomp_tuned", "pomp"),
    "SPNet, hand prompt": Row("predefined", overrides=_PER_PIXEL),
}


@dataclass(frozen=True)
class Experiment:
    """The data of a table.

    Attributes:
        name: of the results file.
        config: file of stage 2 in ``configs/mini``, and ``tuning`` that of stage 1.
        dataset: the test set whose numbers are shown.
        prompt: file in ``configs/prompt`` that learns the prompt, with ``train`` and ``vocabulary``, ``DATA.TRAIN`` and
            ``DATA.VOCABULARY``; ``{root}`` stands for the data root.
        classes: JSON below the root with ``names`` and ``unseen``, where the number of seen classes is not fixed.
    """

    name: str
    config: str
    tuning: str
    dataset: str
    prompt: str
    train: str
    vocabulary: str
    classes: str = ""


EXPERIMENTS = {
    "scenes": Experiment(
        "scenes_seg",
        "scenes_seg.yaml",
        "scenes_seg_prompt.yaml",
        "shapes_sem_seg_val",
        "mini_shapes.yaml",
        "folder:{root}/shapes/classification",
        "{root}/shapes/class_names.txt",
        "shapes/semantic_classes.json",
    ),
    "coco": Experiment(
        "coco_seg",
        "coco_seg.yaml",
        "coco_seg_prompt.yaml",
        "coco_small_sem_seg_val",
        "mini_tiny_imagenet.yaml",
        "tiny_imagenet:{root}/tiny-imagenet-200",
        "imagenet21k",
    ),
}


class SegmenterComparison(Comparison):
    """The table of segmenters.

    Args:
        root: the data root; its data sets are prepared.
        configs: the folder ``configs``.
    """

    heading = "segmenter"
    rows = tuple(ROWS)
    columns = ("hIoU", "mIoU-seen", "mIoU-unseen", "mIoU", "pACC")

    def __init__(
        self, experiment: Experiment, root: Path, configs: Path, store: RunStore, overrides: Sequence[Any] = ()
    ) -> None:
        super().__init__(store, overrides)
        self.experiment, self.root, self.configs = experiment, root, configs
        self.name, self.dataset = experiment.name, experiment.dataset
        self.title = f"{self.dataset}, all classes; mean ± half the range over seeds"
        shapes = root / "shapes" / "shapes.json"
        self.facts = read_json(shapes)["options"] if experiment.classes and shapes.is_file() else None

    def run_of(self, row: str, seed: int) -> Run:
        identity = {
            "row": row,
            "seed": seed,
            "config": sha256_of_json([self._text(file) for file in config_files(self.experiment, ROWS[row])]),
            "overrides": [[key, str(value)] for key, value in ROWS[row].overrides],
            "more_overrides": [str(text) for text in self.overrides],
            "shapes": self.facts,
        }
        return Run(row, seed, identity)

    def about(self, row: str) -> dict[str, Any]:
        hand = {"hand_prompt": True} if ROWS[row].learner == "predefined" else {}
        return {"config_file": f"configs/mini/{self.experiment.config}", **hand}

    def training(self, row: str, seed: int) -> tuple[Path, dict[str, Any]]:
        plan = ROWS[row]
        settings: dict[str, Any] = {
            "MODEL.CLIP_ADAPTER.PROMPT_LEARNER": plan.learner,
            "DATASETS.TEST": (self.dataset,),
        }
        if plan.learner != "predefined":
            checkpoint = self.prompt(seed) if plan.tuning is None else self.tuned_prompt(plan.tuning, seed)
            settings["MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT"] = str(checkpoint)
            settings |= self._shape(plan.learner, seed)
        if self.experiment.classes:
            listed = read_json(self.root / self.experiment.classes)
            settings["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = len(listed["names"]) - len(listed["unseen"])
        return self.configs / "mini" / self.experiment.config, settings | dict(plan.overrides)

    def prompt(self, seed: int) -> Path:
        """The prompt of POMP's rows, learned unless it exists."""
        images, vocabulary = (
            text.format(root=self.root) for text in (self.experiment.train, self.experiment.vocabulary)
        )
        return self.learned_prompt(self.configs / "prompt" / self.experiment.prompt, seed, images, vocabulary)

    def tuned_prompt(self, learner: str, seed: int) -> Path:
        """The output of stage 1, trained unless it exists."""
        start = "" if learner == "learnable" else str(self.prompt(seed))
        names = (self.experiment.tuning, "segmentation_prompt.yaml", "segmentation_base.yaml")
        files = [f"mini/{name}" for name in names]
        identity = sha256_of_json([[self._text(file) for file in files], learner, seed, start, self.facts])
        path = self.store.folder / f"tuned_{identity[:16]}" / FINAL_WEIGHTS
        if not path.is_file():
            settings = {"SEED": seed, "OUTPUT_DIR": str(path.parent)} | self._shape(learner, seed)
            settings |= {"MODEL.CLIP_ADAPTER.PROMPT_LEARNER": learner, "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT": start}
            train(self.configs / files[0], settings, f"the tuning of prompt {learner!r}, seed {seed},")
        return path

    def _shape(self, learner: str, seed: int) -> dict[str, Any]:
        """ZSSeg's own prompt has its published length, POMP's the length that it was learned with."""
        if learner == "learnable":
            return {"MODEL.CLIP_ADAPTER.PROMPT_SHAPE": (16, 0)}
        from prompt_core.prompt import SoftPrompt

        return {"MODEL.CLIP_ADAPTER.PROMPT_SHAPE": (SoftPrompt.load(self.prompt(seed)).n_ctx, 0)}

    def _text(self, file: str) -> str:
        return (self.configs / file).read_text(encoding="utf-8")


def config_files(experiment: Experiment, row: Row) -> list[str]:
    """Files below ``configs`` that a row depends on."""
    files = [f"mini/{experiment.config}", "mini/segmentation_base.yaml"]
    if row.learner != "predefined":
        files.append(f"prompt/{experiment.prompt}")
    if row.tuning is not None:
        files += [f"mini/{experiment.tuning}", "mini/segmentation_prompt.yaml"]
    return files
