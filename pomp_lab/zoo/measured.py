"""Numbers in ``docs/results`` and the configurations that they are of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pomp_lab.comparisons.prompts import mean_and_spread
from pomp_lab.report.companions import training_configuration
from pomp_lab.report.formats import Run
from pomp_lab.report.runs import Found, find_runs
from pomp_lab.zoo.configurations import ConfigurationFile, configuration_of
from prompt_core.errors import UserError, nearest
from prompt_core.evaluation.protocol import ON_REPORTED
from prompt_core.files import sha256_of_json

RESULTS = "docs/results"
# What the page shows of a data set, and how it calls it.
METRICS = {
    "top1": "top-1",
    "box_AP": "box AP",
    "box_APr": "box APr",
    "mask_AP": "mask AP",
    "mask_APr": "mask APr",
    "hIoU": "hIoU",
    "mIoU-seen": "seen mIoU",
    "mIoU-unseen": "unseen mIoU",
    "mIoU": "mIoU",
    "accuracy": "accuracy",
}
# Running means of a training are no result.
TRAINING = ("train", "validation")
# Keys of a configuration that do not decide numbers, or that differ from seed to seed.
PLACES = ("SEED", "DEVICE", "OUTPUT", "LOG", "CACHE", "WORKERS", "OUTPUT_DIR")


@dataclass(frozen=True)
class Measured:
    """What was measured of one configuration in one row of a table, over seeds.

    Attributes:
        row: of the table; empty for a run by itself.
        settings: ``KEY VALUE`` overrides of the command, joined.
        note: how the run differs from the configuration, in words.
        seeds: how many runs the numbers are means of.
        numbers: (data set, ((metric, number), …)), as the page shows them.
        file: below the repository: the result, or its folder where there are several.
    """

    row: str
    settings: str
    note: str
    seeds: int
    numbers: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    file: str


def measured(
    root: Path, files: Mapping[str, ConfigurationFile], tables: Sequence[Mapping[str, Any]] = ()
) -> dict[str, list[Measured]]:
    """Numbers by configuration, from ``root/docs/results``.

    A result belongs to the configuration that its command names, whose resolved settings it holds, whose text it holds
    the hash of, or which it is a row of ``tools/reproduce.py`` of. A prompt that was scored belongs to the one that it
    was learned with, whatever configuration it was scored under; hand prompts to none. Results that say none of these
    are in ``tables``.

    Args:
        tables: objects with ``configuration``, ``file`` (a Markdown table below the repository), ``row`` and ``note``.

    Raises:
        UserError: for results that cannot be read, and tables or rows that are not there.
    """
    found: dict[str, list[Measured]] = {}
    for entry in tables:
        _known(entry["configuration"], files)
        found.setdefault(entry["configuration"], []).append(_from_table(root, **entry))
    folder = root / RESULTS
    everything = find_runs([folder]) if any(folder.rglob("*.json")) else Found([], [])
    if damaged := [each for each in everything.ignored if each.damaged]:
        raise UserError(f"{damaged[0].path}: {damaged[0].reason}")
    runs = everything.runs
    digests = {**_detector_digests(root), **_segmenter_digests(root)} if any(_digest(run) for run in runs) else {}
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in runs:
        name = _configuration(run, files, digests)
        if name is not None and _shown([run]):
            row = run.label if run.label != run.name else ""
            overrides = _overrides(str(run.about.get("command") or ""))
            groups.setdefault((name, row, overrides, _but_seed(run)), []).append(run)
    for (name, row, settings, _), group in groups.items():
        places = sorted(run.file.relative_to(root).as_posix() for run in group)
        place = places[0] if len(places) == 1 else Path(places[0]).parent.as_posix()
        notes = [_table_command(str(group[0].about.get("command") or ""))]
        notes += [ON_REPORTED] if any(run.selected_on_test for run in group) else []
        note = "; ".join(filter(None, notes))
        found.setdefault(name, []).append(Measured(row, settings, note, len(group), _shown(group), place))
    return found


def _configuration(run: Run, files: Mapping[str, ConfigurationFile], digests: Mapping[str, str]) -> str | None:
    command = str(run.about.get("command") or "")
    if command.split(" ")[0].endswith("evaluate_prompt.py"):
        return _learned_with(run, files)
    name = configuration_of(command)
    if name in files:
        return name
    given = str(run.settings.get("config"))
    if given in files:
        return given
    if given in digests:
        return digests[given]
    stated = str(run.about.get("config") or "")
    if "method" in run.settings and stated.endswith(".yaml"):
        return _as_configured(run, stated, files)
    return _same_settings(stated, files) if ":" in stated else None


def _learned_with(run: Run, files: Mapping[str, ConfigurationFile]) -> str | None:
    """The configuration that a scored prompt was learned with, where its training lies with the result.

    Only paths from the result's own folder are followed: the page must not depend on what else a machine holds.
    """
    prompt = Path(str(run.about.get("prompt") or ""))
    given = None if run.hand or prompt.is_absolute() else training_configuration(run.file.parent / prompt)
    return None if given is None else _resolves_to(given, files)


def _as_configured(run: Run, stated: str, files: Mapping[str, ConfigurationFile]) -> str | None:
    """The configuration that a row of ``tools/reproduce.py`` begins with, unless the row changes what it sets."""
    name = f"configs/prompt/{stated}"
    if name not in files:
        return None
    own = _resolved(files[name])
    kept = {key: value for key, value in run.settings.items() if "." in key}
    kept |= {"METHOD.NAME": run.settings["method"], "MODEL.NAME": run.settings.get("clip")}
    return name if all(key in own and own[key] == value for key, value in kept.items()) else None


def _but_seed(run: Run) -> str:
    """What runs must share to be means of one number."""
    settings = {key: value for key, value in run.settings.items() if key != "seed"}
    return sha256_of_json([settings or run.name, sorted(part.key for part in run.parts)])


def _digest(run: Run) -> bool:
    return bool(re.fullmatch(r"[0-9a-f]{64}", str(run.settings.get("config"))))


def _same_settings(dump: str, files: Mapping[str, ConfigurationFile]) -> str | None:
    """The configuration of prompt learning that resolves to a dumped one, but for places, seed and device."""
    try:
        given = yaml.safe_load(dump)
    except yaml.YAMLError:
        return None
    return _resolves_to(given, files) if isinstance(given, dict) else None


def _resolves_to(given: Mapping[str, Any], files: Mapping[str, ConfigurationFile]) -> str | None:
    from prompt_core.config import default_config

    if not {"METHOD", "LOSS"} & set(given):
        return None
    defaults = _comparable(yaml.safe_load(default_config().dump()))
    # Runs of before a key existed had its default.
    wanted = {**defaults, **_comparable(given)}
    for name, file in files.items():
        if file.task == "classification" and _resolved(file) == wanted:
            return name
    return None


def _resolved(file: ConfigurationFile) -> dict[str, Any]:
    from prompt_core.config import load_config

    return _comparable(yaml.safe_load(load_config(file.root / file.name).dump()))


def _comparable(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key in PLACES or (not prefix and key == "EVAL"):
            continue
        flat |= _comparable(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _detector_digests(root: Path) -> dict[str, str]:
    """What ``tools/compare_detectors.py`` keeps of a configuration's text → its name."""
    from pomp_lab.comparisons.detectors import ROWS

    folder = root / "configs/mini"
    shared = [folder / "base.yaml", folder / "scenes_boxes.yaml"]
    if not all(path.is_file() for path in shared):
        return {}
    base, boxes = (path.read_text(encoding="utf-8") for path in shared)
    own = {row.config: folder / row.config for row in ROWS if (folder / row.config).is_file()}
    texts = {name: path.read_text(encoding="utf-8") + base for name, path in own.items()}
    return {sha256_of_json([text, boxes]): f"configs/mini/{name}" for name, text in texts.items()}


