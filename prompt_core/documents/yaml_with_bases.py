"""YAML settings with ``_BASE_``, bounded before memory is taken: bytes, depth, aliases, digits, files.

A few lines of aliases of aliases stand for billions of values, and a chain of ``_BASE_`` may come back to itself. Both
are counted while the text is parsed, before a value is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from prompt_core.documents.bounds import DIGITS, YAML_BYTES, read_text
from prompt_core.errors import UserError
from prompt_core.visible import shortened, visible

BASE = "_BASE_"
# Levels of nesting; Detectron2's settings have four.
DEPTH = 50
# Values with every alias written out; the largest published configuration has about 200.
VALUES = 100_000
# Files that one configuration stands on, each counted as often as it is named.
FILES = 100


class BoundedLoader(yaml.SafeLoader):
    """YAML's safe loader within bounds."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        # By the identity of a node: how many values it stands for with its aliases written out, and how deep they go.
        self._extent: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node of the document's tree, or the one that an alias names.

        Raises:
            UserError: beyond a bound, or for an alias of what is around it.
        """
        if self.check_event(yaml.AliasEvent):
            place = self.peek_event().start_mark
            node = super().compose_node(parent, index)
            if id(node) not in self._extent:
                raise UserError(f"{place_of(place)}: an alias stands inside what it names; write the values out")
            return node
        if self._depth >= DEPTH:
            raise UserError(f"{place_of(self.peek_event().start_mark)}: more than {DEPTH} levels of nesting")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None:
            self._extent[id(node)] = self._measure(node)
        return node

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        """The text of a scalar.

        Raises:
            UserError: for a number of more digits than Python converts.
        """
        if len(node.value) > DIGITS and node.tag.rpartition(":")[2] in ("int", "float"):
            raise UserError(f"{place_of(node.start_mark)}: a number of more than {DIGITS} digits")
        return super().construct_scalar(node)

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        extents = [self._extent[id(child)] for child in children]
        values = 1 + sum(count for count, _ in extents)
        depth = 1 + max((below for _, below in extents), default=0)
        if values > VALUES or depth > DEPTH:
            raise UserError(
                f"{place_of(node.start_mark)}: more than {VALUES:,} values or {DEPTH} levels with its aliases written "
                "out; write only what is needed"
            )
        return values, depth


def place_of(mark: yaml.Mark) -> str:
    """``FILE, line 3``."""
    return f"{mark.name}, line {mark.line + 1}"


def load_yaml(text: str, name: str, loader: type[BoundedLoader] = BoundedLoader) -> Any:
    """The value of a YAML document.

    Args:
        name: of the file, for messages.
        loader: with further tags.

    Raises:
        UserError: when it is malformed or beyond a bound.
    """
    reader = None
    try:
        # Its constructor already looks for characters that YAML does not allow.
        reader = loader(text)
        reader.name = name
        return reader.get_single_data()
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{name} is nested too deeply to be read") from error
    except Exception as error:  # YAML's own, and ValueError and others of what a tag makes of a text
        raise UserError(f"{name} is not valid YAML: {visible(' '.join(str(error).split()))}") from error
    finally:
        if reader is not None:
            reader.dispose()


def read_with_bases(
    file: str,
    local_path: Callable[[str], str] = str,
    loader: type[BoundedLoader] = BoundedLoader,
) -> dict[str, Any]:
    """The settings of a YAML file, over those of the files that its ``_BASE_`` names.

    As in fvcore, ``_BASE_`` is one file or a list in which later ones win; a path is relative to the file that names
    it, unless it is absolute, a web address or begins with ``~``.

    Args:
        local_path: the path of a file that may have a web address.
        loader: with further tags.

    Raises:
        UserError: an absent or malformed file, a ``_BASE_`` that does not fit or leads back to itself.
    """
    return _Bases(local_path, loader).read(file, ())


class _Bases:
    def __init__(self, local_path: Callable[[str], str], loader: type[BoundedLoader]) -> None:
        self._local_path = local_path
        self._loader = loader
        self._files = 0

    def read(self, file: str, above: tuple[str, ...]) -> dict[str, Any]:
        path = self._local_path(file)
        identity = str(Path(path).resolve())
        self._files += 1
        if identity in above:
            raise UserError(f"{file} is its own {BASE}, through {' and '.join(above[above.index(identity) :])}")
        if self._files > FILES:
            raise UserError(f"{file}: a configuration of more than {FILES} {BASE} files")
        settings = load_yaml(read_text(path, YAML_BYTES), file, self._loader)
        if not isinstance(settings, dict):
            raise UserError(f"{file} holds a {type(settings).__name__}; a mapping of settings is expected")
        merged: dict[str, Any] = {}
        for base in _bases(settings.pop(BASE, [])):
            _merge(self.read(_base_path(file, base), (*above, identity)), merged)
        _merge(settings, merged)
        return merged


def _bases(value: Any) -> list[str]:
    bases = value if isinstance(value, list) else [value]
    if not all(isinstance(base, str) for base in bases):
        raise UserError(f"{BASE} is {shortened(value)}; a file or a list of files is expected")
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
