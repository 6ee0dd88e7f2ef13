"""Reading what may be anything: numbers, JSON and YAML of other people's runs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from prompt_core.documents.yaml_with_bases import load_yaml
from prompt_core.errors import UserError
from prompt_core.files import read_sealed_json

DEEPEST = 50  # objects and lists within each other
# Beyond it a number is an accident: neither tables nor axes have room for it.
LARGEST_NUMBER = 1e15


def read_document(path: Path) -> Any:
    """A file's JSON.

    Raises:
        UserError: when it is damaged or not JSON, or nested deeper than any results are.
    """
    document = read_sealed_json(path)
    if _is_deeper(document, DEEPEST):
        raise UserError(f"{path} holds no results: it is nested more than {DEEPEST} levels deep")
    return document


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(part, levels - 1) for part in inner)


@lru_cache(maxsize=256)
def read_configuration(text: str) -> dict[str, Any]:
    """A resolved configuration from its YAML text; empty for a file's name or anything else."""
    try:
        configuration = load_yaml(text, "the configuration") if ":" in text else None
    except UserError:
        return {}
    return configuration if isinstance(configuration, dict) else {}


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number of a sensible size."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
