"""Segmenters side by side, one per kind of prompt: seen and unseen classes, means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.comparisons.comparison import FINAL_WEIGHTS, Comparison, train
from pomp_lab.comparisons.fitted_clip import fit_clip
from pomp_lab.runs import RunStore
from pomp_lab.shapes.facts import shape_options
from prompt_core.errors import UserError
from prompt_core.files import atomic_path, make_output_folder, read_json, sha256_of_json


@dataclass(frozen=True)
class SegmenterRow:
    """One segmenter of the table.

    Attributes:
        learner: ``CLIP_ADAPTER.PROMPT_LEARNER`` of stage 2.
        tuning: that of stage 1, the tuning of the prompt on regions; None without it.
        overrides: further settings of stage 2.
        starts_from: another row, with whose weights of the same seed it begins; empty for the configuration's.
        evaluated: not trained further.
        fitted: regions are seen by a CLIP that knows what the scenes show.
    """

    learner: str
    tuning: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()
    starts_from: str = ""
    evaluated: bool = False
    fitted: bool = False

    @property
    def hand(self) -> bool:
        """Whether its prompt is a hand-written one."""
        return self.learner == "predefined"


_PER_PIXEL = (
    ("MODEL.META_ARCHITECTURE", "ZeroShotPerPixelModel"),
    ("MODEL.SEM_SEG_HEAD.NAME", "ZeroPerPixelBaselineHead"),
    ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 116),
    ("MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", 2.0),
)
# ZS3 and CaGNet learn a classifier on the frozen pixels of SPNet's row, in a third of its steps; nothing that learns
# has been trained before, so the rate is higher.
_GENERATED = (
    ("MODEL.META_ARCHITECTURE", "GeneratedFeatureModel"),
    *_PER_PIXEL[1:3],
    ("SOLVER.MAX_ITER", 400),
    ("SOLVER.BASE_LR", 0.005),
    ("SOLVER.CLIP_GRADIENTS.ENABLED", False),
    ("MODEL.GENERATOR.SELF_TRAINING", 0.25),
    ("MODEL.GENERATOR.SELF_TRAINING_FROM", 200),
)
SPNET = "SPNet, hand prompt"
HAND = "a photo of a {}."  # as in configs/mini/scenes_seg.yaml
# CLIP's names for the true regions: no weights of a segmenter.
_TRUE_MASKS = (("ORACLE", True), ("MODEL.RANDOM_WEIGHTS", True))
# The scenes are 128 pixels wide and high.
_SIZES = (("TEST.AUG.ENABLED", True), ("TEST.AUG.MIN_SIZES", (96, 128, 160)), ("TEST.AUG.MAX_SIZE", 320))
_WINDOWS = (("TEST.SLIDING_WINDOW", True), ("TEST.SLIDING_TILE_SIZE", 96))
_CRF = (("TEST.DENSE_CRF", True),)


def _seen_again(*views: tuple[str, Any]) -> SegmenterRow:
    return SegmenterRow("predefined", overrides=(*_PER_PIXEL, *views), starts_from=SPNET, evaluated=True)


ROWS = {
    "hand prompt": SegmenterRow("predefined"),
    "ZSSeg's own prompt, tuned": SegmenterRow("learnable", "learnable"),
    "POMP": SegmenterRow("pomp"),
    "POMP, tuned": SegmenterRow("pomp_tuned", "pomp"),
    SPNET: SegmenterRow("predefined", overrides=_PER_PIXEL),
    "ZS3": SegmenterRow("predefined", overrides=_GENERATED, starts_from=SPNET),
    "CaGNet": SegmenterRow(
        "predefined",
        overrides=(
            *_GENERATED,
            ("MODEL.GENERATOR.KIND", "cagnet"),
            ("MODEL.GENERATOR.MOMENTS", 50.0),
            ("MODEL.GENERATOR.HIDDEN", 128),
        ),
        starts_from=SPNET,
    ),
    "true masks, hand prompt": SegmenterRow("predefined", overrides=_TRUE_MASKS, evaluated=True),
    "hand prompt, CLIP fitted to shapes": SegmenterRow(
        "predefined", starts_from="hand prompt", evaluated=True, fitted=True
    ),
    "true masks, hand prompt, CLIP fitted to shapes": SegmenterRow(
        "predefined", overrides=_TRUE_MASKS, evaluated=True, fitted=True
    ),
    "SPNet, hand prompt, three sizes, mirrored": _seen_again(*_SIZES),
    "SPNet, hand prompt, windows": _seen_again(*_WINDOWS),
    "SPNet, hand prompt, dense CRF": _seen_again(*_CRF),
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
        pictures: folder below the root with one of pictures for each class, to which CLIP is fitted in some rows.
    """

    name: str
    config: str
    tuning: str
    dataset: str
    prompt: str
    train: str
    vocabulary: str
    classes: str = ""
    pictures: str = ""

    @property
    def rows(self) -> dict[str, SegmenterRow]:
        """Those that these data have."""
        return {name: row for name, row in ROWS.items() if self.pictures or not row.fitted}


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
        "shapes/classification/val",
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
    """

    heading = "segmenter"
    rows = ROWS
    columns = ("hIoU", "mIoU-seen", "mIoU-unseen", "mIoU", "pACC")

    def __init__(
        self, experiment: Experiment, root: Path, configs: Path, store: RunStore, overrides: Sequence[Any] = ()
    ) -> None:
        super().__init__(configs, store, overrides)
        self.experiment, self.root, self.dataset = experiment, root, experiment.dataset
        self.title = f"{self.dataset}, all classes; mean ± half the range over seeds"
        self.facts = None
        if experiment.classes:
            classes = root / experiment.classes
            if not classes.is_file():
                raise UserError(f"{classes} does not exist; run python datasets/prepare.py shapes_seg")
            self.facts = shape_options(root / "shapes")

    def config_file(self, row: str) -> str:
        return f"mini/{self.experiment.config}"

    def config_hash(self, row: str) -> str:
        files = [self.config_file(row), "mini/segmentation_base.yaml"]
        if not ROWS[row].hand:
            files.append(f"prompt/{self.experiment.prompt}")
        if ROWS[row].tuning is not None:
            files += [f"mini/{self.experiment.tuning}", "mini/segmentation_prompt.yaml"]
        texts = list(map(self.read, files))
        if start := ROWS[row].starts_from:
            texts += [self.config_hash(start), str(ROWS[start].overrides)]
        return sha256_of_json(texts)

    def settings(self, row: str, seed: int) -> dict[str, Any]:
        plan = ROWS[row]
        settings: dict[str, Any] = {
            "MODEL.CLIP_ADAPTER.PROMPT_LEARNER": plan.learner,
            "DATASETS.TEST": (self.dataset,),
        }
        if not plan.hand:
            checkpoint = self.prompt(seed) if plan.tuning is None else self.tuned_prompt(plan.tuning, seed)
            settings["MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT"] = str(checkpoint)
            settings |= self._shape(plan.learner, seed)
        if plan.starts_from:
            start = self.run_of(plan.starts_from, seed)
            weights = self.store.folder_of(start) / FINAL_WEIGHTS
            weights = self.store.once(weights, lambda: self.do(plan.starts_from, seed))
            settings["MODEL.WEIGHTS"] = str(self._without_clip(weights) if plan.fitted else weights)
        if plan.fitted:
            settings["MODEL.CLIP_ADAPTER.CLIP_PRETRAINED"] = str(self._fitted_clip())
        if self.experiment.classes:
            listed = read_json(self.root / self.experiment.classes)
            settings["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = len(listed["names"]) - len(listed["unseen"])
        return settings

    def _fitted_clip(self) -> Path:
        """Weights of the CLIP of the rows that say so, which are fitted unless they exist."""
        from prompt_core.classifier import TextClassifier
        from prompt_core.clip import load_clip

        names = read_json(self.root / self.experiment.classes)["names"]
        path = self.store.folder / "fitted_clip" / "clip.safetensors"

        def make() -> None:
            make_output_folder(path.parent)
            fit_clip(self.root / self.experiment.pictures, TextClassifier.build(load_clip("mini"), names, HAND), path)

        return self.store.once(path, make)

    def _without_clip(self, weights: Path) -> Path:
        """The same weights without those of CLIP, which would be used instead of the one that a row names."""
        import torch

        path = self.store.folder / f"without_clip_{weights.parent.name}" / weights.name

        def make() -> None:
            state = torch.load(weights, weights_only=True)["model"]
            make_output_folder(path.parent)
            with atomic_path(path) as temporary:
                torch.save({"model": {key: state[key] for key in state if ".clip_model." not in key}}, temporary)

        return self.store.once(path, make)

    def prompt(self, seed: int) -> Path:
        """The prompt of POMP's rows, learned unless it exists."""
        images, vocabulary = (
            text.format(root=self.root) for text in (self.experiment.train, self.experiment.vocabulary)
        )
        return self.learned_prompt(self.experiment.prompt, seed, images, vocabulary)

    def tuned_prompt(self, learner: str, seed: int) -> Path:
        """The output of stage 1, trained unless it exists."""
        start = "" if learner == "learnable" else str(self.prompt(seed))
        config = f"mini/{self.experiment.tuning}"
        texts = list(map(self.read, (config, "mini/segmentation_prompt.yaml", "mini/segmentation_base.yaml")))
        identity = sha256_of_json([texts, learner, seed, start, self.facts])
        path = self.store.folder / f"tuned_{identity[:16]}" / FINAL_WEIGHTS
        settings = {"SEED": seed, "OUTPUT_DIR": str(path.parent)} | self._shape(learner, seed)
        settings |= {"MODEL.CLIP_ADAPTER.PROMPT_LEARNER": learner, "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT": start}
        what = f"the tuning of prompt {learner!r}, seed {seed},"
        return self.store.once(path, lambda: train(self.configs / config, settings, what))

    def _shape(self, learner: str, seed: int) -> dict[str, Any]:
        """ZSSeg's own prompt has its published length, POMP's the length that it was learned with."""
        if learner == "learnable":
            return {"MODEL.CLIP_ADAPTER.PROMPT_SHAPE": (16, 0)}
        from prompt_core.prompt import SoftPrompt

        return {"MODEL.CLIP_ADAPTER.PROMPT_SHAPE": (SoftPrompt.load(self.prompt(seed)).n_ctx, 0)}
