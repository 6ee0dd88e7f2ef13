"""YAML files of detectors and segmenters: the expressions of numbers in published ones, without running Python."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml
from detectron2.utils.file_io import PathManager

from prompt_core.documents.yaml_with_bases import BoundedLoader, place_of, read_with_bases
from prompt_core.errors import UserError
from prompt_core.visible import shortened

_PYTHON = "tag:yaml.org,2002:python/"
_EVAL = f"{_PYTHON}object/apply:eval"
# simpleeval counts the values of one loop; loops in loops would run for hours.
LOOPS, RANGE = 2, 1000


def read_yaml(file: str | Path) -> dict[str, Any]:
    """The settings of a file, over those of the files that its ``_BASE_`` names (:func:`read_with_bases`).

    Published files of ZSSeg write a list of numbers as an expression under the tag ``!!python/object/apply:eval``; see
    :func:`evaluate`. A web address is fetched as Detectron2 does.

    Raises:
        UserError: an absent or malformed file, any other tag of Python, an expression that is not allowed, a
            ``_BASE_`` that does not fit.
    """
    return read_with_bases(str(file), PathManager.get_local_path, _SettingsLoader)


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
    evaluator.functions = {"int": int, "range": _short_range}  # the constructor adds its own
    for kind in (ast.Attribute, ast.JoinedStr, ast.FormattedValue):
        del evaluator.nodes[kind]
    try:
        # Parsed here, since simpleeval also takes statements.
        tree = ast.parse(text.strip(), mode="eval").body
        if sum(isinstance(node, ast.comprehension) for node in ast.walk(tree)) > LOOPS:
            raise ValueError(f"it has more than {LOOPS} loops")
        value = evaluator.eval(text, tree)
    except Exception as error:  # simpleeval's own, and whatever the operators raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"the expression {shortened(text)} is not allowed: {reason}; write its value instead"
        ) from error
    if not _is_plain(value):
        raise UserError(
            f"the expression {shortened(text)} gives a {type(value).__name__}; numbers or a list are expected"
        )
    return value


def _short_range(*bounds: int) -> range:
    values = range(*bounds)
    if len(values) > RANGE:
        raise ValueError(f"a range of more than {RANGE:,} numbers")
    return values


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


class _SettingsLoader(BoundedLoader):
    """The only tag of Python that it knows is that of an expression."""


def _expression(loader: _SettingsLoader, node: yaml.Node) -> Any:
    words = node.value if isinstance(node, yaml.SequenceNode) else []
    place = place_of(node.start_mark)
    if len(words) != 1 or not isinstance(words[0], yaml.ScalarNode):
        raise UserError(f'{place}: !!python/object/apply:eval is followed by ["EXPRESSION"], one text in a list')
    try:
        return evaluate(str(words[0].value))
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _refused(loader: _SettingsLoader, suffix: str, node: yaml.Node) -> Any:
    raise UserError(
        f"{place_of(node.start_mark)}: the tag !!python/{suffix} would run Python, which a configuration must not; "
        "write plain YAML"
    )


_SettingsLoader.add_constructor(_EVAL, _expression)
_SettingsLoader.add_multi_constructor(_PYTHON, _refused)
