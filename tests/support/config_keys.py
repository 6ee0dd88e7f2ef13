"""Which keys of a configuration a piece of code reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from yacs.config import CfgNode

PLACE = "place in the whole configuration"  # no name of a key


@contextmanager
def recorded_reads(*configurations: CfgNode) -> Iterator[set[str]]:
    """Dotted keys of the settings that are read meanwhile, from these configurations and all copies of them.

    Walking through all settings, as cloning and dumping do, is no reading.
    """
    keys: set[str] = set()
    for cfg in configurations:
        _mark(cfg, "")

    def getitem(node: CfgNode, key: str) -> Any:
        value = dict.__getitem__(node, key)
        if PLACE in node.__dict__ and not isinstance(value, CfgNode):
            keys.add(f"{node.__dict__[PLACE]}{key}")
        return value

    def get(node: CfgNode, key: str, default: Any = None) -> Any:
        return getitem(node, key) if key in node else default

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CfgNode, "__getitem__", getitem, raising=False)
        patch.setattr(CfgNode, "get", get, raising=False)
        yield keys


def _mark(node: CfgNode, place: str) -> None:
    node.__dict__[PLACE] = place
    for key, value in node.items():
        if isinstance(value, CfgNode):
            _mark(value, f"{place}{key}.")
