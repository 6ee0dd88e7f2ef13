"""What there is by name: the embedded models with their cards, and the configurations with what is known of them.

``assets/models.json`` is written by ``tools/model_zoo.py`` from the configurations, docs/results and published tables.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pomp.configurations import CONFIGURATIONS
from prompt_core.errors import UserError, nearest
from prompt_core.fetch.advice import how_to_get, size_text
from prompt_core.fetch.places import PACKAGE, Places, packaged_path
from prompt_core.fetch.published_files import find_file
from prompt_core.files import data_root

SECTIONS = ("Sources", "What it has seen", "Limits")  # of a card, which say what may not be claimed


@dataclass(frozen=True)
class KnownModel:
    """A model or a configuration.

    Attributes:
        name: as :func:`pomp.load` and ``--model`` take it.
        task: ``classify``, ``detect`` or ``segment``.
        about: one sentence.
        weights: the path that the configuration names; empty where training makes them.
        measured: lines of numbers measured with this toolkit.
        published: lines of numbers published by others.
        runnable: False where other configurations inherit from it, and nothing more.
        card: (package, file) of its card, where the model is embedded.
    """

    name: str
    task: str
    about: str
    weights: str = ""
    measured: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    runnable: bool = True
    card: tuple[str, str] | None = None

    @property
    def card_file(self) -> Path | None:
        """The file of its card."""
        return None if self.card is None else Path(str(resources.files(self.card[0]) / "assets" / self.card[1]))

    @property
    def origin(self) -> str:
        """Where its weights come from, in a line."""
        if self.weights.startswith(PACKAGE):
            file = packaged_path(self.weights)
            return f"in the package, {size_text(file.stat().st_size)}" if file.is_file() else f"absent: {file}"
        if not self.weights:
            return "made by training"
        entry = find_file(self.weights)
        return self.weights if entry is None else f"{self.weights}; get it: {how_to_get(entry, Places(data_root()))}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        card = self.card_file
        return {
            "name": self.name,
            "task": self.task,
            "embedded": card is not None,
            "about": self.about,
            "weights": self.origin,
            "measured": list(self.measured),
            "published": list(self.published),
            "card": None if card is None else str(card),
            "file": None if self.name == "mini" else str(CONFIGURATIONS / f"{self.name}.yaml"),
        }


MINI = KnownModel(
    "mini",
    "classify",
    "the embedded CLIP, which names photos and encodes the words of the others",
    "package://prompt_core/assets/mini.safetensors",
    card=("prompt_core", "MINI_MODEL_CARD.md"),
)
CARDS = {
    "mini/detector": ("pomp_det", "DETECTOR_MODEL_CARD.md"),
    "mini/segmenter": ("pomp_seg", "SEGMENTER_MODEL_CARD.md"),
}


@cache
def known_models() -> dict[str, KnownModel]:
    """All by name, the embedded ones first."""
    text = (resources.files("pomp") / "assets" / "models.json").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = json.loads(text)["configurations"]
    models = {
        name: KnownModel(
            name,
            entry["task"],
            entry["about"],
            entry["weights"],
            tuple(entry["measured"]),
            tuple(entry["published"]),
            entry["runnable"],
            CARDS.get(name),
        )
        for name, entry in entries.items()
    }
    embedded = {name: models.pop(name) for name in CARDS}
    return {"mini": MINI, **embedded, **models}


def known_model(name: str) -> KnownModel:
    """The model of a name, also as ``configs/NAME.yaml``.

    Raises:
        UserError: for an unknown name, with the nearest.
    """
    models, plain = known_models(), name.removeprefix("configs/").removesuffix(".yaml")
    if plain not in models:
        raise UserError(f"no model is called {name!r}{nearest(plain, models)}; pomp models lists them")
    return models[plain]


def card_sections(model: KnownModel) -> dict[str, str]:
    """The parts of an embedded model's card that say where it comes from and what it may not be used to claim."""
    if model.card_file is None:
        return {}
    parts = re.split(r"(?m)^## (.+)\n", model.card_file.read_text(encoding="utf-8"))
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    licence = re.search(r"(?m)^\| licence \| (.+) \|$", parts[0])
    wanted = {name: found[name].strip() for name in SECTIONS if name in found}
    return {"Licence": licence.group(1)} | wanted if licence else wanted
