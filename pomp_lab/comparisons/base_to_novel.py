"""The base-to-novel experiment on Tiny-ImageNet: learn on base classes, score on novel ones, one JSON file per run.

160 base classes have training photos, 40 novel ones have none; negatives come from all names of ImageNet-21K. A run's
file is named by a hash of everything that decides it, so that what is done is not done again, and several processes
may share the work.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pomp_lab.comparisons.prompts import (
    base_novel_classes,
    class_features,
    evaluate_columns,
    geometry,
    halves_by_key,
    mean_and_spread,
)
from prompt_core.command_line import counting
from prompt_core.data.augment import train_transform
from prompt_core.data.catalog.hand_written import imagenet_templates
from prompt_core.data.feature_cache import cached_features
from prompt_core.data.images import ImageSet
from prompt_core.data.sources import photo_list, tiny_imagenet
from prompt_core.data.splits import few_shot
from prompt_core.evaluation.evaluate import TestSet
from prompt_core.evaluation.protocol import run_description
from prompt_core.files import read_json, sha256_of_json, write_json
from prompt_core.losses import Correction
from prompt_core.negatives import UniformSampler
from prompt_core.prompt import SoftPrompt
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.training.loop import LearningSettings, LearningState, learn_prompt
from prompt_core.training.recipe import initial_prompt, learning_settings
from prompt_core.vocabulary import Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

NOVEL_CLASSES, SPLIT_SEED = 40, 0
# Name of the row: (K, correction); K = 0 is the exact full softmax.
METHODS: dict[str, tuple[int, Correction]] = {
    "POMP K=100": (100, "log10"),
    "POMP K=100, no correction": (100, None),
    "POMP K=500": (500, "log10"),
    "POMP K=500, no correction": (500, None),
    "POMP K=1000": (1000, "log10"),
    "POMP K=1000, no correction": (1000, None),
    "POMP K=1000, ln": (1000, "ln"),
    "POMP K=1000, margin 2": (1000, 2.0),
    "full softmax": (0, None),
}


def hand_prompts() -> dict[str, list[str]]:
    """The hand-written prompts that learned ones are compared with."""
    ensemble = imagenet_templates()
    return {'"{}"': ["{}"], '"a photo of a {}."': ["a photo of a {}."], f"{len(ensemble)} templates": ensemble}


@dataclass(frozen=True)
class Experiment:
    """Everything that the runs share.

    Attributes:
        base: labels of the base classes in the training images.
        rows: row of ``vocabulary`` of each class of the data set.
        columns: the protocols of the table.
        updates: steps of each run; the batch follows from it, so that all numbers of shots get equally many.
        context: what tells these runs from those of another model or another half of the photos.
    """

    cfg: CfgNode
    encoder: PromptedTextEncoder
    images: ImageSet
    vocabulary: Vocabulary
    rows: np.ndarray
    base: np.ndarray
    columns: dict[str, TestSet]
    updates: int
    context: dict[str, Any]
    folder: Path

    def score_hand_prompts(self) -> None:
        """Score each hand prompt once."""
        for name, templates in hand_prompts().items():
            self._once(name, {"templates": templates}, None, lambda templates=templates: templates)  # type: ignore[misc]

    def score_learned(self, method: str, shots: int, seed: int) -> None:
        """Learn a prompt and score it, unless this very run is done."""
        settings, identity = self._settings(method, shots, seed)

        def learn() -> SoftPrompt:
            features, labels = self._training_features(shots, seed)
            batch = max(1, len(labels) * settings.epochs // self.updates)
            cfg = self.cfg.clone()
            cfg.defrost()
            cfg.SEED = seed
            prompt = initial_prompt(cfg, self.encoder.clip, len(self.vocabulary))
            for _ in learn_prompt(
                self.encoder,
                prompt,
                self.vocabulary,
                features,
                labels,
                dataclasses.replace(settings, batch=batch),
                UniformSampler(len(self.vocabulary)),
                LearningState(),
            ):
                pass
            return prompt

        self._once(f"{method}, {shots} shots", identity, seed, learn)

    def _settings(self, method: str, shots: int, seed: int) -> tuple[LearningSettings, dict[str, Any]]:
        """How a prompt is learned, and all that tells its run from others of this context."""
        number, correction = METHODS[method]
        settings = dataclasses.replace(
            learning_settings(self.cfg), num_classes=number, correction=correction, seed=seed, batch=0
        )
        augment = self.cfg.AUGMENT
        return settings, {
            **dataclasses.asdict(settings),
            "updates": self.updates,
            "shots": shots,
            "init": self.cfg.PROMPT.INIT,
            "n_ctx": self.cfg.PROMPT.N_CTX,
            "augment": [augment.STORED_VIEWS, list(augment.SCALE), augment.RAND_AUGMENT],
        }

    def _training_features(self, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, V, E) and labels (n,); all base photos are encoded once, each run takes its shots."""
        clip, augment = self.encoder.clip, self.cfg.AUGMENT
        images = self.images.select_classes(self.base)
        transform = train_transform(
            clip.image_size, clip.image_mean, clip.image_std, augment.RAND_AUGMENT, tuple(augment.SCALE)
        )
        with counting("encoding training photos") as progress:
            cached = cached_features(
                clip, images, augment.STORED_VIEWS, transform, 0, self.cfg.DATA.CACHE, progress=progress
            )
        place = {key: index for index, key in enumerate(cached.keys)}
        chosen = [place[key] for key in few_shot(images, shots, seed).keys if key in place]
        return cached.features[chosen], self.rows[self.base][cached.labels[chosen]]

    def _once(
        self,
        name: str,
        identity: dict[str, Any],
        seed: int | None,
        make: Callable[[], SoftPrompt | Sequence[str]],
    ) -> None:
        identity = json.loads(json.dumps({**self.context, **identity}))
        path = self.folder / "runs" / f"{sha256_of_json([name, identity])[:16]}.json"
        if path.exists():
            return
        features = class_features(self.encoder, self.vocabulary, make())
        top1 = evaluate_columns(features, self.columns)
        novel = next(column for key, column in self.columns.items() if key.startswith("novel"))
        run = run_description(None, seed)
        run["command"] = Path(run["command"].split(" ")[0]).name
        write_json(
            path,
            {
                "name": name,
                "top1": top1,
                "novel": geometry(features, novel),
                "seed": seed,
                "settings": identity,
                "_run": run,
            },
        )
        print(f"{name}, seed {seed}: " + "  ".join(f"{key} {value:.1f}" for key, value in top1.items()), flush=True)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows of all finished runs with these settings: mean over seeds, half the range behind it."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for path in sorted((self.folder / "runs").glob("*.json")):
            run = read_json(path)
            expected = self.context
            method = run["name"].rsplit(", ", 1)[0]
            if method in METHODS:
                expected = {**expected, **self._settings(method, run["settings"]["shots"], run["seed"])[1]}
            if run["settings"].items() >= json.loads(json.dumps(expected)).items():
                groups.setdefault(run["name"], []).append(run)
        order = [*hand_prompts(), *(f"{method}, {shots} shots" for shots in (16, 100) for method in METHODS)]
        rows = []
        for name in sorted(groups, key=lambda key: order.index(key) if key in order else len(order)):
            runs = groups[name]
            cells = [name, str(len(runs))]
            for column in self.columns:
                mean, spread = mean_and_spread([run["top1"][column] for run in runs])
                cells.append(f"{mean:.1f}" + (f" ± {spread:.1f}" if len(runs) > 1 else ""))
            for measure in ("alignment", "uniformity"):
                cells.append(f"{mean_and_spread([run['novel'][measure] for run in runs])[0]:.3f}")
            rows.append(cells)
        return ["prompt", "runs", *self.columns, "alignment", "uniformity"], rows