def _segmenter_digests(root: Path) -> dict[str, str]:
    """The same for ``tools/compare_segmenters.py``, for each of its experiments and rows."""
    from pomp_lab.comparisons.segmenters import EXPERIMENTS, ROWS

    digests = {}
    for experiment in EXPERIMENTS.values():
        for row in ROWS:
            names = [f"mini/{experiment.config}", "mini/segmentation_base.yaml"]
            if row.learner != "predefined":
                names.append(f"prompt/{experiment.prompt}")
            if row.tuning is not None:
                names += [f"mini/{experiment.tuning}", "mini/segmentation_prompt.yaml"]
            paths = [root / "configs" / name for name in names]
            if all(path.is_file() for path in paths):
                texts = [path.read_text(encoding="utf-8") for path in paths]
                digests[sha256_of_json(texts)] = f"configs/mini/{experiment.config}"
    return digests


def _shown(runs: Sequence[Run]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Mean of each number over runs, with half the range behind it."""
    values: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for part in run.parts:
            if part.dataset not in TRAINING:
                for metric, number in part.numbers.items():
                    if metric in METRICS and not math.isnan(number):
                        values.setdefault(part.dataset, {}).setdefault(metric, []).append(number)
    return tuple(
        (dataset, tuple((METRICS[metric], _mean(each[metric])) for metric in METRICS if metric in each))
        for dataset, each in values.items()
    )


def _mean(values: Sequence[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:.1f}" + (f" ± {spread:.1f}" if len(values) > 1 else "")


def _overrides(command: str) -> str:
    """The ``KEY VALUE`` part of a command."""
    found = re.search(r"(?<=\s)[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*[ =].*", command)
    return found.group() if found else ""


def _table_command(command: str) -> str:
    """Which table a row of ``tools/reproduce.py`` is of."""
    found = re.match(r"reproduce\.py (\w+)", command)
    scale = re.search(r"--scale[ =](\w+)", command)
    return f"table `{found.group(1)}` of `reproduce.py`, {scale.group(1) if scale else 'paper'} scale" if found else ""


def _from_table(root: Path, configuration: str, file: str, row: str, note: str = "") -> Measured:
    path = root / file
    if not path.is_file():
        raise UserError(f"{file}, a table of {configuration}, does not exist; mend pomp_lab/assets/zoo.json")
    lines = [line.strip().strip("|") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    cells = {each[0]: each for each in rows}
    if row not in cells:
        raise UserError(f"{file} has no row {row!r}{nearest(row, cells)}; mend pomp_lab/assets/zoo.json")
    numbers = dict(zip(head, cells[row], strict=True))
    seeds = int(numbers.pop("runs", numbers.pop("seeds", "1")))
    shown = tuple(numbers.items())[1:]
    return Measured(row, "", note, seeds, (("", shown),), file)


def _known(name: str, files: Mapping[str, ConfigurationFile]) -> None:
    if name not in files:
        raise UserError(f"{name} does not exist{nearest(name, files)}; mend pomp_lab/assets/zoo.json")
