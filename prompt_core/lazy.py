"""Packages whose public names are loaded on first use, since their dependencies are heavy or may be absent."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        homes: public name → module inside the package.

    Raises (when a name is used):
        AttributeError: for an unknown name.
        UserError: where it needs Detectron2, which is not installed.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "detectron2":
                raise
            from prompt_core.errors import UserError

            raise UserError("detectron2 is not installed; run: python tools/install_detectron2.py") from error

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *homes})

    return get, names
