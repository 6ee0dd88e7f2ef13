"""Open Images' 500 challenge classes and their hierarchy: a dog is also a mammal and an animal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec

from prompt_core.documents.bounds import SMALL_BYTES
from prompt_core.documents.json_files import read_json
from prompt_core.documents.schema import Int64, check
from prompt_core.errors import UserError

HIERARCHY = "challenge-2019-label500-hierarchy.json"  # as Open Images distributes it
_DEEPEST = 64


class Node(msgspec.Struct, gc=False):
    """A class of the hierarchy; ``Part`` says what it consists of, which makes nothing an ancestor."""

    LabelName: str
    Subcategory: list[Node] = []


class Labelled(msgspec.Struct, gc=False):
    """A class of Open Images."""

    id: Int64
    freebase_id: str


class ListedHierarchy(msgspec.Struct):
    """A hierarchy with the classes that it is of."""

    hierarchy: Node
    categories: list[Labelled]


def class_labels() -> list[str]:
    """The machine ids (``/m/0bt9lr``) of the classes of the vocabulary ``openimages``, in its order.

    Source: class descriptions of the Open Images Challenge 2019, annotations CC BY 4.0.
    """
    text = (resources.files("pomp_det") / "data" / "assets" / "openimages_classes.json").read_text(encoding="utf-8")
    labels: list[str] = json.loads(text)
    return labels


def read_hierarchy(path: str | Path) -> list[frozenset[int]]:
    """For each class of a detector the classes above it, without itself.

    Args:
        path: Open Images' hierarchy of the challenge, whose classes are those of the vocabulary ``openimages``; or an
            object of a ``hierarchy`` like it and ``categories`` with ``id`` and ``freebase_id``, counted in the order
            of the ids (``…-list.json`` of UniDet's ``get_oid_hierarchy.py``).

    Raises:
        UserError: an absent or malformed file, or a class that the categories lack.
    """
    document = read_json(path, SMALL_BYTES)
    if not isinstance(document, dict) or "hierarchy" not in document:
        return _ancestors(check(document, Node, Path(path), "the hierarchy"), path, class_labels())
    listed: ListedHierarchy = check(document, ListedHierarchy, Path(path), "the hierarchy with its categories")
    ordered = sorted(listed.categories, key=lambda category: category.id)
    return _ancestors(listed.hierarchy, path, [category.freebase_id for category in ordered])


def read_ancestors(path: str | Path, labels: Sequence[str]) -> list[frozenset[int]]:
    """For each class the rows of the classes above it, without itself and without the root.

    Args:
        path: Open Images' hierarchy of the challenge.
        labels: machine ids of the classes.

    Raises:
        UserError: an absent or malformed file, or a class that the labels lack.
    """
    root: Node = check(read_json(path, SMALL_BYTES), Node, Path(path), "the hierarchy")
    return _ancestors(root, path, labels)


def _ancestors(root: Node, path: str | Path, labels: Sequence[str]) -> list[frozenset[int]]:
    row_of = {label: row for row, label in enumerate(labels)}
    above: list[set[int]] = [set() for _ in labels]

    def walk(node: Node, ancestors: frozenset[int]) -> None:
        if len(ancestors) > _DEEPEST:
            raise UserError(f"{path}: classes lie more than {_DEEPEST} deep, or a class lies under itself")
        for child in node.Subcategory:
            if child.LabelName not in row_of:
                raise UserError(f"{path}: class {child.LabelName!r} is none of the {len(labels)} classes")
            row = row_of[child.LabelName]
            above[row] |= ancestors - {row}
            walk(child, ancestors | {row})

    walk(root, frozenset())
    return [frozenset(rows) for rows in above]


def descendants_of(ancestors: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """For each class the rows of the classes below it."""
    below: list[set[int]] = [set() for _ in ancestors]
    for row, rows in enumerate(ancestors):
        for ancestor in rows:
            below[ancestor].add(row)
    return [frozenset(rows) for rows in below]
