"""YAML files with ``_BASE_``, and the expressions of numbers in published ones, without running Python."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from prompt_core.errors import UserError

BASE = "_BASE_"
_PYTHON = "tag:yaml.org,2002:python/"
_EVAL = f"{_PYTHON}object/apply:eval"


def read_yaml(file: str | Path) -> dict[str, Any]:
    """The settings of a file, over those of the files that its ``_BASE_`` names.

    As in fvcore, ``_BASE_`` is one file or a list in which later ones win; a path is relative to the file that names
    it, unless it is absolute, a web address or begins with ``~``. Published files of ZSSeg write a list of numbers as
    an expression under the tag ``!!python/object/apply:eval``; see :func:`evaluate`.

    Raises:
        UserError: any other tag of Python, an expression that is not allowed, a ``_BASE_`` that does not fit.
        OSError, yaml.YAMLError: an absent or malformed file.
    """
    name = str(file)
    with CfgNode._open_cfg(name) as stream:
        settings = yaml.load(stream, _SettingsLoader)
    if not isinstance(settings, dict):
        raise UserError(f"{name} holds a {type(settings).__name__}; a mapping of settings is expected")
    merged: dict[str, Any] = {}
    for base in _bases(settings.pop(BASE, [])):
        _merge(read_yaml(_base_path(name, base)), merged)
    _merge(settings, merged)
    return merged


def _bases(value: Any) -> list[str]:
    bases = value if isinstance(value, list) else [value]
    if not all(isinstance(base, str) for base in bases):
        raise UserError(f"{BASE} is {value!r}; a file or a list of files is expected")
    return bases


def _base_path(name: str, base: str) -> str:
    if base.startswith("~"):
        return str(Path(base).expanduser())
    if base.startswith(("/", "http://", "https://")):
        return base
    return name[: name.rfind("/") + 1] + base  # no Path, since the name may be an address


def _merge(settings: Mapping[str, Any], into: dict[str, Any]) -> None:
    for key, value in settings.items():
        if not isinstance(value, dict) or key not in into:
            into[key] = value
        elif isinstance(into[key], dict):
            _merge(value, into[key])
        else:
            raise UserError(f"Cannot inherit key '{key}' from base!")


def evaluate(text: str) -> Any:
    """The value of an expression of numbers, texts, lists and comprehensions, with only ``int`` and ``range``.

    There are no other names and no attributes, and nothing of Python is run: the expression's tree is walked by
    simpleeval, within its limits on lengths and powers.

    Raises:
        UserError: anything else, in one line.
    """
    # Other files need no simpleeval.
    from simpleeval import EvalWithCompoundTypes

    evaluator = EvalWithCompoundTypes(names={})
    evaluator.functions = {"int": int, "range": range}  # the constructor adds its own
    for kind in (ast.Attribute, ast.JoinedStr, ast.FormattedValue):
        del evaluator.nodes[kind]
    try:
        # Parsed here, since simpleeval also takes statements.
        value = evaluator.eval(text, ast.parse(text.strip(), mode="eval").body)
    except Exception as error:  # simpleeval's own, and whatever the operators raise
        reason = " ".join(str(error).split())
        raise UserError(f"the expression {text!r} is not allowed: {reason}; write its value instead") from error
    if not _is_plain(value):
        raise UserError(f"the expression {text!r} gives a {type(value).__name__}; numbers or a list are expected")
    return value


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


class _SettingsLoader(yaml.SafeLoader):
    """YAML's safe loader; the only tag of Python that it knows is that of an expression."""


def _place(node: yaml.Node) -> str:
    return f"{node.start_mark.name}, line {node.start_mark.line + 1}"


def _expression(loader: _SettingsLoader, node: yaml.Node) -> Any:
    words = node.value if isinstance(node, yaml.SequenceNode) else []
    if len(words) != 1 or not isinstance(words[0], yaml.ScalarNode):
        raise UserError(f'{_place(node)}: !!python/object/apply:eval is followed by ["EXPRESSION"], one text in a list')
    try:
        return evaluate(str(words[0].value))
    except UserError as error:
        raise UserError(f"{_place(node)}: {error}") from error


def _refused(loader: _SettingsLoader, suffix: str, node: yaml.Node) -> Any:
    raise UserError(
        f"{_place(node)}: the tag !!python/{suffix} would run Python, which a configuration must not; write plain YAML"
    )


_SettingsLoader.add_constructor(_EVAL, _expression)
_SettingsLoader.add_multi_constructor(_PYTHON, _refused)
