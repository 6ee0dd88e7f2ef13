"""Detectors side by side on generated scenes: the effects of the classifier's words, the prompt and image labels.

Base classes are the frequent and common ones and have boxes; the rare ones are novel: they have no boxes, but the
classifier knows their names, and in the second stage pictures of single objects have them as image labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.comparisons.comparison import FINAL_WEIGHTS, Comparison
from pomp_lab.runs import RunStore
from pomp_lab.shapes.facts import shape_options
from prompt_core.files import read_json, sha256_of_json, write_json

HAND, POMP = "a {}", "POMP"


@dataclass(frozen=True)
class DetectorRow:
    """One detector of the table.

    Attributes:
        config: file in ``configs/mini``.
        classifier: :data:`HAND`, :data:`POMP`, or None for a learned layer of the base classes' boxes.
        start: name of the row whose weights it starts from.
        overrides: further settings.
    """

    config: str
    classifier: str | None
    start: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def hand(self) -> bool:
        """Whether its prompt is a hand-written one."""
        return self.classifier == HAND


_LEARNED = (
    ("MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS", False),
    ("MODEL.ROI_BOX_HEAD.FAST_INFERENCE", False),
)
_NEGATIVES = (("MODEL.ROI_BOX_HEAD.HELD_OUT_FREQUENCIES", ""),)

ROWS = {
    "boxes, learned classifier": DetectorRow("scenes_boxes.yaml", None, overrides=_LEARNED),
    'boxes, "a {name}"': DetectorRow("scenes_boxes.yaml", HAND),
    "boxes, POMP": DetectorRow("scenes_boxes.yaml", POMP),
    "boxes, POMP, novel names as negatives": DetectorRow("scenes_boxes.yaml", POMP, overrides=_NEGATIVES),
    'boxes and image labels, "a {name}"': DetectorRow("scenes_images.yaml", HAND, start='boxes, "a {name}"'),
    "boxes and image labels, POMP": DetectorRow("scenes_images.yaml", POMP, start="boxes, POMP"),
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

    def training(self, row: str, seed: int) -> dict[str, Any]:
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
        if plan.classifier is not None:
            settings["MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH"] = str(self._classifier(plan.classifier, seed))
        if plan.start is not None:
            start = plan.start
            weights = self.store.folder_of(self.run_of(start, seed)) / FINAL_WEIGHTS
            # results may be moved without their weights
            settings["MODEL.WEIGHTS"] = str(self.store.once(weights, lambda: self.train(start, seed)))
        return settings

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
