"""Rows with seeds: their configurations, what determines their numbers, and the data and models that they open."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pomp_lab.runs import Run
from pomp_lab.tables.data_folders import DataFolders, training_settings
from pomp_lab.tables.plan import Row, Settings
from prompt_core.command_line import load_model
from prompt_core.config import flatten, load_config
from prompt_core.errors import UserError
from prompt_core.methods.registry import build_method, method_class
from prompt_core.training.data import training_images
from prompt_core.training.selection import open_selection
from prompt_core.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.data.images import ImageSet
    from prompt_core.methods.base import Method

# Keys that affect no number: paths and speed, and what identities record by content.
_PLACES = ("OUTPUT", "DEVICE", "SEED", "LOG", "DATA.TRAIN", "DATA.CLASSES", "DATA.VOCABULARY", "DATA.CACHE")
_SPEED = (
    "DATA.WORKERS",
    "DATA.ENCODE_BATCH",
    "RANKS.TIMEOUT_MINUTES",
    "MODEL.NAME",
    "MODEL.PRETRAINED",
    "EVAL.NAMESAKES",
    "EVAL.DATASETS",
)
# Keys that are younger than finished runs, with the value that those had: only another value makes another run.
_YOUNGER = {
    "MODEL.PRECISION": "float32",
    "LOSS.DRAWS": "batch",
    "LOSS.GROUP": 32,
    "LOSS.ANCHOR": 0.0,
    "LOSS.ANCHOR_NAMES": 256,
    "LOSS.ANCHOR_VOCABULARY": "imagenet21k",
    "LOSS.ANCHOR_TEMPLATE": "a photo of a {}.",
}


@dataclass(frozen=True)
class Inputs:
    """Training images and models, each opened once in a process.

    Attributes:
        lists: folder for lists of training classes.
    """

    folders: DataFolders
    lists: Path
    _opened: dict[Any, Any] = field(default_factory=dict)

    def training(self, row: Row) -> list[str]:
        """``KEY VALUE`` pairs of the training images of a row."""
        key = ("training", row.train, row.wide)
        return self._once(key, lambda: training_settings(row.train, row.wide, self.folders, self.lists))

    def few_shot(self, cfg: CfgNode) -> ImageSet:
        """The images that a configuration learns from; all of a large set would not be kept in memory."""
        data = cfg.DATA
        key = ("few", data.TRAIN, data.SPLIT, data.CLASSES, data.SHOTS, cfg.SEED)
        return self._once(key, lambda: training_images(cfg, data.SPLIT, data.SHOTS))

    def clip(self, cfg: CfgNode) -> Clip:
        """The model of a configuration; the last one is kept."""
        key = (cfg.MODEL.NAME, cfg.MODEL.PRETRAINED, cfg.DEVICE)
        if self._opened.get("clip", (None, None))[0] != key:
            self._opened["clip"] = (key, load_model(cfg))
        return self._opened["clip"][1]

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._opened:
            self._opened[key] = make()
        return self._opened[key]


@dataclass(frozen=True, eq=False)
class Job:
    """A row with a seed (None where nothing is learned).

    Attributes:
        as_configured: whether the row learns exactly as its configuration file says, including the budget.
    """

    row: Row
    seed: int | None
    cfg: CfgNode
    inputs: Inputs
    as_configured: bool = False

    @property
    def label(self) -> str:
        """For messages."""
        return self.row.name if self.seed is None else f"{self.row.name}, seed {self.seed}"

    @property
    def learns(self) -> bool:
        """Whether anything is learned."""
        return method_class(self.cfg.METHOD.NAME).learned_by != "nothing"

    @cached_property
    def run(self) -> Run:
        """Identified by configuration, images with their labels, class names and weights."""
        cfg, clip = self.cfg, self.inputs.clip(self.cfg)
        if not self.learns:
            return Run(self.row.name, self.seed, {"method": self.method().sha256(), "clip": clip.fingerprint})
        images = self.inputs.few_shot(cfg)
        identity = {
            "config": deciding_settings(cfg),
            "seed": self.seed,
            "images": images.fingerprint(),
            "vocabulary": vocabulary_of(images, cfg.DATA.VOCABULARY)[0].sha256,
            "clip": clip.fingerprint,
        }
        if selection := open_selection(cfg, False):
            identity["selection"] = selection.describe()
        return Run(self.row.name, self.seed, identity)

    @cached_property
    def impossible(self) -> str:
        """Why the method does not fit the model; empty where it does."""
        if method_class(self.cfg.METHOD.NAME).reads == "images":
            try:
                self.method()
            except UserError as error:
                return str(error)
        return ""

    def method(self) -> Method:
        """The method, with nothing learned."""
        return build_method(self.cfg, self.inputs.clip(self.cfg))


def make_jobs(
    rows: Sequence[Row],
    seeds: Sequence[int],
    configs: Path,
    overrides: Sequence[str],
    inputs: Inputs,
    absent: Collection[str] = (),
) -> list[Job]:
    """All rows with all seeds; rows that learn nothing once.

    Args:
        absent: names of missing training images; configurations of their rows do not name them.

    Raises:
        UserError: a configuration that cannot be read, or missing training images.
    """
    jobs = []
    for row in rows:
        places = inputs.training(row) if row.train and row.train not in absent else []
        plain = deciding_settings(row_config(Row(row.name, row.config), configs))
        for seed in seeds if row.train else [None]:
            cfg = row_config(row, configs, overrides, [*places, *([] if seed is None else ["SEED", str(seed)])])
            jobs.append(Job(row, seed, cfg, inputs, deciding_settings(cfg) == plain))
    return jobs


def row_config(row: Row, configs: Path, overrides: Sequence[str] = (), places: Sequence[str] = ()) -> CfgNode:
    """The configuration of a row: its file, its budget, the command line, what the row is, where the data are."""
    flat = [*_flat(row.budget), *overrides, *_flat(row.settings), *places]
    return load_config(configs / row.config if row.config else None, flat)


def deciding_settings(cfg: CfgNode) -> dict[str, Any]:
    """All keys that a learned method depends on, flat; of ``METHOD`` only those of its own method."""
    flat = dict(flatten(cfg))
    of_method = f"METHOD.{cfg.METHOD.NAME.upper()}."
    settings = {}
    for key, value in flat.items():
        if key.startswith(("LOG.", "METHOD.")) and key != "METHOD.NAME" and not key.startswith(of_method):
            continue
        if key in _PLACES or key in _SPEED or (key.startswith("EVAL.") and not flat.get("SELECT_ON_TEST")):
            continue
        if key in _YOUNGER and value == _YOUNGER[key]:
            continue
        settings[key] = list(value) if isinstance(value, tuple) else value
    return settings


def _flat(settings: Settings) -> list[str]:
    return [text for pair in settings for text in pair]
