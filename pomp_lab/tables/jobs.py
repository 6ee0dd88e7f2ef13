"""Runs of a table: rows with seeds and their configurations, and the data and models that a process has opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pomp_lab.tables.plan import Row
from pomp_lab.tables.sources import Training, open_training
from pomp_lab.tables.targets import Target, open_target
from prompt_core.command_line import load_model
from prompt_core.config import load_config
from prompt_core.methods.registry import method_class
from prompt_core.training.data import training_images

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from prompt_core.clip import Clip
    from prompt_core.data.images import ImageSet


@dataclass(frozen=True, eq=False)
class Job:
    """A row with a seed (None where nothing is learned) and its configuration."""

    row: Row
    seed: int | None
    cfg: CfgNode

    @property
    def learns(self) -> bool:
        """Whether anything is learned."""
        return method_class(self.cfg.METHOD.NAME).learned_by != "nothing"

    @property
    def label(self) -> str:
        """For messages."""
        return self.row.name if self.seed is None else f"{self.row.name}, seed {self.seed}"


@dataclass(frozen=True)
class Opened:
    """Data of a process, opened once: a data root with its training images and targets."""

    root: Path
    lists: Path

    @cached_property
    def _found(self) -> dict[Any, Any]:
        return {}

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._found:
            self._found[key] = make()
        return self._found[key]

    def training(self, name: str) -> Training:
        """Training images by name."""
        return self._once(("training", name), lambda: open_training(name, self.root))

    def target(self, name: str) -> Target:
        """What is scored under a name."""
        return self._once(("target", name), lambda: open_target(name, self.root))

    def few_shot(self, cfg: CfgNode) -> ImageSet:
        """The images that a configuration learns from; all of a large set would not be kept in memory."""
        data = cfg.DATA
        key = ("few", data.TRAIN, data.SPLIT, data.CLASSES, data.SHOTS, cfg.SEED)
        return self._once(key, lambda: training_images(cfg, data.SPLIT, data.SHOTS))

    def clip(self, cfg: CfgNode) -> Clip:
        """The model of a configuration; the last one is kept."""
        key = (cfg.MODEL.NAME, cfg.MODEL.PRETRAINED, cfg.DEVICE)
        if self._found.get("clip", (None, None))[0] != key:
            self._found["clip"] = (key, load_model(cfg))
        return self._found["clip"][1]


def make_jobs(
    rows: Sequence[Row],
    seeds: Sequence[int],
    configs: Path,
    overrides: Sequence[str],
    opened: Opened,
    absent: Sequence[str] = (),
) -> list[Job]:
    """All rows with all seeds; rows that learn nothing once.

    Args:
        absent: names of training images that are not there; configurations of their rows do not name them.

    Raises:
        UserError: a configuration that cannot be read, or training images that are not there.
    """
    jobs = []
    for row in rows:
        places: list[str] = []
        if row.train and row.train not in absent:
            training = opened.training(row.train)
            places = ["DATA.TRAIN", training.train, "DATA.CLASSES", training.class_file(opened.lists)]
            places += ["DATA.VOCABULARY", training.wide if row.wide else ""]
        for seed in seeds if row.train else [None]:
            cfg = row_config(row, configs, overrides, [*places, *([] if seed is None else ["SEED", str(seed)])])
            jobs.append(Job(row, seed, cfg))
    return jobs


def row_config(row: Row, configs: Path, overrides: Sequence[str] = (), places: Sequence[str] = ()) -> CfgNode:
    """The configuration of a row: its file, its budget, the command line, what the row is, where the data are."""
    flat = [*_flat(row.budget), *overrides, *_flat(row.settings), *places]
    return load_config(configs / row.config, flat)


def _flat(settings: Sequence[tuple[str, str]]) -> list[str]:
    return [text for pair in settings for text in pair]
