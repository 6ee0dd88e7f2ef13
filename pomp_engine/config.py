"""Configuration files and overrides on top of a task's defaults: only keys that exist, only values of their types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.registry import Registry

from pomp_engine.config_keys import add_engine_config
from pomp_engine.yaml_files import read_yaml
from prompt_core.config import _pairs as _split_pairs
from prompt_core.errors import UserError, nearest

__all__ = [
    "add_engine_config",
    "check_parts",
    "flatten",
    "merge_config",
    "override_pairs",
    "read_config",
    "task_config",
]


def task_config(
    add_keys: Callable[[CfgNode], None],
    file: str | Path | None = None,
    overrides: Sequence[Any] | Mapping[str, Any] = (),
) -> CfgNode:
    """Detectron2's defaults with the keys of a task, then ``file`` and ``overrides``, see :func:`merge_config`.

    ``MODEL.DEVICE`` is the CPU where there is no GPU, unless it is set.

    Args:
        add_keys: adds the task's keys with their defaults, in place.

    Returns:
        the configuration, not frozen.
    """
    cfg = get_cfg()
    add_keys(cfg)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return merge_config(cfg, file, overrides)


def merge_config(
    cfg: CfgNode, file: str | Path | None = None, overrides: Sequence[Any] | Mapping[str, Any] = ()
) -> CfgNode:
    """Put the settings of ``file`` with its ``_BASE_`` files, then ``overrides``, into ``cfg``.

    As in the published training scripts, a last part ``auto`` of ``OUTPUT_DIR`` becomes the name of the file.

    Args:
        cfg: a configuration with every key, which is changed in place.
        file: a YAML file; None for none.
        overrides: ``KEY VALUE`` pairs in one flat sequence, ``KEY=VALUE`` texts, or a dictionary.

    Returns:
        ``cfg``.

    Raises:
        UserError: an unknown key (with the nearest), a value of another type, an absent or malformed file.
    """
    if file is not None:
        for key, value in flatten(read_config(Path(file))):
            _set(cfg, key, value, str(file))
        if Path(cfg.OUTPUT_DIR).name == "auto":
            cfg.OUTPUT_DIR = cfg.OUTPUT_DIR.removesuffix("auto") + Path(file).stem
    for key, value in override_pairs(overrides):
        _set(cfg, key, value, "the overrides")
    return cfg


def read_config(file: Path) -> dict[str, Any]:
    """The settings of a YAML file with its ``_BASE_`` files, nested as they are written.

    Raises:
        UserError: when the file is absent or malformed.
    """
    if not file.is_file():
        raise UserError(f"configuration {file} does not exist")
    try:
        return read_yaml(file)
    except Exception as error:  # YAML's and yacs's own exceptions, and missing _BASE_ files
        raise UserError(f"configuration {file} cannot be read: {error}") from error


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as pairs of a dotted key and a value, in their order."""
    flat: list[tuple[str, Any]] = []
    for key, value in settings.items():
        # An empty mapping is kept as a value, so that a section without keys is named in an error.
        nested = isinstance(value, Mapping) and len(value) > 0
        flat.extend(flatten(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)])
    return flat


def override_pairs(overrides: Sequence[Any] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Overrides as pairs of key and value.

    Raises:
        UserError: for a key without a value, or a single text.
    """
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    if isinstance(overrides, str):
        raise UserError(f"overrides are {overrides!r}; a sequence of KEY VALUE pairs is expected")
    return list(_split_pairs(overrides))


def _set(cfg: CfgNode, key: str, value: Any, origin: str) -> None:
    node: Any = cfg
    *parents, leaf = str(key).split(".")
    for parent in parents:
        node = node.get(parent) if isinstance(node, CfgNode) else None
    if not isinstance(node, CfgNode) or leaf not in node:
        known = [name for name, _ in flatten(cfg)]
        raise UserError(f"unknown key {key!r} in {origin}{nearest(str(key), known)}")
    default = node[leaf]
    if isinstance(default, CfgNode):
        raise UserError(f"{key!r} in {origin} is a section, not a setting; name a key inside it")
    node[leaf] = _coerce(key, value, default, origin)


def _coerce(key: str, value: Any, default: Any, origin: str) -> Any:
    """YAML writes 1 for a float and reads tuples as texts; more than that is a mistake."""
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return "" if value is None else str(value)
    if isinstance(value, str):
        value = CfgNode._decode_cfg_value(value)
    if default is None:
        return value
    if isinstance(default, float) and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-5 as a text
        except ValueError:
            pass
    if isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        return type(default)(value)
    if isinstance(default, (list, tuple)) and isinstance(value, str) and value:
        return type(default)(value.split(","))
    if type(value) is not type(default):
        expected = type(default).__name__
        raise UserError(f"{key} is {value!r} in {origin}; a value of type {expected} is expected, as {default!r}")
    return value


def check_parts(cfg: CfgNode, parts: Sequence[tuple[str, Registry]]) -> None:
    """Check that the device is usable and that the parts a configuration names are registered.

    Args:
        parts: a dotted key and the registry that its value is looked up in.

    Raises:
        UserError: the first that is not, with the nearest name.
    """
    device = str(cfg.MODEL.DEVICE)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"MODEL.DEVICE is {device!r} but no GPU is usable here; use MODEL.DEVICE cpu")
    for key, registry in parts:
        name: Any = cfg
        for part in key.split("."):
            name = name[part]
        if name not in registry:
            raise UserError(f"{key} is {name!r}, which is not known{nearest(name, [known for known, _ in registry])}")
