"""Segmenters side by side, one for each kind of prompt: seen and unseen classes, mean over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.comparisons.runs import RunStore, learned_prompt, mean_row, run_process
from prompt_core.files import read_json, sha256_of_json

METRICS = ("hIoU", "mIoU-seen", "mIoU-unseen", "mIoU", "pACC")


@dataclass(frozen=True)
class Row:
    """One segmenter of the table.

    Attributes:
        name: in the table.
        learner: ``CLIP_ADAPTER.PROMPT_LEARNER`` of stage 2.
        tuning: that of stage 1, the tuning of the prompt on regions; None without it.
        overrides: further settings of stage 2.
    """

    name: str
    learner: str
    tuning: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()


_PER_PIXEL = (
    ("MODEL.META_ARCHITECTURE", "ZeroShotPerPixelModel"),
    ("MODEL.SEM_SEG_HEAD.NAME", "ZeroPerPixelBaselineHead"),
    ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 116),
    ("MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", 2.0),
)

ROWS = (
    Row("hand prompt", "predefined"),
    Row("ZSSeg's own prompt, tuned", "learnable", "learnable"),
    Row("POMP", "pomp"),
    Row("POMP, tuned", "pomp_tuned", "pomp"),
    Row("SPNet, hand prompt", "predefined", overrides=_PER_PIXEL),
)


@dataclass(frozen=True)
class Experiment:
    """The data of a table.

    Attributes:
        config: file of stage 2 in ``configs/mini``, and ``tuning`` that of stage 1.
        dataset: the test set whose numbers are shown.
        prompt: file in ``configs/prompt`` that learns the prompt, with ``train`` and ``vocabulary``, ``DATA.TRAIN`` and
            ``DATA.VOCABULARY``; ``{root}`` stands for the data root.
        classes: JSON below the root with ``names`` and ``unseen``, where the number of seen classes is not fixed.
    """

    config: str
    tuning: str
    dataset: str
    prompt: str
    train: str
    vocabulary: str
    classes: str = ""


EXPERIMENTS = {
    "scenes": Experiment(
        "scenes_seg.yaml",
        "scenes_seg_prompt.yaml",
        "shapes_sem_seg_val",
        "mini_shapes.yaml",
        "folder:{root}/shapes/classification",
        "{root}/shapes/class_names.txt",
        "shapes/semantic_classes.json",
    ),
    "coco": Experiment(
        "coco_seg.yaml",
        "coco_seg_prompt.yaml",
        "coco_small_sem_seg_val",
        "mini_tiny_imagenet.yaml",
        "tiny_imagenet:{root}/tiny-imagenet-200",
        "imagenet21k",
    ),
}


class SegmenterComparison:
    """Runs of the table that are missing, and the table of those that are done.

    Args:
        root: the data root; its data sets are prepared.
        configs: the folder ``configs``.
        folder: for segmenters and prompts; ``results`` gets one small JSON file for each run.
        overrides: ``KEY VALUE`` pairs for all segmenters, flat.
    """

    def __init__(
        self,
        experiment: Experiment,
        root: Path,
        configs: Path,
        folder: Path,
        results: Path,
        overrides: Sequence[Any] = (),
    ) -> None:
        self.experiment, self.root, self.configs, self.folder = experiment, root, configs, folder
        self.overrides = list(overrides)
        self._store = RunStore(folder, results)

    def run(self, row: Row, seed: int) -> dict[str, Any]:
        """The numbers of a row: read where this very run is done, else of a training in a process of its own.

        Raises:
            UserError: when a training stops.
        """
        identity = self._identity(row, seed)
        known = self._store.known(identity)
        if known is not None:
            return known
        settings: dict[str, Any] = {"SEED": seed, "OUTPUT_DIR": str(self._store.output(identity))}
        settings |= {"MODEL.CLIP_ADAPTER.PROMPT_LEARNER": row.learner, "DATASETS.TEST": (self.experiment.dataset,)}
        settings |= self._prompt_settings(row, seed)
        if self.experiment.classes:
            listed = read_json(self.root / self.experiment.classes)
            settings["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = len(listed["names"]) - len(listed["unseen"])
        settings |= dict(row.overrides)
        settings |= dict(zip(self.overrides[::2], self.overrides[1::2], strict=True))
        what = f"row {row.name!r}, seed {seed},"
        run_process(_train, (str(self.configs / "mini" / self.experiment.config), settings), what)
        return self._store.keep(identity, self.experiment.dataset)

    def table(self, rows: Sequence[Row], seeds: Sequence[int]) -> tuple[list[str], list[list[str]]]:
        """Headings and cells: mean over the seeds that are done, half the range behind it."""
        cells = []
        for row in rows:
            found = [self._store.known(self._identity(row, seed)) for seed in seeds]
            cells.append(mean_row(row.name, [each for each in found if each is not None], METRICS))
        return ["segmenter", "seeds", *METRICS], cells

    def _identity(self, row: Row, seed: int) -> dict[str, Any]:
        files = [f"mini/{self.experiment.config}", "mini/segmentation_base.yaml"]
        if row.learner != "predefined":
            files += [f"prompt/{self.experiment.prompt}"]
        if row.tuning is not None:
            files += [f"mini/{self.experiment.tuning}", "mini/segmentation_prompt.yaml"]
        identity = {
            "row": row.name,
            "seed": seed,
            "config": sha256_of_json([(self.configs / file).read_text(encoding="utf-8") for file in files]),
            "overrides": [[str(key), str(value)] for key, value in row.overrides],
            "more_overrides": [str(each) for each in self.overrides],
        }
        return identity | {"shapes": self._shapes()}

    def _prompt_settings(self, row: Row, seed: int) -> dict[str, Any]:
        """Which learned vectors stage 2 freezes."""
        if row.learner == "predefined":
            return {}
        checkpoint = self._prompt(seed) if row.tuning is None else self._tuned(row.tuning, seed)
        settings: dict[str, Any] = {"MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT": str(checkpoint)}
        return settings | self._shape(row.learner, seed)

    def _shape(self, learner: str, seed: int) -> dict[str, Any]:
        """ZSSeg's own prompt has its published length, POMP's the one that it was learned with."""
        if learner == "learnable":
            return {"MODEL.CLIP_ADAPTER.PROMPT_SHAPE": (16, 0)}
        from prompt_core.prompt import SoftPrompt

        return {"MODEL.CLIP_ADAPTER.PROMPT_SHAPE": (SoftPrompt.load(self._prompt(seed)).n_ctx, 0)}

    def _prompt(self, seed: int) -> Path:
        return learned_prompt(
            self.configs / "prompt" / self.experiment.prompt,
            self.folder,
            seed,
            self.experiment.train.format(root=self.root),
            self.experiment.vocabulary.format(root=self.root),
            self._shapes(),
        )

    def _tuned(self, learner: str, seed: int) -> Path:
        """The output of stage 1, unless it is there."""
        start = "" if learner == "learnable" else str(self._prompt(seed))
        files = [self.experiment.tuning, "segmentation_prompt.yaml", "segmentation_base.yaml"]
        texts = [(self.configs / "mini" / file).read_text(encoding="utf-8") for file in files]
        output = self.folder / f"tuned_{sha256_of_json([texts, learner, seed, start, self._shapes()])[:16]}"
        path = output / "model_final.pth"
        if not path.is_file():
            settings = {"SEED": seed, "OUTPUT_DIR": str(output)} | self._shape(learner, seed)
            settings |= {"MODEL.CLIP_ADAPTER.PROMPT_LEARNER": learner, "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT": start}
            file = str(self.configs / "mini" / self.experiment.tuning)
            run_process(_train, (file, settings), f"the tuning of prompt {learner!r}, seed {seed},")
        return path

    def _shapes(self) -> Any:
        """The options that the generated scenes were made with; None for photos."""
        file = self.root / "shapes" / "shapes.json"
        return read_json(file)["options"] if self.experiment.classes and file.is_file() else None


def _train(config: str, overrides: Mapping[str, Any]) -> None:
    """What the process of a run does; a run that was stopped goes on."""
    from pomp_engine.run import train
    from pomp_seg.config import load_config
    from pomp_seg.task import segmentation_task
    from prompt_core.errors import run_command

    def main() -> None:
        train(segmentation_task(), load_config(config, overrides), resume=True)

    run_command(main)
