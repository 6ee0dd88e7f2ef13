"""Detectors side by side on generated scenes: what the classifier's words, the prompt and image labels each bring.

Base classes are the frequent and common ones and have boxes; the rare ones are novel: no box, but their names are known
to the classifier, and in the second stage pictures of single objects carry them as image labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomp_lab.comparisons.runs import RunStore, learned_prompt, mean_row, run_process
from prompt_core.files import read_json, sha256_of_json, write_json

METRICS = ("AP", "APr", "APc", "APf")
HAND, POMP = "a {}", "POMP"


@dataclass(frozen=True)
class Row:
    """One detector of the table.

    Attributes:
        name: in the table.
        config: file in ``configs/mini``.
        classifier: :data:`HAND`, :data:`POMP`, or None for a learned layer of the base classes' boxes.
        start: name of the row whose weights it starts from.
        overrides: further settings.
    """

    name: str
    config: str
    classifier: str | None
    start: str | None = None
    overrides: tuple[tuple[str, Any], ...] = ()


_LEARNED = (
    ("MODEL.ROI_BOX_HEAD.USE_ZEROSHOT_CLS", False),
    ("MODEL.ROI_BOX_HEAD.FAST_INFERENCE", False),
)
_NEGATIVES = (("MODEL.ROI_BOX_HEAD.HELD_OUT_FREQUENCIES", ""),)

ROWS = (
    Row("boxes, learned classifier", "scenes_boxes.yaml", None, overrides=_LEARNED),
    Row('boxes, "a {name}"', "scenes_boxes.yaml", HAND),
    Row("boxes, POMP", "scenes_boxes.yaml", POMP),
    Row("boxes, POMP, novel names as negatives", "scenes_boxes.yaml", POMP, overrides=_NEGATIVES),
    Row('boxes and image labels, "a {name}"', "scenes_images.yaml", HAND, start='boxes, "a {name}"'),
    Row("boxes and image labels, POMP", "scenes_images.yaml", POMP, start="boxes, POMP"),
)


class DetectorComparison:
    """Runs of the table that are missing, and the table of those that are done.

    Args:
        shapes: generated shapes with both parts, image labels prepared.
        configs: the folder of the rows' configurations.
        folder: for detectors and prompts; ``results`` gets one small JSON file for each run.
    """

    def __init__(self, shapes: Path, configs: Path, folder: Path, results: Path, overrides: Sequence[Any] = ()) -> None:
        self.shapes, self.configs, self.folder = shapes, configs, folder
        self._store = RunStore(folder, results)
        self.overrides = list(overrides)
        self._data = read_json(shapes / "shapes.json")

    def run(self, row: Row, seed: int) -> dict[str, Any]:
        """The result of a row: read where this very run is done, else trained and evaluated in a process of its own.

        Raises:
            UserError: when the training stops.
        """
        known = self._store.known(self._identity(row, seed))
        return self._train(row, seed) if known is None else known

    def _train(self, row: Row, seed: int) -> dict[str, Any]:
        identity = self._identity(row, seed)
        weights = ""
        if row.start is not None:
            start = next(each for each in ROWS if each.name == row.start)
            weights = str(self._output(start, seed) / "model_final.pth")
            if not Path(weights).is_file():  # results travel without their weights
                self._train(start, seed)
        classifier = self._classifier(row.classifier, seed) if row.classifier else None
        overrides = self._settings(row, seed, weights, classifier)
        run_process(_train, (str(self.configs / row.config), overrides), f"row {row.name!r}, seed {seed},")
        return self._store.keep(identity, "shapes_lvis_val")

    def _identity(self, row: Row, seed: int) -> dict[str, Any]:
        text = (self.configs / row.config).read_text() + (self.configs / "base.yaml").read_text()
        boxes = (self.configs / "scenes_boxes.yaml").read_text()
        return {
            "row": row.name,
            "seed": seed,
            "config": sha256_of_json([text, boxes]),
            "overrides": [[str(key), str(value)] for key, value in row.overrides],
            "more_overrides": [str(each) for each in self.overrides],
            "shapes": self._data["options"],
        }

    def _output(self, row: Row, seed: int) -> Path:
        return self._store.output(self._identity(row, seed))

    def _settings(self, row: Row, seed: int, weights: str, classifier: Path | None) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "SEED": seed,
            "OUTPUT_DIR": str(self._output(row, seed)),
            "MODEL.ROI_HEADS.NUM_CLASSES": int(self._data["options"]["classes"]),
            "MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH": str(self._counts()),
            "DATASETS.FILES": self._files(),
        }
        if classifier is not None:
            settings["MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH"] = str(classifier)
        if weights:
            settings["MODEL.WEIGHTS"] = weights
        settings |= dict(row.overrides)
        settings |= dict(zip(self.overrides[::2], self.overrides[1::2], strict=True))
        return settings

    def _files(self) -> list[list[str]]:
        annotations = self.shapes / "annotations"
        scenes, pictures = str(self.shapes / "scenes"), str(self.shapes / "classification" / "val")
        return [
            ["shapes_lvis_train_norare", str(annotations / "lvis_train_norare.json"), scenes, "lvis"],
            ["shapes_lvis_val", str(annotations / "lvis_val.json"), scenes, "lvis"],
            ["shapes_image_labels", str(annotations / "image_labels.json"), pictures, "image_labels"],
        ]

    def _counts(self) -> Path:
        """The categories with their counts and frequencies, as the federated loss reads them."""
        path = self.folder / "categories.json"
        if not path.is_file():
            write_json(path, read_json(self.shapes / "annotations" / "lvis_train.json")["categories"])
        return path

    def _classifier(self, kind: str, seed: int) -> Path:
        prompt = self._prompt(seed) if kind == POMP else None
        path = self.folder / ("hand.safetensors" if prompt is None else f"{prompt.parent.name}_classifier.safetensors")
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

    def _prompt(self, seed: int) -> Path:
        """Learned on pictures of the base classes, as the demo does."""
        return learned_prompt(
            self.configs.parent / "prompt" / "mini_shapes.yaml",
            self.folder,
            seed,
            f"folder:{self.shapes / 'classification'}",
            str(self.shapes / "class_names.txt"),
            self._data["options"],
        )

    def table(self, rows: Sequence[Row], seeds: Sequence[int]) -> tuple[list[str], list[list[str]]]:
        """Headings and cells: mean over the seeds that are done, half the range behind it."""
        metrics = [(task, name) for task in ("box", "mask") for name in METRICS]
        headings = ["detector", "seeds", *(f"{task} {name}" for task, name in metrics)]
        cells = []
        for row in rows:
            found = [self._store.known(self._identity(row, seed)) for seed in seeds]
            done = [each for each in found if each is not None]
            cells.append(mean_row(row.name, done, [f"{task}_{name}" for task, name in metrics]))
        return headings, cells


def _train(config: str, overrides: Mapping[str, Any]) -> None:
    """What the process of a run does; a run that was stopped goes on."""
    from pomp_det.config import load_config
    from pomp_det.task import detection_task
    from pomp_engine.run import train
    from prompt_core.errors import run_command

    def main() -> None:
        train(detection_task(), load_config(config, overrides), resume=True)

    run_command(main)
