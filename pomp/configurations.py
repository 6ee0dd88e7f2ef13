"""Configurations by name, from an installed package or a checkout."""

from __future__ import annotations

from pathlib import Path

from prompt_core.errors import UserError, nearest

_PACKAGE = Path(__file__).resolve().parent
# setup.py puts the folder of the checkout into the package.
CONFIGURATIONS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


def configuration(name: str) -> Path:
    """The file of a configuration that is shipped.

    Args:
        name: such as ``mini/detector``, ``lvis_pomp`` or ``configs/mini/detector.yaml``.

    Raises:
        UserError: for an unknown name.
    """
    plain = name.removeprefix("configs/").removesuffix(".yaml")
    names = configurations()
    if plain not in names:
        raise UserError(f"{name!r} is no configuration of this package{nearest(plain, names)}; pomp models lists them")
    return CONFIGURATIONS / f"{plain}.yaml"


def configurations() -> tuple[str, ...]:
    """The names of all configurations, sorted."""
    files = sorted(CONFIGURATIONS.rglob("*.yaml"))
    return tuple(file.relative_to(CONFIGURATIONS).with_suffix("").as_posix() for file in files)
