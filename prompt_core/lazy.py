"""Parts that may be absent: names loaded on first use, packages imported or named with what installs them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

DISTRIBUTION = "prompt-pretraining-toolkit"
INSTALL_DETECTRON2 = "pomp doctor --install-detectron2"
# Tools of a checkout, and the words of the command pomp that take the same options.
_TWINS = {"fetch": "fetch", "build_classifier": "export", "evaluate_prompt": "evaluate", "reproduce": "reproduce"}


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

            raise UserError(no_detectron2()) from error

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *homes})

    return get, names


def no_detectron2() -> str:
    """The message where Detectron2 is absent."""
    return f"detectron2 is not installed; run: {INSTALL_DETECTRON2}"


def install_command(extra: str = "") -> str:
    """The command that installs this package, with the packages of an extra; it differs in a checkout.

    Pip takes the extras of an installed package from its own metadata, and leaves the package itself alone.
    """
    if _is_checkout():
        return f'pip install -e ".[{extra}]"' if extra else "pip install -e ."
    return f'pip install "{DISTRIBUTION}[{extra}]"' if extra else f"pip install {DISTRIBUTION}"


def command_here(command: str) -> str:
    """A command of the documents as it is run here: without a checkout there is no ``tools``, and ``pomp`` does it."""
    if _is_checkout():
        return command
    for tool, word in _TWINS.items():
        command = command.replace(f"python tools/{tool}.py", f"pomp {word}")
    return command


def _is_checkout() -> bool:
    return (Path(__file__).resolve().parent.parent / "setup.py").is_file()


def import_optional(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a package that only an extra brings.

    Args:
        purpose: such as ``to write ONNX files``.

    Raises:
        UserError: when it is not installed, with the command that installs it.
    """
    from prompt_core.errors import UserError

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise
        raise UserError(
            f"{purpose}, the package {module} is needed, and it is not installed; run: {install_command(extra)}"
        ) from error
