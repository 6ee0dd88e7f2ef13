"""Detectors side by side on generated scenes: words, prompts, image labels, and what CLIP says of regions.

Base classes are the frequent and common ones and have boxes; the rare ones are novel: they have no boxes, but the
classifier knows their names, and in the second stage pictures of single objects have them as image labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pomp_lab.comparisons.comparison import FINAL_WEIGHTS, Comparison
from pomp_lab.comparisons.fitted_clip import fit_clip
from pomp_lab.comparisons.region_classifiers import (
    DETPRO,
    PROMPTDET,
    embed_boxes,
    embed_proposals,
    learn_region_classifier,
)
from pomp_lab.runs import METRICS_FILE, RunStore
from pomp_lab.shapes.facts import shape_options
from prompt_core.config import override_pairs
from prompt_core.files import read_json, sha256_of_json, write_json

HAND, POMP, TRUTH = "a {}", "POMP", "annotations"
PROPOSALS_SEED = 0  # of the detector whose proposals are embedded


@dataclass(frozen=True)
class DetectorRow:
    """One detector of the table.

    Attributes:
        config: file in ``configs/mini``.
        classifier: :data:`HAND`, :data:`POMP`, ``DETPRO``, ``PROMPTDET``, or None for a learned layer of the base
            classes' boxes.
        start: name of the row whose weights it starts from.
        regions: name of the row whose proposals are embedded, to distil from and to learn ``DETPRO`` on.
        given: whose boxes and masks CLIP names, without training: :data:`TRUTH`, or another row.
        overrides: further settings.
    """

    config: str
    classifier: str | None
    start: str | None = None
    regions: str | None = None
    given: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def hand(self) -> bool:
        """Whether its prompt is a hand-written one."""
        return self.classifier == HAND

    @property
    def evaluated(self) -> bool:
        """Whether nothing is trained."""
        return self.given is not None


_LEARNED = (
    ("MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS", False),
    ("MODEL.ROI_BOX_HEAD.FAST_INFERENCE", False),
)
# ViLD-ensemble as in configs/detection/lvis_base_boxes_vild_ensemble.yaml, distilled from mini.
_TWO_HEADS = (
    ("MODEL.ROI_HEADS.NAME", "ViLDEnsembleROIHeads"),
    ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", False),
    ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", False),
    ("MODEL.ROI_BOX_HEAD.USE_BIAS", 0.0),
    ("MODEL.ROI_BOX_HEAD.LEARNED_BACKGROUND", True),
    ("MODEL.ROI_BOX_HEAD.DISTILLATION_WEIGHT", 0.5),
    ("MODEL.ROI_BOX_HEAD.DISTILLATION_PROPOSALS", 32),
)
_NEGATIVES = (("MODEL.ROI_BOX_HEAD.HELD_OUT_FREQUENCIES", ""),)
# Self-training as in configs/detection/lvis_base_images_promptdet.yaml.
_SELF_TRAINING = (("MODEL.ROI_BOX_HEAD.IMAGE_LABEL_LOSS", "max_score"), ("MODEL.ROI_BOX_HEAD.WS_NUM_PROPS", 20))

# The best distinct boxes of a scene, which shows five objects.
_GIVEN = (("MODEL.VOCABULARY", ""), ("MODEL.PROMPT", ""), ("MODEL.PROPOSALS.LIMIT", 16))

ROWS = {
    "boxes, learned classifier": DetectorRow("scenes_boxes.yaml", None, overrides=_LEARNED),
    'boxes, "a {name}"': DetectorRow("scenes_boxes.yaml", HAND),
    "boxes, POMP": DetectorRow("scenes_boxes.yaml", POMP),
    "boxes, POMP, novel names as negatives": DetectorRow("scenes_boxes.yaml", POMP, overrides=_NEGATIVES),
    'boxes and image labels, "a {name}"': DetectorRow("scenes_images.yaml", HAND, start='boxes, "a {name}"'),
    "boxes and image labels, POMP": DetectorRow("scenes_images.yaml", POMP, start="boxes, POMP"),
    'boxes, ViLD-ensemble, "a {name}"': DetectorRow(
        "scenes_boxes.yaml", HAND, regions='boxes, "a {name}"', overrides=_TWO_HEADS
    ),
    "boxes, ViLD-ensemble, DetPro": DetectorRow(
        "scenes_boxes.yaml", DETPRO, regions='boxes, "a {name}"', overrides=_TWO_HEADS
    ),
    "boxes, PromptDet": DetectorRow("scenes_boxes.yaml", PROMPTDET),
    "boxes and image labels, PromptDet": DetectorRow(
        "scenes_images.yaml", PROMPTDET, start="boxes, PromptDet", overrides=_SELF_TRAINING
    ),
    'true masks, named by CLIP, "a {name}"': DetectorRow("given_regions.yaml", HAND, given=TRUTH, overrides=_GIVEN),
    'boxes, "a {name}", named by CLIP': DetectorRow(
        "given_regions.yaml", HAND, given='boxes, "a {name}"', overrides=_GIVEN
    ),
}


class DetectorComparison(Comparison):
    """The table of detectors.

    Args:
        shapes: generated shapes with both parts, image labels prepared.
    """

    title = "LVIS AP on generated scenes; r: novel classes; mean ± half the range over seeds"
    heading, dataset = "detector", "shapes_lvis_val"
    rows = ROWS
    columns = tuple(f"{task} {metric}" for task in ("box", "mask") for metric in ("AP", "APr", "APc", "APf"))

    def __init__(self, shapes: Path, configs: Path, store: RunStore, overrides: Sequence[Any] = ()) -> None:
        super().__init__(configs, store, overrides)
        self.shapes = shapes
        self.facts = shape_options(shapes)

    def config_file(self, row: str) -> str:
        return f"mini/{ROWS[row].config}"

    def config_hash(self, row: str) -> str:
        own, base, boxes = map(self.read, (self.config_file(row), "mini/base.yaml", "mini/scenes_boxes.yaml"))
        return sha256_of_json([own + base, boxes])

    def settings(self, row: str, seed: int) -> dict[str, Any]:
        plan, annotations = ROWS[row], self.shapes / "annotations"
        scenes, pictures = str(self.shapes / "scenes"), str(self.shapes / "classification" / "val")
        settings: dict[str, Any] = {
            "MODEL.ROI_HEADS.NUM_CLASSES": int(self.facts["classes"]),
            "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(self._counts()),
            "DATASETS.FILES": [
                ["shapes_lvis_train_norare", str(annotations / "lvis_train_norare.json"), scenes, "lvis"],
                [self.dataset, str(annotations / "lvis_val.json"), scenes, "lvis"],
                ["shapes_image_labels", str(annotations / "image_labels.json"), pictures, "image_labels"],
            ],
        }
        if plan.regions is not None:
            regions = self._regions(plan.regions)
            settings["MODEL.ROI_BOX_HEAD.DISTILLATION_FILE"] = str(regions)
        if plan.classifier in (DETPRO, PROMPTDET):
            if plan.regions is None:
                regions = self._boxes()
            classifier = self._learned_on(plan.classifier, regions, seed)
            settings["MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH"] = str(classifier)
        elif plan.classifier is not None:
            settings["MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH"] = str(self._classifier(plan.classifier, seed))
        if plan.start is not None:
            settings["MODEL.WEIGHTS"] = str(self._weights(plan.start, seed))
        if plan.given is not None:
            truth = annotations / "lvis_val.json"
            regions = truth if plan.given == TRUTH else self._found(plan.given, seed)
            settings["MODEL.PROPOSALS.FILE"], settings["DATASETS.TEST"] = str(regions), (self.dataset,)
            settings["MODEL.DISTILLATION_CLIP.PRETRAINED"] = str(self._teacher())
        return settings

    def _found(self, row: str, seed: int) -> Path:
        """What a row's detector found in the test scenes."""
        done = self.store.once(self.store.folder_of(self.run_of(row, seed)) / METRICS_FILE, lambda: self.do(row, seed))
        return done.parent / f"inference_{self.dataset}" / "lvis_instances_results.json"

    def _weights(self, row: str, seed: int) -> Path:
        """The weights of a row; results may be moved without them."""
        weights = self.store.folder_of(self.run_of(row, seed)) / FINAL_WEIGHTS
        return self.store.once(weights, lambda: self.do(row, seed))

    def _regions(self, row: str) -> Path:
        """Embeddings of what a row's detector proposes in the training scenes.

        They come from one detector for all seeds, as ViLD's come from one network of proposals.
        """
        from pomp_det.data.region_cache import INDEX

        seed, teacher = PROPOSALS_SEED, self._teacher()
        weights = self._weights(row, seed)
        folder = self.store.folder / f"regions_{self.run_of(row, seed).id}"
        overrides = {**self.settings(row, seed), **dict(ROWS[row].overrides), "MODEL.WEIGHTS": str(weights)}
        overrides |= dict(override_pairs(self.overrides))
        config = self.configs / self.config_file(row)
        return self.store.once(folder / INDEX, lambda: embed_proposals(config, overrides, teacher, folder)).parent

    def _boxes(self) -> Path:
        """Embeddings of the boxes of the base classes."""
        from pomp_det.data.region_cache import INDEX

        folder, teacher = self.store.folder / "regions_boxes", self._teacher()
        make = partial(embed_boxes, self.shapes / "annotations", teacher, folder)
        return self.store.once(folder / INDEX, make).parent

    def _teacher(self) -> Path:
        """A CLIP that knows the shapes from the pictures that the rows with image labels learn from."""
        from prompt_core.classifier import TextClassifier

        path, pictures = self.store.folder / "teacher.safetensors", self.shapes / "classification" / "val"
        words = self._classifier(HAND, 0)
        return self.store.once(path, lambda: fit_clip(pictures, TextClassifier.load(words), path))

    def _learned_on(self, method: str, regions: Path, seed: int) -> Path:
        """The classifier of all classes by prompts that are learned on regions."""
        path = regions.parent / f"{regions.name}_{method.lower()}_{seed}" / "classifier.safetensors"
        make = partial(learn_region_classifier, method, regions, self._teacher(), self.shapes, seed, path)
        return self.store.once(path, make)

    def _counts(self) -> Path:
        """The categories with their counts and frequencies, as the federated loss reads them."""
        path = self.store.folder / "categories.json"
        if not path.is_file():
            write_json(path, read_json(self.shapes / "annotations" / "lvis_train.json")["categories"])
        return path

    def _classifier(self, kind: str, seed: int) -> Path:
        prompt = None
        if kind == POMP:  # learned on pictures of the base classes, as in the demo
            pictures, names = f"folder:{self.shapes / 'classification'}", str(self.shapes / "class_names.txt")
            prompt = self.learned_prompt("mini_shapes.yaml", seed, pictures, names)
        name = "hand.safetensors" if prompt is None else f"{prompt.parent.name}_classifier.safetensors"
        path = self.store.folder / name
        if path.is_file():
            return path
        from prompt_core.classifier import TextClassifier
        from prompt_core.clip import load_clip
        from prompt_core.prompt import SoftPrompt
        from prompt_core.vocabulary import Vocabulary

        subject: Any = HAND if prompt is None else SoftPrompt.load(prompt)
        vocabulary = Vocabulary.load(self.shapes / "annotations" / "lvis_train.json")
        TextClassifier.build(load_clip("mini"), vocabulary, subject).save(path)
        return path
