"""A JSON document of long lists, written item by item."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prompt_core.files import atomic_path


def write_json_lists(path: Path, lists: Mapping[str, Iterable[Any]]) -> None:
    """Write an object of lists, atomically: the bytes of :func:`prompt_core.files.write_json`, one item in memory.

    Args:
        lists: at least one; each is gone through once, in their order.
    """
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write("{")
        for number, (name, items) in enumerate(lists.items()):
            stream.write(f"{',' if number else ''}\n  {_encoded(name)}: [")
            empty = True
            for item in items:
                # Line breaks within texts are escaped, so each of these begins a line of the document.
                stream.write(("\n    " if empty else ",\n    ") + _encoded(item).replace("\n", "\n    "))
                empty = False
            stream.write("]" if empty else "\n  ]")
        stream.write("\n}\n")


def _encoded(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
