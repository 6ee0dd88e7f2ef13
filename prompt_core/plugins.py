"""Objects from outside the toolkit, given in a setting as ``package.module:Name``."""

from __future__ import annotations

import importlib
from typing import Any

from prompt_core.errors import UserError, nearest


def is_outside(text: str) -> bool:
    """Whether a setting names an object by module, such as ``my_package.methods:MyMethod``, and not by a short name."""
    module, colon, name = text.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def load_object(text: str, setting: str) -> Any:
    """The object that ``package.module:Name`` stands for.

    Args:
        setting: where ``text`` was given, for messages.

    Raises:
        UserError: when the module cannot be imported, or has no such name.
    """
    module_name, _, name = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module may fail in any way while it is imported
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{setting} is {text!r}; importing {module_name} failed ({type(error).__name__}: {reason}); "
            "install its package, or put its folder on PYTHONPATH"
        ) from error
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise UserError(f"{setting} is {text!r}; module {module_name} has no {name!r}{nearest(name, known)}")
    return getattr(module, name)
