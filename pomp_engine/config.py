"""Configuration files and overrides on top of a task's defaults: only keys that exist, only values of their types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.registry import Registry

from pomp_engine.yaml_files import read_yaml
from prompt_core.config import flatten, merge_settings, override_pairs, read_settings
from prompt_core.errors import UserError, nearest
from prompt_core.ranges import Filled, Range, check_ranges
from prompt_core.visible import shortened


def task_config(
    add_keys: Callable[[CfgNode], None],
    file: str | Path | None = None,
    overrides: Sequence[Any] | Mapping[str, Any] = (),
    ranges: Mapping[str, Range | Filled] | None = None,
) -> CfgNode:
    """Detectron2's defaults with the keys of a task, then ``file`` and ``overrides``, see :func:`merge_config`.

    ``MODEL.DEVICE`` is the CPU where there is no GPU, unless it is set.

    Args:
        add_keys: adds the task's keys with their defaults, in place.
        ranges: of the task's settings, see :func:`prompt_core.ranges.check_ranges`; None checks nothing.

    Returns:
        the configuration, not frozen.

    Raises:
        UserError: as :func:`merge_config`, and for a setting that is out of its range.
    """
    cfg = get_cfg()
    add_keys(cfg)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    merge_config(cfg, file, overrides)
    check_ranges(cfg, ranges or {})
    return cfg


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
        merge_settings(cfg, flatten(read_config(Path(file))), str(file))
        if Path(cfg.OUTPUT_DIR).name == "auto":
            cfg.OUTPUT_DIR = cfg.OUTPUT_DIR.removesuffix("auto") + Path(file).stem
    merge_settings(cfg, override_pairs(overrides), "the overrides")
    return cfg


def read_config(file: Path) -> dict[str, Any]:
    """The settings of a YAML file with its ``_BASE_`` files, nested as they are written.

    Raises:
        UserError: when the file is absent or malformed.
    """
    return read_settings(file, read_yaml)


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
        name = value_of(cfg, key)
        if name not in registry:
            raise UserError(f"{key} is {name!r}, which is not known{nearest(name, [known for known, _ in registry])}")


def build_configured(cfg: CfgNode) -> Any:
    """Detectron2's model of a configuration.

    Raises:
        UserError: for settings that do not go together, which Detectron2 stumbles over when it builds.
    """
    from detectron2.modeling import build_model

    try:
        return build_model(cfg)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        if "memory" in reason:
            raise
        reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        raise UserError(
            f"no model can be built from this configuration ({shortened(reason, 300)[1:-1]}); compare it with those in "
            "configs/"
        ) from error


def refuse_unsupported(cfg: CfgNode, add_keys: Callable[[CfgNode], None], reasons: Mapping[str, str]) -> None:
    """Refuse settings that nothing here reads, unless they have their defaults.

    A published file may name them, and a user may not take a setting for granted that changes nothing.

    Args:
        add_keys: the task's keys with their defaults, as for :func:`task_config`.
        reasons: by the dotted key of a setting, or of a section with all its settings: why, or what to use instead.

    Raises:
        UserError: the first that is set to something else.
    """
    defaults = task_config(add_keys)
    for key, reason in reasons.items():
        section = value_of(defaults, key)
        settings = dict(flatten(section, f"{key}.")) if isinstance(section, CfgNode) else {key: section}
        for name, default in settings.items():
            value = value_of(cfg, name)
            if value != default:
                raise UserError(f"{name} is {value!r}, which is not built: {reason}; leave it at {default!r}")


def value_of(cfg: CfgNode, key: str) -> Any:
    """The setting or section of a dotted key.

    Raises:
        KeyError: when there is none.
    """
    value: Any = cfg
    for part in key.split("."):
        value = value[part]
    return value


def add_engine_config(cfg: CfgNode) -> None:
    """Add the keys of training that Detectron2 does not know, with their defaults, in place.

    Keys of this project are marked *own*; the others are those of Detic (arXiv 2201.02605) and MaskFormer (arXiv
    2107.06278), whose published YAML files set them.
    """
    # own; True evaluates and predicts with random weights where MODEL.WEIGHTS is empty or lacks some
    cfg.MODEL.RANDOM_WEIGHTS = False
    cfg.MODEL.PROPOSALS = CfgNode()
    # own; regions from outside in the place of the model's own proposals, in tests and predictions: a file or a folder,
    # see pomp_engine.data.proposal_files; and the best regions of a photo that are used
    cfg.MODEL.PROPOSALS.FILE = ""
    cfg.MODEL.PROPOSALS.LIMIT = 300
    node = cfg.SOLVER
    node.USE_CUSTOM_SOLVER = False
    node.OPTIMIZER = "SGD"  # SGD or ADAMW; for a detector, with USE_CUSTOM_SOLVER
    # own; AdamW's decay rates. The sigmoid losses of all classes start a hundred times higher than they end; the second
    # rate decides how long steps stay small after that, which matters in a short schedule.
    node.BETAS = (0.9, 0.999)
    node.BACKBONE_MULTIPLIER = 1.0
    node.CUSTOM_MULTIPLIER = 1.0
    node.CUSTOM_MULTIPLIER_NAME = []
    node.RESUME_PERIOD = 1000  # own; iterations between renewals of model_last.pth, which --resume continues from
    cfg.FP16 = False  # on a GPU the backbone runs in half precision; on a CPU nothing changes
    cfg.FIND_UNUSED_PARAM = True