def open_experiment(
    cfg: CfgNode,
    encoder: PromptedTextEncoder,
    tiny_imagenet_root: str,
    photos: str | None,
    half: str,
    updates: int,
    folder: Path,
) -> Experiment:
    """Open the data and encode the validation photos.

    Args:
        tiny_imagenet_root: Tiny-ImageNet in its standard layout.
        photos: folder with ``labels.csv`` of photos of the 1,000 ImageNet classes, or None.
        half: ``tune`` or ``report``, which half of the validation photos to score.
    """
    clip = encoder.clip
    images = tiny_imagenet(tiny_imagenet_root, "train")
    base, novel = base_novel_classes(len(images.names), NOVEL_CLASSES, SPLIT_SEED)
    vocabulary, rows = vocabulary_of(images, "imagenet21k")
    everything = np.arange(len(vocabulary))
    which = ("tune", "report").index(half)
    with counting("encoding validation photos") as progress:
        cached = cached_features(
            clip,
            halves_by_key(tiny_imagenet(tiny_imagenet_root, "val"))[which],
            0,
            None,
            0,
            cfg.DATA.CACHE,
            progress=progress,
        )
    features = np.asarray(cached.features[:, 0], dtype=np.float32)
    columns = {}
    for part, classes in (("base", base), ("novel", novel)):
        own = np.isin(cached.labels, classes)
        labels = rows[cached.labels[own]]
        for candidates in (rows[classes], rows, everything):
            columns[f"{part} / {len(candidates):,}"] = TestSet(features[own], labels, vocabulary).among(candidates)
    if photos:
        columns |= _photo_columns(cfg, encoder, photos, which, vocabulary)
    context = {"clip": clip.fingerprint, "half": half}
    return Experiment(cfg, encoder, images, vocabulary, rows, base, columns, updates, context, folder)


def _photo_columns(
    cfg: CfgNode, encoder: PromptedTextEncoder, photos: str, which: int, vocabulary: Vocabulary
) -> dict[str, TestSet]:
    """Photos of the 1,000 ImageNet classes among these and among all; all 1,000 whichever half is scored."""
    images = photo_list(photos)
    cached = cached_features(encoder.clip, halves_by_key(images)[which], 0, None, 0, cfg.DATA.CACHE)
    features = np.asarray(cached.features[:, 0], dtype=np.float32)
    place = {identity: row for row, identity in enumerate(vocabulary.ids or [])}
    # Classes that the wide list does not know (one of ImageNet-1K's is missing from it) are left out.
    rows = np.array([place.get(identity, -1) for identity in images.ids])
    known = rows >= 0
    kept = known[cached.labels]
    everything = TestSet(features[kept], rows[cached.labels[kept]], vocabulary)
    return {
        f"photos / {len(candidates):,}": everything.among(candidates)
        for candidates in (rows[known], np.arange(len(vocabulary)))
    }
