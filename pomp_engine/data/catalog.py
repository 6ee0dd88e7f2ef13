"""What the tables of known data sets of detection and segmentation share: advice, names, and groups to check.

Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from prompt_core.data.check import Finding
from prompt_core.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """One data set under the name that configurations use.

    Attributes:
        name: in ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        group: what ``datasets/check.py`` calls it.
        how: how to get the annotations; ``{root}`` is the data root.
        images_how: how to get the photos.
    """

    name: str
    group: str
    how: str
    images_how: str

    def advice(self, root: Path) -> str:
        """How to get the annotations, with the paths of this root."""
        return self.how.format(root=root)

    def images_advice(self, root: Path) -> str:
        """How to get the photos, with the paths of this root."""
        return self.images_how.format(root=root)


Entry = TypeVar("Entry", bound=CatalogEntry)


class Catalog(Generic[Entry]):
    """The known data sets of one task.

    Attributes:
        entries: in the order in which they are shown.
        groups: their groups, in that order.
    """

    def __init__(self, entries: Sequence[Entry], small_groups: Sequence[str]) -> None:
        """
        Args:
            small_groups: left out of ``all``: samples for a laptop.
        """
        self.entries, self._small_groups = tuple(entries), tuple(small_groups)
        self.groups = tuple(dict.fromkeys(entry.group for entry in self.entries))
        self._by_name = {entry.name: entry for entry in self.entries}

    def entry(self, name: str) -> Entry:
        """The entry of a data set name.

        Raises:
            UserError: for an unknown name, with the nearest known ones.
        """
        if name not in self._by_name:
            names = self._by_name
            raise UserError(f"data set {name!r} is unknown{nearest(name, names)}; known: {', '.join(names)}")
        return self._by_name[name]

    def of_group(self, group: str) -> list[Entry]:
        """The entries that ``datasets/check.py GROUP`` looks at; ``all`` leaves small sets out.

        Raises:
            UserError: for an unknown group.
        """
        if group == "all":
            return [entry for entry in self.entries if entry.group not in self._small_groups]
        if group not in self.groups:
            known = (*self.groups, "all")
            hint = nearest(group, known)
            raise UserError(f"{group!r} is not a group of data sets{hint}; expected {', '.join(known)}")
        return [entry for entry in self.entries if entry.group == group]

    def check(self, group: str, root: Path, check_entry: Callable[[Entry, Path], list[Finding]]) -> list[Finding]:
        """What ``check_entry`` finds of each data set of a group below ``root``.

        Raises:
            UserError: for an unknown group.
        """
        return [finding for entry in self.of_group(group) for finding in check_entry(entry, root)]
